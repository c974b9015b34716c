"""SwiGLU, a gated feed-forward layer: mixes channels, remembers nothing.

    y = (swish(x Wg) * x Wu) Wd

Source: Shazeer 2020, arXiv:2002.05202.
"""

from dataclasses import dataclass

from torch import Tensor, nn

from ritornello.errors import InputError
from ritornello.mixers.base import Context, Empty, Mixer, Place
from ritornello.ops.pointwise import for_products, swiglu


class SwiGLU(Mixer):
    @dataclass(frozen=True, kw_only=True)
    class Config(Mixer.Config):
        hidden: int | None = None  # None: 8/3 of dim, rounded up to a multiple of 64

    def __init__(self, dim: int, config: Config, place: Place):
        super().__init__(dim, config, place)
        hidden = -(-8 * dim // (3 * 64)) * 64 if config.hidden is None else config.hidden
        if hidden < 1:
            raise InputError(f"SwiGLU hidden: {hidden} is less than 1; use 8/3 of dim, {8 * dim // 3}, or so")
        self.gate, self.up = nn.Linear(dim, hidden, bias=False), nn.Linear(dim, hidden, bias=False)
        self.down = nn.Linear(hidden, dim, bias=False)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Normal(0, 0.02) weights."""
        for linear in (self.gate, self.up, self.down):
            nn.init.normal_(linear.weight, std=0.02)

    def forward(self, x: Tensor, state: Empty, context: Context) -> tuple[Tensor, Empty]:
        x = for_products(x)
        return self.down(swiglu(self.gate(x), self.up(x), context.impl)), state
