"""GRU, the gated recurrent unit: the update gate z keeps, the reset gate r hides the past from the candidate.

    r, z = sigmoid(W x_t + U h_{t-1} + b)
    n = tanh(W_n x_t + b_n + r * (U_n h_{t-1} + b'_n))        y_t = h_t = z * h_{t-1} + (1 - z) * n

That is torch's (and cuDNN's) form, by our kernel in C++ where it can run (ops/native_cells.py), else torch's, or the plain cell on the
same weights ("loop"). The original paper applies r before the matrix product, U_n (r * h_{t-1}) + b'_n: `reset_after=False`, which always
runs the plain cell. `weight_dropout` leaves out entries of U in training, the same ones for a whole piece (Merity et al. 2017,
arXiv:1708.02182).

Source: Cho et al. 2014, arXiv:1406.1078.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ritornello.mixers.base import Context, Place
from ritornello.mixers.cell import CellMixer
from ritornello.mixers.dropout import check, dropped
from ritornello.mixers.torch_cells import SHORTEST, run
from ritornello.ops import native_cells


class State(NamedTuple):
    h: Tensor  # (B, D) float32, the last output


class GRU(CellMixer):
    @dataclass(frozen=True, kw_only=True)
    class Config(CellMixer.Config):
        reset_after: bool = True  # the reset gate multiplies after the matrix product; False: before it, as in the paper
        weight_dropout: float = 0.0  # of U, in training

    def __init__(self, dim: int, config: Config, place: Place):
        super().__init__(dim, config, place)
        check(config.weight_dropout, "gru.weight_dropout")
        self.gru = nn.GRU(dim, dim, batch_first=True)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """torch's: weights and biases uniform within 1/sqrt(D)."""
        self.gru.reset_parameters()

    def init_state(self, batch: int) -> State:
        return State(self.zeros(batch, self.dim))

    def inputs(self, x: Tensor) -> Tensor:
        W, _, b, _ = self.gru.all_weights[0]
        return nn.functional.linear(x, W, b)

    def cell(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        linear, (h,), D = nn.functional.linear, state, self.dim
        _, U, _, b = self.gru.all_weights[0]
        gates, candidate = x.split([2 * D, D], -1)
        r, z = (gates + linear(h.to(U.dtype), U[: 2 * D], b[: 2 * D])).sigmoid().chunk(2, -1)
        if self.config.reset_after:
            n = (candidate + r * linear(h.to(U.dtype), U[2 * D :], b[2 * D :])).tanh()
        else:
            n = (candidate + linear((r * h).to(U.dtype), U[2 * D :], b[2 * D :])).tanh()
        h = z * h + (1 - z) * n
        return h, State(h)

    def forward(self, x: Tensor, state: State, context: Context) -> tuple[Tensor, State]:
        if not (self.training and self.config.weight_dropout):
            return self._run(x, state, context)
        with dropped(self.gru, "weight_hh_l0", self.config.weight_dropout):
            return self._run(x, state, context)

    def _run(self, x: Tensor, state: State, context: Context) -> tuple[Tensor, State]:
        if context.impl == "loop" or not self.config.reset_after or x.shape[1] < SHORTEST:
            return super().forward(x, state, context)
        _, U, _, b = self.gru.all_weights[0]
        if native_cells.against(U, state.h) is None:
            with torch.autocast(x.device.type, enabled=False):
                y, h = native_cells.gru(self.inputs(x.to(U.dtype)), U, b, state.h, context.reset)
            return y.to(x.dtype), State(h)
        y, after = run(self.gru, x, state, context.reset)
        return y, State(*after)
