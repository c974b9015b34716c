"""The feed-forward layer of the transformers before LLaMA: mixes channels, remembers nothing.

    y = gelu(x Wu + bu) Wd + bd        gelu(x) = x Phi(x), Phi the normal distribution, or its approximation by tanh

Source: Vaswani et al. 2017, arXiv:1706.03762; the activation is Hendrycks and Gimpel 2016, arXiv:1606.08415.
"""

from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

from ritornello.errors import InputError, unknown
from ritornello.mixers.base import Context, Empty, Mixer, Place

APPROXIMATE = {"gelu": "none", "gelu_tanh": "tanh"}  # torch's word for each activation


class GELU(Mixer):
    @dataclass(frozen=True, kw_only=True)
    class Config(Mixer.Config):
        hidden: int | None = None  # None: 4 times dim
        activation: Literal["gelu", "gelu_tanh"] = "gelu"
        bias: bool = True

    def __init__(self, dim: int, config: Config, place: Place):
        super().__init__(dim, config, place)
        if config.activation not in APPROXIMATE:
            raise unknown("GELU activation", config.activation, APPROXIMATE)
        hidden = 4 * dim if config.hidden is None else config.hidden
        if hidden < 1:
            raise InputError(f"GELU hidden: {hidden} is less than 1; use 4 times dim, {4 * dim}, or so")
        self.up, self.down = nn.Linear(dim, hidden, bias=config.bias), nn.Linear(hidden, dim, bias=config.bias)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Normal(0, 0.02) weights, zero biases."""
        for linear in (self.up, self.down):
            nn.init.normal_(linear.weight, std=0.02)
            if linear.bias is not None:
                nn.init.zeros_(linear.bias)

    def forward(self, x: Tensor, state: Empty, context: Context) -> tuple[Tensor, Empty]:
        return self.down(nn.functional.gelu(self.up(x), approximate=APPROXIMATE[self.config.activation])), state
