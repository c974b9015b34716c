"""RWKV-4: a running mean of values whose weights fade by channel, behind a gate; every input sees the token before.

    r = (m_r x_t + (1 - m_r) x_{t-1}) Wr      k, v likewise with mixes of their own        x_{-1} = 0
    wkv_t = (sum over i < t of e^{-(t-1-i) w + k_i} v_i + e^{u + k_t} v_t) / (the same without v)        w = exp(decay)
    y_t = (sigmoid(r_t) * wkv_t) Wo

u, the bonus, is what the token itself counts for more, or less, than it will as a part of the past.

Source: Peng et al. 2023, arXiv:2305.13048.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ritornello.mixers.base import Context, Mixer, Place
from ritornello.mixers.token_shift import rising, shift
from ritornello.ops import softmax_scan as op


class State(NamedTuple):
    last: Tensor  # (B, D), the last input
    wkv: op.State  # m, num and den (B, D) each


class RWKV4(Mixer):
    partner = "rwkv_channel"

    @dataclass(frozen=True, kw_only=True)
    class Config(Mixer.Config):
        """Nothing to choose."""

    def __init__(self, dim: int, config: Config, place: Place):
        super().__init__(dim, config, place)
        self.mix_r, self.mix_k, self.mix_v = (nn.Parameter(torch.empty(dim)) for _ in range(3))
        self.decay, self.bonus = (nn.Parameter(torch.empty(dim)) for _ in range(2))
        self.r, self.k, self.v, self.out = (nn.Linear(dim, dim, bias=False) for _ in range(4))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """The paper's, by channel and depth: mixes rise from the past to the token, decays from slow to fast, bonuses zigzag about
        log 0.3. Normal(0, 0.02) weights."""
        deep = self.place.index / max(1, self.place.count - 1)  # 0 in the first layer, 1 in the last
        channel = torch.arange(self.dim, device=self.decay.device)
        rise = rising(self.place, self.mix_k)
        with torch.no_grad():
            self.mix_r.copy_(rise.sqrt())
            self.mix_k.copy_(rise)
            self.mix_v.copy_(rise + 0.3 * deep)
            self.decay.copy_(-5 + 8 * (channel / max(1, self.dim - 1)) ** (0.7 + 1.3 * deep))
            self.bonus.copy_(math.log(0.3) + 0.5 * ((channel + 1) % 3 - 1))
        for linear in (self.r, self.k, self.v, self.out):
            nn.init.normal_(linear.weight, std=0.02)

    def init_state(self, batch: int) -> State:
        none = self.zeros(batch, self.dim)
        return State(self.no_past(batch, self.dim), op.State(none + op.NONE, none, none))

    def forward(self, x: Tensor, state: State, context: Context) -> tuple[Tensor, State]:
        before, last = shift(x, state.last, context.reset)
        r, k, v = (
            linear(torch.lerp(before, x, mix.to(x.dtype)))
            for linear, mix in ((self.r, self.mix_r), (self.k, self.mix_k), (self.v, self.mix_v))
        )
        w = self.decay.to(state.wkv.m.dtype).exp()
        y, wkv = op.softmax_scan(k, v, w, self.bonus, state=state.wkv, reset=context.reset, impl=context.impl)
        return self.out(torch.sigmoid(r) * y), State(last, wkv)
