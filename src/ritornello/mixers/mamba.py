"""Mamba: a state space model whose parameters are chosen by the input, in place of attention and feed-forward layer at once.

    x, z = u Wup                           each E times as wide as the model
    x = swish(conv(x))                     a short causal convolution, channel by channel
    r, B, C = x Wselect                    r of low rank
    dt = softplus(r Wdt + b)               the step size of each channel: how far to forget, how much to write
    h_t = exp(dt_t A) h_{t-1} + dt_t x_t B_t'      A = -exp(A_log)
    y_t = ((h_t C_t + D x_t) * swish(z_t)) Wout

Source: Gu and Dao 2023, arXiv:2312.00752.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ritornello.errors import InputError
from ritornello.mixers.base import Context, Mixer, Place
from ritornello.mixers.short_conv import ShortConv
from ritornello.ops.selective import selective

FASTEST, SLOWEST = 0.1, 0.001  # step sizes at the start


class State(NamedTuple):
    conv: Tensor  # (B, W - 1, E D) the convolution's last inputs, newest last
    h: Tensor  # (B, E D, N) float32


class Mamba(Mixer):
    partner = None
    plain = ("A_log",)

    @dataclass(frozen=True, kw_only=True)
    class Config(Mixer.Config):
        state_dim: int = 16  # N
        expand: int = 2  # E
        conv: int = 4  # width of the convolution
        rank: int | None = None  # of the step sizes; None: a sixteenth of dim, rounded up
        bias: bool = False  # on the maps in and out
        conv_bias: bool = True

    def __init__(self, dim: int, config: Config, place: Place):
        super().__init__(dim, config, place)
        self.rank = -(-dim // 16) if config.rank is None else config.rank
        for name, size in (("state_dim", config.state_dim), ("expand", config.expand), ("rank", self.rank)):
            if size < 1:
                raise InputError(f"Mamba {name}: {size} is less than 1")
        self.inner = config.expand * dim
        self.up = nn.Linear(dim, 2 * self.inner, bias=config.bias)
        self.conv = ShortConv(self.inner, config.conv, bias=config.conv_bias)
        self.select = nn.Linear(self.inner, self.rank + 2 * config.state_dim, bias=False)
        self.dt = nn.Linear(self.rank, self.inner)
        self.A_log = nn.Parameter(torch.empty(self.inner, config.state_dim))
        self.D = nn.Parameter(torch.empty(self.inner))
        self.out = nn.Linear(self.inner, dim, bias=config.bias)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """A = -1, ..., -N in every channel and D = 1; step sizes log-uniform in [0.001, 0.1] through dt's bias, dt's weight
        uniform within 1/sqrt(rank); Normal(0, 0.02) for the other maps, whose biases are zero; torch's default for the convolution."""
        for linear in (self.up, self.select, self.out):
            nn.init.normal_(linear.weight, std=0.02)
            if linear.bias is not None:
                nn.init.zeros_(linear.bias)
        self.conv.reset_parameters()
        nn.init.uniform_(self.dt.weight, -(self.rank**-0.5), self.rank**-0.5)
        with torch.no_grad():
            dt = torch.empty_like(self.dt.bias).uniform_(math.log(SLOWEST), math.log(FASTEST)).exp()
            self.dt.bias.copy_(dt + torch.log(-torch.expm1(-dt)))  # softplus undone
            self.A_log.copy_(torch.arange(1, self.config.state_dim + 1, device=dt.device).log())
            self.D.fill_(1)

    def init_state(self, batch: int) -> State:
        return State(self.conv.init_state(batch), self.zeros(batch, self.inner, self.config.state_dim))

    def forward(self, x: Tensor, state: State, context: Context) -> tuple[Tensor, State]:
        x, gate = self.up(x).chunk(2, -1)
        x, conv = self.conv(x, state.conv, context)
        low, B, C = self.select(x).split([self.rank, self.config.state_dim, self.config.state_dim], -1)
        dt = nn.functional.softplus(self.dt(low))
        A = -self.A_log.to(state.h.dtype).exp()
        y, h = selective(x, dt, A, B, C, state=state.h, reset=context.reset, impl=context.impl)
        return self.out((y + self.D.to(y.dtype) * x) * nn.functional.silu(gate)), State(conv, h)
