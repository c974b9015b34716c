"""Gated DeltaNet: the delta rule with a decay, so that a memory can be cleared at once as well as corrected key by key.

    q, k, v = silu(short convolution of x Wq, x Wk, x Wv)      q, k of unit length, q / sqrt(K)      beta = sigmoid(x Wb)
    alpha = exp(-e^A softplus(x Wa + bias)), one number a head
    S_t = alpha_t (1 - beta_t k_t k_t') S_{t-1} + beta_t k_t v_t'
    y_t = (silu(x Wg) * RMSNorm(S_t' q_t, each head by itself)) Wo

As in DeltaNet, "signed" eigenvalues take twice the sigmoid. Values are `expand` times as wide as keys.

Source: Yang, Kautz and Hatamizadeh 2024, arXiv:2412.06464, with heads of 256 and as many as make keys three quarters of the model's
width (`heads`; without it they are as wide as the model); scale, norms and initialisation as in flash-linear-attention's layer.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ritornello.errors import InputError, divide
from ritornello.mixers.base import Context, Mixer, Place
from ritornello.mixers.deltanet import Eigenvalues, largest_beta, unit
from ritornello.mixers.short_conv import ShortConv
from ritornello.ops.delta import delta


class State(NamedTuple):
    S: Tensor  # (B, H, K, V) float32, what each head remembers
    past: Tensor  # (B, W - 1, H (2 K + V)) the convolution's last inputs; (B, 0, H (2 K + V)) without one


class GatedDeltaNet(Mixer):
    @dataclass(frozen=True, kw_only=True)
    class Config(Mixer.Config):
        head_dim: int = 256  # K; a head larger than the model becomes the model
        heads: int | None = None  # None: dim over head_dim
        expand: int = 2  # V / K
        conv: int | None = 4  # width of the short convolution; None or 0: none
        eigenvalues: Eigenvalues = "positive"
        eps: float = 1e-5  # of the norm

    def __init__(self, dim: int, config: Config, place: Place):
        super().__init__(dim, config, place)
        if config.expand < 1 or (config.heads is not None and config.heads < 1):
            raise InputError(f"gated DeltaNet: expand {config.expand} and heads {config.heads} must both be at least 1")
        self.head_dim = min(config.head_dim, dim)
        self.heads = config.heads or divide(dim, self.head_dim, "gated DeltaNet dim over head_dim")
        self.most = largest_beta(config.eigenvalues)
        keys, values = self.heads * self.head_dim, self.heads * self.head_dim * config.expand
        self.widths = (keys, keys, values)
        self.q, self.k, self.v = (nn.Linear(dim, width, bias=False) for width in self.widths)
        self.beta, self.a = (nn.Linear(dim, self.heads, bias=False) for _ in range(2))
        self.A_log, self.dt_bias = (nn.Parameter(torch.empty(self.heads)) for _ in range(2))
        self.conv = ShortConv(sum(self.widths), config.conv, bias=False) if config.conv else None
        self.gate, self.out = nn.Linear(dim, values, bias=False), nn.Linear(values, dim, bias=False)
        self.norm = nn.RMSNorm(self.head_dim * config.expand, eps=config.eps)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Normal(0, 0.02) weights; rates e^A uniform in [0.01, 16], steps softplus(bias) log-uniform in [0.001, 0.1]; torch's filters."""
        for linear in (self.q, self.k, self.v, self.beta, self.a, self.gate, self.out):
            nn.init.normal_(linear.weight, std=0.02)
        with torch.no_grad():
            self.A_log.uniform_(0.01, 16).log_()
            step = self.dt_bias.uniform_(math.log(0.001), math.log(0.1)).exp_()
            self.dt_bias.copy_(step + torch.log(-torch.expm1(-step)))  # the inverse of softplus
        if self.conv is not None:
            self.conv.reset_parameters()
        self.norm.reset_parameters()

    def init_state(self, batch: int) -> State:
        past = self.no_past(batch, 0, sum(self.widths)) if self.conv is None else self.conv.init_state(batch)
        return State(self.zeros(batch, self.heads, self.head_dim, self.head_dim * self.config.expand), past)

    def forward(self, x: Tensor, state: State, context: Context) -> tuple[Tensor, State]:
        mixed, past, dtype = torch.cat([self.q(x), self.k(x), self.v(x)], -1), state.past, state.S.dtype
        mixed, past = self.conv(mixed, past, context) if self.conv is not None else (nn.functional.silu(mixed), past)
        q, k, v = (each.unflatten(-1, (self.heads, -1)) for each in mixed.to(dtype).split(self.widths, -1))
        q, k = unit(q) * self.head_dim**-0.5, unit(k)
        beta = self.most * self.beta(x).to(dtype).sigmoid()[..., None]  # (B, T, H, 1)
        g = (-self.A_log.to(dtype).exp() * nn.functional.softplus(self.a(x).to(dtype) + self.dt_bias))[..., None]
        y, S = delta(q, k, beta * v, g.exp() * beta * k, k, g, state=state.S, reset=context.reset, impl=context.impl)
        y = self.norm(y.to(x.dtype)) * nn.functional.silu(self.gate(x)).unflatten(-1, (self.heads, -1))
        return self.out(y.flatten(-2)), State(S, past)
