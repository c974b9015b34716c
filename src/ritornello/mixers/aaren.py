"""Aaren, attention as a recurrence: the query is learnt, not read from the token, so that attention over the past is a running mean.

    k = x Wk      v = x Wv      s_t = q_h . k_t / sqrt(d)        a query q_h for each head
    y_t = (sum over i <= t of softmax_i(s_i) v_i, heads side by side) Wo

Each head keeps its largest logit, the numerator and the denominator of the softmax, however long the text.

Source: Feng et al. 2024, arXiv:2405.13956.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ritornello.errors import divide
from ritornello.mixers.base import Context, Mixer, Place
from ritornello.ops.softmax_scan import NONE, State, softmax_scan


class Aaren(Mixer):
    plain = ("q",)

    @dataclass(frozen=True, kw_only=True)
    class Config(Mixer.Config):
        head_dim: int = 64  # a head larger than the model becomes the model

    def __init__(self, dim: int, config: Config, place: Place):
        super().__init__(dim, config, place)
        self.head_dim = min(config.head_dim, dim)
        self.heads = divide(dim, self.head_dim, "Aaren dim over head_dim")
        self.q = nn.Parameter(torch.empty(self.heads, self.head_dim))
        self.k, self.v, self.out = (nn.Linear(dim, dim, bias=False) for _ in range(3))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Normal(0, 1) queries, Normal(0, 0.02) maps: attention starts nearly even, and no two heads alike."""
        nn.init.normal_(self.q)
        for linear in (self.k, self.v, self.out):
            nn.init.normal_(linear.weight, std=0.02)

    def init_state(self, batch: int) -> State:
        none = self.zeros(batch, self.heads, 1)
        return State(none + NONE, self.zeros(batch, self.heads, self.head_dim), none)

    def forward(self, x: Tensor, state: State, context: Context) -> tuple[Tensor, State]:
        k, v = (linear(x).unflatten(-1, (self.heads, self.head_dim)) for linear in (self.k, self.v))
        s = (k.to(state.m.dtype) * self.q * self.head_dim**-0.5).sum(-1, keepdim=True)  # (B, T, H, 1)
        y, state = softmax_scan(s, v, None, None, state=state, reset=context.reset, impl=context.impl)
        return self.out(y.flatten(-2).to(x.dtype)), state
