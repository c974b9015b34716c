"""GeGLU, the gated feed-forward layer of Griffin: mixes channels, remembers nothing.

    y = (gelu(x Wg + bg) * (x Wu + bu)) Wd + bd        gelu in its approximation by tanh

Source: Shazeer 2020, arXiv:2002.05202; width and biases as in Griffin, De et al. 2024, arXiv:2402.19427.
"""

from dataclasses import dataclass

from torch import Tensor, nn

from ritornello.errors import InputError
from ritornello.mixers.base import Context, Empty, Mixer, Place


class GeGLU(Mixer):
    @dataclass(frozen=True, kw_only=True)
    class Config(Mixer.Config):
        hidden: int | None = None  # None: 3 times dim

    def __init__(self, dim: int, config: Config, place: Place):
        super().__init__(dim, config, place)
        hidden = 3 * dim if config.hidden is None else config.hidden
        if hidden < 1:
            raise InputError(f"GeGLU hidden: {hidden} is less than 1; use 3 times dim, {3 * dim}, or so")
        self.gate, self.up, self.down = nn.Linear(dim, hidden), nn.Linear(dim, hidden), nn.Linear(hidden, dim)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Normal(0, 0.02) weights, zero biases."""
        for linear in (self.gate, self.up, self.down):
            nn.init.normal_(linear.weight, std=0.02)
            nn.init.zeros_(linear.bias)

    def forward(self, x: Tensor, state: Empty, context: Context) -> tuple[Tensor, Empty]:
        return self.down(nn.functional.gelu(self.gate(x), approximate="tanh") * self.up(x)), state
