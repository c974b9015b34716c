"""LRU: the linear recurrent unit, complex numbers that turn and shrink at a learned rate of their own, whatever the input is.

    h_t = lambda h_{t-1} + gamma (B x_t)      y_t = Re(C h_t) + d x_t
    lambda = exp(-exp(nu) + i exp(theta))

The exponentials keep |lambda| below one. gamma starts at sqrt(1 - |lambda|^2), so that white noise leaves a state of its own
size whatever the decay, and is learned from there. The paper's ablations do without either: lambda = nu + i theta may leave the
circle, and gamma = 1 lets a slow state grow.

Source: Orvieto et al. 2023, arXiv:2303.06349; initialisation as in its appendix A.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ritornello.errors import InputError
from ritornello.mixers.base import Context, Mixer, Place
from ritornello.ops.scan import scan_complex


class State(NamedTuple):
    h: Tensor  # (B, N, 2) float32


class LRU(Mixer):
    @dataclass(frozen=True, kw_only=True)
    class Config(Mixer.Config):
        state_dim: int | None = None  # complex numbers in the state; None: as many as the model is wide
        r_min: float = 0.0  # |lambda| starts uniform on the ring between these
        r_max: float = 1.0
        max_phase: float = 2 * math.pi  # and its angle between 0 and this
        exponential: bool = True  # False: lambda = nu + i theta
        gamma: bool = True  # False: gamma = 1

    def __init__(self, dim: int, config: Config, place: Place):
        super().__init__(dim, config, place)
        if not (0 <= config.r_min < config.r_max <= 1 and 0 < config.max_phase < math.inf):
            found = f"{config.r_min} to {config.r_max} with phases up to {config.max_phase}"
            raise InputError(f"LRU ring: found radii {found}; use 0 <= r_min < r_max <= 1 and max_phase > 0")
        self.state_dim = N = dim if config.state_dim is None else config.state_dim
        if N < 1:
            raise InputError(f"LRU state_dim: {N} numbers hold nothing; use 1 or more")
        self.b = nn.Linear(dim, 2 * N, bias=False)  # B's rows, real part and imaginary part in turn
        self.c = nn.Linear(2 * N, dim, bias=False)  # C's columns, real part and negated imaginary part in turn
        self.nu, self.theta = (nn.Parameter(torch.empty(N)) for _ in range(2))
        self.gamma = nn.Parameter(torch.empty(N)) if config.gamma else None  # its logarithm
        self.d = nn.Parameter(torch.empty(dim))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """|lambda|^2 uniform in [r_min^2, r_max^2], its angle in [0, max_phase]; B normal with variance 1/2D a part, C 1/N, d 1."""
        config, tiny = self.config, torch.finfo(torch.float32).tiny  # zero has no logarithm
        nn.init.normal_(self.b.weight, std=(2 * self.dim) ** -0.5)
        nn.init.normal_(self.c.weight, std=self.state_dim**-0.5)
        nn.init.normal_(self.d)
        with torch.no_grad():
            rate = -self.nu.uniform_(config.r_min**2, config.r_max**2).clamp_min_(tiny).log() / 2  # -log |lambda|
            angle = self.theta.uniform_(0, config.max_phase).clamp_min_(tiny)
            if self.gamma is not None:
                self.gamma.copy_((-torch.expm1(-2 * rate)).log() / 2)
            nu, theta = (rate.log(), angle.log()) if config.exponential else _turned((-rate).exp(), angle)
            self.nu.copy_(nu)
            self.theta.copy_(theta)

    def init_state(self, batch: int) -> State:
        return State(self.zeros(batch, self.state_dim, 2))

    def eigenvalues(self, dtype: torch.dtype) -> Tensor:
        """lambda, (N, 2): real and imaginary parts."""
        nu, theta = self.nu.to(dtype), self.theta.to(dtype)
        return torch.stack(_turned((-nu.exp()).exp(), theta.exp()) if self.config.exponential else (nu, theta), -1)

    def forward(self, x: Tensor, state: State, context: Context) -> tuple[Tensor, State]:
        dtype = state.h.dtype
        write = self.b(x).to(dtype).unflatten(-1, (self.state_dim, 2))
        if self.gamma is not None:
            write = write * self.gamma.to(dtype).exp()[:, None]
        y, h = scan_complex(self.eigenvalues(dtype)[None, None], write, state=state.h, reset=context.reset, impl=context.impl)
        return self.c(y.flatten(-2).to(x.dtype)) + self.d * x, State(h)


def _turned(size: Tensor, angle: Tensor) -> tuple[Tensor, Tensor]:
    """Real and imaginary parts."""
    return size * angle.cos(), size * angle.sin()
