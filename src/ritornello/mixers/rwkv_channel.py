"""RWKV's channel mixing: a squared-ReLU layer that sees the token before, behind a gate.

    k = (m_k x_t + (1 - m_k) x_{t-1}) Wk      r = (m_r x_t + (1 - m_r) x_{t-1}) Wr        x_{-1} = 0
    y_t = sigmoid(r) * relu(k)^2 Wv

Its state is the last input, so it is a channel mixer that remembers one token.

Source: Peng et al. 2023, arXiv:2305.13048.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ritornello.errors import InputError
from ritornello.mixers.base import Context, Mixer, Place
from ritornello.mixers.token_shift import rising, shift


class State(NamedTuple):
    last: Tensor  # (B, D), the last input


class RWKVChannel(Mixer):
    @dataclass(frozen=True, kw_only=True)
    class Config(Mixer.Config):
        hidden: int | None = None  # None: 4 times dim

    def __init__(self, dim: int, config: Config, place: Place):
        super().__init__(dim, config, place)
        hidden = 4 * dim if config.hidden is None else config.hidden
        if hidden < 1:
            raise InputError(f"RWKV channel hidden: {hidden} is less than 1; use 4 times dim, {4 * dim}, or so")
        self.mix_k, self.mix_r = (nn.Parameter(torch.empty(dim)) for _ in range(2))
        self.k, self.r, self.v = (nn.Linear(*sizes, bias=False) for sizes in ((dim, hidden), (dim, dim), (hidden, dim)))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Mixes rise over the channels from 0, the past alone, to 1, the faster the deeper the layer; Normal(0, 0.02) weights."""
        with torch.no_grad():
            for mix in (self.mix_k, self.mix_r):
                mix.copy_(rising(self.place, mix))
        for linear in (self.k, self.r, self.v):
            nn.init.normal_(linear.weight, std=0.02)

    def init_state(self, batch: int) -> State:
        return State(self.no_past(batch, self.dim))

    def forward(self, x: Tensor, state: State, context: Context) -> tuple[Tensor, State]:
        before, last = shift(x, state.last, context.reset)
        k, r = (torch.lerp(before, x, mix.to(x.dtype)) for mix in (self.mix_k, self.mix_r))
        return torch.sigmoid(self.r(r)) * self.v(torch.relu(self.k(k)).square()), State(last)
