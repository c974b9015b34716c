"""The simple recurrent network: the output is the whole memory.

    y_t = h_t = tanh(W x_t + U h_{t-1} + b)        or relu(...)

torch's kernel, or its plain cell on the same weights ("loop").

Source: Elman 1990, Finding structure in time; the rectified one is Le et al. 2015, arXiv:1504.00941.
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple

from torch import Tensor, nn

from ritornello.errors import unknown
from ritornello.mixers.base import Context, Place
from ritornello.mixers.cell import CellMixer
from ritornello.mixers.torch_cells import SHORTEST, run

ACTIVATIONS = {"tanh": nn.functional.tanh, "relu": nn.functional.relu}


class State(NamedTuple):
    h: Tensor  # (B, D) float32, the last output


class RNN(CellMixer):
    @dataclass(frozen=True, kw_only=True)
    class Config(CellMixer.Config):
        activation: Literal["tanh", "relu"] = "tanh"

    def __init__(self, dim: int, config: Config, place: Place):
        super().__init__(dim, config, place)
        if config.activation not in ACTIVATIONS:
            raise unknown("activation", config.activation, ACTIVATIONS)
        self.rnn = nn.RNN(dim, dim, nonlinearity=config.activation, batch_first=True)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """torch's: weights and biases uniform within 1/sqrt(D)."""
        self.rnn.reset_parameters()

    def init_state(self, batch: int) -> State:
        return State(self.zeros(batch, self.dim))

    def inputs(self, x: Tensor) -> Tensor:
        W, _, b, _ = self.rnn.all_weights[0]
        return nn.functional.linear(x, W, b)

    def cell(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        _, U, _, b = self.rnn.all_weights[0]
        h = ACTIVATIONS[self.config.activation](x + nn.functional.linear(state.h.to(U.dtype), U, b))
        return h, State(h)

    def forward(self, x: Tensor, state: State, context: Context) -> tuple[Tensor, State]:
        if context.impl == "loop" or x.shape[1] < SHORTEST:
            return super().forward(x, state, context)
        y, after = run(self.rnn, x, state, context.reset)
        return y, State(*after)
