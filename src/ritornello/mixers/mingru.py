"""minGRU: a GRU whose gate and candidate see only the input, so that it is a diagonal linear recurrence.

    z_t = sigmoid(Wz x_t + bz)      v_t = g(Wv x_t + bv)
    h_t = (1 - z_t) h_{t-1} + z_t v_t      y_t = Wo h_t
    g(x) = x + 0.5 where x >= 0, sigmoid(x) elsewhere

g keeps the hidden state positive: it is the log-space form of the paper, the one its experiments use, here computed
without logarithms. The hidden state is `expand` times as wide as the model and starts at zero.

Source: Feng et al. 2024, arXiv:2410.01201.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ritornello.errors import InputError
from ritornello.mixers.base import Context, Mixer, Place
from ritornello.ops.scan import scan


class State(NamedTuple):
    h: Tensor  # (B, expand D) float32


class MinGRU(Mixer):
    @dataclass(frozen=True, kw_only=True)
    class Config(Mixer.Config):
        expand: int = 2  # width of the hidden state over the model's

    def __init__(self, dim: int, config: Config, place: Place):
        super().__init__(dim, config, place)
        self.width = expanded(dim, config.expand)
        self.z, self.v = (nn.Linear(dim, self.width) for _ in range(2))
        self.out = nn.Linear(self.width, dim, bias=False)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """torch's: uniform within 1/sqrt(fan in), biases too."""
        for linear in (self.z, self.v, self.out):
            linear.reset_parameters()

    def init_state(self, batch: int) -> State:
        return State(self.zeros(batch, self.width))

    def forward(self, x: Tensor, state: State, context: Context) -> tuple[Tensor, State]:
        z, v = (linear(x).to(state.h.dtype) for linear in (self.z, self.v))
        y, h = scan(torch.sigmoid(-z), torch.sigmoid(z) * positive(v), state=state.h, reset=context.reset, impl=context.impl)
        return self.out(y.to(x.dtype)), State(h)


def expanded(dim: int, expand: int) -> int:
    """The hidden state's width."""
    if expand < 1:
        raise InputError(f"expand: the hidden state is {expand} times as wide as the model; use 1 or more")
    return dim * expand


def positive(x: Tensor) -> Tensor:
    """The paper's g: continuous, increasing, above zero, and linear for what is not negative."""
    return torch.where(x >= 0, x + 0.5, torch.sigmoid(x))
