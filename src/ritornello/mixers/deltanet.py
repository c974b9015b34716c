"""DeltaNet: a matrix memory that corrects what it holds under a key instead of adding to it.

    q, k, v = silu(short convolution of x Wq, x Wk, x Wv)      q, k of unit length, q / sqrt(K)      beta = sigmoid(x Wb)
    S_t = S_{t-1} + beta_t k_t (v_t - S_{t-1}' k_t)' = (1 - beta_t k_t k_t') S_{t-1} + beta_t k_t v_t'
    y_t = RMSNorm(S_t' q_t, each head by itself) Wo

The transition has one eigenvalue, 1 - beta, that is not 1. Between 0 and 1 it forgets; "signed" takes twice the sigmoid, so that it
may be negative, down to a reflection at -1: what counting modulo two and, with several steps, any regular language needs.

Source: Schlag et al. 2021, arXiv:2102.11174; this layer: Yang et al. 2024, arXiv:2406.06484; eigenvalues: Grazzi et al. 2024,
arXiv:2411.12537. Scale and norms as in flash-linear-attention's layer; the convolutions of q, k and v are one.
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from ritornello.errors import divide, unknown
from ritornello.mixers.base import Context, Mixer, Place
from ritornello.mixers.short_conv import ShortConv
from ritornello.ops.delta import delta

Eigenvalues = Literal["positive", "signed"]
MOST = {"positive": 1.0, "signed": 2.0}  # the largest beta


class State(NamedTuple):
    S: Tensor  # (B, H, K, V) float32, what each head remembers
    past: Tensor  # (B, W - 1, 3 D) the convolution's last inputs; (B, 0, 3 D) without one


class DeltaNet(Mixer):
    @dataclass(frozen=True, kw_only=True)
    class Config(Mixer.Config):
        head_dim: int = 128  # K = V; a head larger than the model becomes the model
        conv: int | None = 4  # width of the short convolution; None or 0: none
        eigenvalues: Eigenvalues = "positive"
        eps: float = 1e-5  # of the norm

    def __init__(self, dim: int, config: Config, place: Place):
        super().__init__(dim, config, place)
        self.head_dim = min(config.head_dim, dim)
        self.heads = divide(dim, self.head_dim, "DeltaNet dim over head_dim")
        self.most = largest_beta(config.eigenvalues)
        self.q, self.k, self.v, self.out = (nn.Linear(dim, dim, bias=False) for _ in range(4))
        self.beta = nn.Linear(dim, self.heads, bias=False)
        self.conv = ShortConv(3 * dim, config.conv, bias=False) if config.conv else None
        self.norm = nn.RMSNorm(self.head_dim, eps=config.eps)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Normal(0, 0.02) weights; the convolution's filters are torch's, the norm's scale 1."""
        for linear in (self.q, self.k, self.v, self.out, self.beta):
            nn.init.normal_(linear.weight, std=0.02)
        if self.conv is not None:
            self.conv.reset_parameters()
        self.norm.reset_parameters()

    def init_state(self, batch: int) -> State:
        past = self.no_past(batch, 0, 3 * self.dim) if self.conv is None else self.conv.init_state(batch)
        return State(self.zeros(batch, self.heads, self.head_dim, self.head_dim), past)

    def forward(self, x: Tensor, state: State, context: Context) -> tuple[Tensor, State]:
        mixed, past = torch.cat([self.q(x), self.k(x), self.v(x)], -1), state.past
        mixed, past = self.conv(mixed, past, context) if self.conv is not None else (nn.functional.silu(mixed), past)
        q, k, v = (each.unflatten(-1, (self.heads, -1)) for each in mixed.to(state.S.dtype).chunk(3, -1))
        q, k = unit(q) * self.head_dim**-0.5, unit(k)
        beta = self.most * self.beta(x).to(state.S.dtype).sigmoid()[..., None]  # (B, T, H, 1)
        y, S = delta(q, k, beta * v, beta * k, k, None, state=state.S, reset=context.reset, impl=context.impl)
        return self.out(self.norm(y.to(x.dtype)).flatten(-2)), State(S, past)


def largest_beta(eigenvalues: str) -> float:
    """1 where the transition's eigenvalues are in [0, 1], 2 where they are in [-1, 1]; InputError for an unknown range."""
    if eigenvalues not in MOST:
        raise unknown("eigenvalues", eigenvalues, MOST)
    return MOST[eigenvalues]


def unit(x: Tensor) -> Tensor:
    """Vectors of length one along the last axis; what is as short as 1e-3 stays shorter."""
    return x * (x.square().sum(-1, keepdim=True) + 1e-6).rsqrt()
