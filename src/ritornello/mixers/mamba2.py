"""Mamba-2: a selective state space whose transition is one number a head, so that it is linear attention with decay.

    z, x, B, C, dt = u Win          x, B, C = silu(short convolution of the three)        dt = softplus(dt + bias)
    h_t = exp(-dt_t e^A) h_{t-1} + dt_t B_t x_t'        y_t = C_t' h_t + D x_t
    out_t = RMSNorm(y_t * silu(z_t)) Wout        B and C are shared by the heads of a group; the norm is by group

Source: Dao and Gu 2024, arXiv:2405.21060; layout and initialisation as in the authors' code and in `transformers`.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ritornello.errors import InputError, divide
from ritornello.mixers.base import Context, Mixer, Place
from ritornello.mixers.short_conv import ShortConv
from ritornello.ops.outer import outer

LEAST_DT = 1e-4  # at the initialisation


class State(NamedTuple):
    h: Tensor  # (B, H, K, V) float32: B_t is the key, x_t the value
    past: Tensor  # (B, W - 1, V H + 2 G K) the convolution's last inputs


class Mamba2(Mixer):
    partner = None

    @dataclass(frozen=True, kw_only=True)
    class Config(Mixer.Config):
        expand: int = 2  # V H / D
        head_dim: int = 64  # V; a head larger than the model becomes the model
        state_dim: int = 128  # K
        groups: int = 1  # of heads that share B and C
        conv: int = 4
        conv_bias: bool = True
        bias: bool = False  # of the maps in and out
        dt_min: float = 0.001  # steps at the initialisation
        dt_max: float = 0.1
        dt_limit: tuple[float, float] | None = None  # steps are kept within
        eps: float = 1e-6  # of the gated norm; the layout has one for it and the model's norms

    def __init__(self, dim: int, config: Config, place: Place):
        super().__init__(dim, config, place)
        if config.expand < 1 or config.state_dim < 1:
            raise InputError(f"Mamba-2: expand {config.expand} and state_dim {config.state_dim} must both be at least 1")
        if not 0 < config.dt_min <= config.dt_max < math.inf:
            raise InputError(f"Mamba-2: dt_min {config.dt_min} and dt_max {config.dt_max} must be positive and in order, and finite")
        if config.dt_limit is not None and not 0 <= config.dt_limit[0] <= config.dt_limit[1]:
            raise InputError(f"Mamba-2: dt_limit {config.dt_limit} is not in order from 0 up; use (least, most), or none")
        self.inner, self.shared = config.expand * dim, config.groups * config.state_dim
        self.head_dim = min(config.head_dim, dim)
        self.heads = divide(self.inner, self.head_dim, "Mamba-2 inner width over head_dim")
        self.per_group = divide(self.heads, config.groups, "Mamba-2 heads over groups")
        self.into = nn.Linear(dim, 2 * self.inner + 2 * self.shared + self.heads, bias=config.bias)  # to z, x, B, C, dt
        self.conv = ShortConv(self.inner + 2 * self.shared, config.conv, bias=config.conv_bias)
        self.dt_bias, self.A_log, self.D = (nn.Parameter(torch.empty(self.heads)) for _ in range(3))
        self.norm = nn.Parameter(torch.empty(self.inner))
        self.out = nn.Linear(self.inner, dim, bias=config.bias)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """dt log-uniform in [dt_min, dt_max], decay rates uniform in [1, 16], D and the norm's scale 1; maps and filters are torch's."""
        self.into.reset_parameters()
        self.conv.reset_parameters()
        self.out.reset_parameters()
        with torch.no_grad():
            dt = self.dt_bias.uniform_(math.log(self.config.dt_min), math.log(self.config.dt_max)).exp_().clamp_(min=LEAST_DT)
            self.dt_bias.copy_(dt + torch.log(-torch.expm1(-dt)))  # the inverse of softplus
            self.A_log.uniform_(1, 16).log_()
        nn.init.ones_(self.D)
        nn.init.ones_(self.norm)

    def init_state(self, batch: int) -> State:
        h = self.zeros(batch, self.heads, self.config.state_dim, self.inner // self.heads)
        return State(h, self.conv.init_state(batch))

    def forward(self, x: Tensor, state: State, context: Context) -> tuple[Tensor, State]:
        z, mixed, dt = self.into(x).split([self.inner, self.inner + 2 * self.shared, self.heads], -1)
        mixed, past = self.conv(mixed, state.past, context)
        v, k, q = mixed.split([self.inner, self.shared, self.shared], -1)
        k, q = (tensor.unflatten(-1, (self.config.groups, -1)).repeat_interleave(self.per_group, 2) for tensor in (k, q))  # (B, T, H, K)
        v = v.unflatten(-1, (self.heads, -1))
        dt = nn.functional.softplus(dt.to(state.h.dtype) + self.dt_bias)[..., None]  # (B, T, H, 1)
        if self.config.dt_limit is not None:
            dt = dt.clamp(*self.config.dt_limit)
        y, h = outer(
            q, k, v * dt, -dt * self.A_log.to(dt.dtype).exp()[:, None], None, state=state.h, reset=context.reset, impl=context.impl
        )
        y = (y + self.D[:, None] * v).flatten(-2) * nn.functional.silu(z)
        return self.out(self._normed(y.to(x.dtype))), State(h, past)

    def _normed(self, y: Tensor) -> Tensor:
        groups = y.unflatten(-1, (self.config.groups, -1))
        return nn.functional.rms_norm(groups, groups.shape[-1:], eps=self.config.eps).flatten(-2) * self.norm
