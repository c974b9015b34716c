"""minLSTM: an LSTM whose gates and candidate see only the input, and whose gates share one unit between them.

    f_t = sigmoid(Wf x_t + bf)      i_t = sigmoid(Wi x_t + bi)      v_t = g(Wv x_t + bv)
    h_t = f_t / (f_t + i_t) h_{t-1} + i_t / (f_t + i_t) v_t      y_t = Wo h_t

g is minGRU's. The hidden state is `expand` times as wide as the model and starts at zero.

Source: Feng et al. 2024, arXiv:2410.01201.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ritornello.mixers.base import Context, Mixer, Place
from ritornello.mixers.mingru import expanded, positive
from ritornello.ops.scan import scan


class State(NamedTuple):
    h: Tensor  # (B, expand D) float32


class MinLSTM(Mixer):
    @dataclass(frozen=True, kw_only=True)
    class Config(Mixer.Config):
        expand: int = 2  # width of the hidden state over the model's

    def __init__(self, dim: int, config: Config, place: Place):
        super().__init__(dim, config, place)
        self.width = expanded(dim, config.expand)
        self.f, self.i, self.v = (nn.Linear(dim, self.width) for _ in range(3))
        self.out = nn.Linear(self.width, dim, bias=False)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """torch's: uniform within 1/sqrt(fan in), biases too."""
        for linear in (self.f, self.i, self.v, self.out):
            linear.reset_parameters()

    def init_state(self, batch: int) -> State:
        return State(self.zeros(batch, self.width))

    def forward(self, x: Tensor, state: State, context: Context) -> tuple[Tensor, State]:
        f, i, v = (linear(x).to(state.h.dtype) for linear in (self.f, self.i, self.v))
        odds = nn.functional.logsigmoid(f) - nn.functional.logsigmoid(i)  # log f / i: exact also where both gates are shut
        y, h = scan(torch.sigmoid(odds), torch.sigmoid(-odds) * positive(v), state=state.h, reset=context.reset, impl=context.impl)
        return self.out(y.to(x.dtype)), State(h)
