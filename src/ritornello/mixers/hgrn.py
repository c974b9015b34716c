"""HGRN: a diagonal recurrence whose forget gate is tied to its input gate and bounded from below, the higher the layer the more.

    c_t = swish(x Wi)      f_t = floor + (1 - floor) sigmoid(x Wf)
    h_t = f_t exp(i theta) h_{t-1} + (1 - f_t) c_t      y_t = (Norm(h_t) * swish(x Wg)) Wo

`eigenvalues` says what h is multiplied with:

complex    f_t exp(i theta), the paper's: h and c are complex, theta is learned, one angle a channel
positive   f_t, the real form
signed     2 f_t - 1, from -1 to 1, and the input is multiplied with what that leaves of one, 1 - |2 f_t - 1|

Only with signs can a real one count modulo two. The floors are HGRN2's: the cumulative softmax over layers of a learned
table, less its first row, so the first layer may forget everything.

Source: Qin et al. 2023, arXiv:2311.04823, LayerNorm and biases as the authors' code has them; the real form has RMSNorm and no
biases, as flash-linear-attention's layer. The signed range is Grazzi et al. 2024, arXiv:2411.12537.
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor, nn

from ritornello.errors import unknown
from ritornello.mixers.base import Context, Mixer, Place
from ritornello.ops.scan import scan, scan_complex

Eigenvalues = Literal["complex", "positive", "signed"]


class State(NamedTuple):
    h: Tensor  # (B, D, 2) float32, or (B, D) where it is real


class HGRN(Mixer):
    plain = ("rise",)

    @dataclass(frozen=True, kw_only=True)
    class Config(Mixer.Config):
        eigenvalues: Eigenvalues = "complex"
        eps: float = 1e-5  # of the norm

    def __init__(self, dim: int, config: Config, place: Place):
        super().__init__(dim, config, place)
        if config.eigenvalues not in get_args(Eigenvalues):
            raise unknown("eigenvalues", config.eigenvalues, get_args(Eigenvalues))
        self.complex = config.eigenvalues == "complex"
        width = 2 * dim if self.complex else dim  # real and imaginary parts are neighbours
        self.i, self.g = (nn.Linear(dim, width, bias=self.complex) for _ in range(2))
        self.f = nn.Linear(dim, dim, bias=self.complex)
        self.out = nn.Linear(width, dim, bias=self.complex)
        self.norm = nn.LayerNorm(width, config.eps) if self.complex else nn.RMSNorm(width, config.eps)
        if self.complex:
            self.theta = nn.Parameter(torch.empty(dim))
        if place.nth == 0:  # all layers of this kind learn their floors together
            self.rise = nn.Parameter(torch.empty(place.of, dim))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Normal(0, 0.02) weights, zero biases; angles 10000^(-2d/D) for channel d; floors at 0, 1/L, 2/L, ..."""
        for linear in (self.i, self.f, self.g, self.out):
            nn.init.normal_(linear.weight, std=0.02)
            if linear.bias is not None:
                nn.init.zeros_(linear.bias)
        self.norm.reset_parameters()
        if self.complex:
            with torch.no_grad():
                self.theta.copy_(10000.0 ** (-2 * torch.arange(self.dim) / self.dim))
        if self.place.nth == 0:
            nn.init.zeros_(self.rise)

    def init_state(self, batch: int) -> State:
        return State(self.zeros(batch, self.dim, 2) if self.complex else self.zeros(batch, self.dim))

    def forward(self, x: Tensor, state: State, context: Context) -> tuple[Tensor, State]:
        dtype = state.h.dtype
        if self.place.nth == 0:
            rise = self.rise.to(dtype).softmax(0)
            context.shared["hgrn.floor"] = rise.cumsum(0) - rise[0]
        floor = context.shared["hgrn.floor"][self.place.nth]  # (D,), zero in the first layer
        logit, c = self.f(x).to(dtype), nn.functional.silu(self.i(x)).to(dtype)
        f, rest = floor + (1 - floor) * torch.sigmoid(logit), (1 - floor) * torch.sigmoid(-logit)  # each exact near its zero
        if self.complex:
            turn = torch.stack([self.theta.cos(), self.theta.sin()], -1).to(dtype)  # (D, 2)
            op, a, b = scan_complex, f[..., None] * turn, rest[..., None] * c.unflatten(-1, (self.dim, 2))
        elif self.config.eigenvalues == "signed":
            op, a, b = scan, f - rest, 2 * torch.minimum(f, rest) * c
        else:
            op, a, b = scan, f, rest * c
        y, h = op(a, b, state=state.h, reset=context.reset, impl=context.impl)
        y = y.flatten(2).to(x.dtype)
        return self.out(self.norm(y) * nn.functional.silu(self.g(x))), State(h)
