"""LSTM, torch's own: long short-term memory with a forget gate.

    i, f, o = sigmoid(...)    g = tanh(...)    each of W x_t + U h_{t-1} + b
    c_t = f * c_{t-1} + i * g      y_t = h_t = o * tanh(c_t)

torch cannot reset inside a call. A piece with few resets is cut where they are; one with many runs its documents as one packed
batch, which torch computes without its fastest kernel.

Source: Hochreiter and Schmidhuber 1997; the forget gate is Gers et al. 2000.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from ritornello.mixers.base import Context, Mixer, Place

FEW = 4  # tokens between cuts, at least on average, for cutting to be the faster way


class State(NamedTuple):
    h: Tensor  # (B, D) float32, the last output
    c: Tensor  # (B, D) float32, the cell


class LSTM(Mixer):
    @dataclass(frozen=True, kw_only=True)
    class Config(Mixer.Config):
        forget_bias: float = 1.0  # Jozefowicz et al. 2015: the gate starts open

    def __init__(self, dim: int, config: Config, place: Place):
        super().__init__(dim, config, place)
        self.lstm = nn.LSTM(dim, dim, batch_first=True)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """torch's uniform(-1/sqrt(D), 1/sqrt(D)) weights; biases zero but the forget gate's."""
        self.lstm.reset_parameters()
        with torch.no_grad():
            _, _, bias, other_bias = self.lstm.parameters()
            other_bias.zero_()
            bias.zero_()[self.dim : 2 * self.dim] = self.config.forget_bias

    def init_state(self, batch: int) -> State:
        return State(self.zeros(batch, self.dim), self.zeros(batch, self.dim))

    def forward(self, x: Tensor, state: State, context: Context) -> tuple[Tensor, State]:
        if x.shape[1] == 0:
            return x, state
        dtype = next(self.parameters()).dtype
        with torch.autocast(x.device.type, enabled=False):  # torch's kernels want one dtype throughout: the weights'
            y, h, c = self._run(x.to(dtype), state.h.to(dtype), state.c.to(dtype), context.reset)
        return y.to(x.dtype), State(h.to(state.h.dtype), c.to(state.c.dtype))

    def _run(self, x: Tensor, h: Tensor, c: Tensor, reset: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        if reset is None:
            y, (h, c) = self.lstm(x, (h[None], c[None]))
            return y, h[0], c[0]
        places = reset.any(0).nonzero()[:, 0].tolist()
        if len(places) * FEW > x.shape[1]:
            return self._packed(x, h, c, reset)
        outputs, bounds = [], sorted({0, *places, x.shape[1]})
        for start, end in pairwise(bounds):
            fresh = reset[:, start, None]
            y, h, c = self._run(x[:, start:end], torch.where(fresh, 0, h), torch.where(fresh, 0, c), None)
            outputs.append(y)
        return torch.cat(outputs, 1), h, c

    def _packed(self, x: Tensor, h: Tensor, c: Tensor, reset: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Each run of tokens between resets is a sequence of its own; the longest come first, as packing wants."""
        B, T, _ = x.shape
        starts = reset.clone()
        starts[:, 0] = True
        row, begin = starts.nonzero(as_tuple=True)  # (N,) each, in row-major order
        end = torch.cat([begin[1:], begin.new_tensor([T])])
        end[torch.cat([row[1:] != row[:-1], row.new_ones(1, dtype=torch.bool)])] = T
        lengths, order = (end - begin).sort(descending=True, stable=True)
        row, begin = row[order], begin[order]

        step = torch.arange(int(lengths[0]), device=x.device)[:, None]
        alive = step < lengths  # (longest, N)
        position = ((row * T + begin) + step)[alive]  # into the flattened (B * T), in packed order
        fresh = reset[row, begin][:, None]
        h, c = torch.where(fresh, 0, h[row]), torch.where(fresh, 0, c[row])
        packed = PackedSequence(x.flatten(0, 1)[position], alive.sum(1).cpu())
        out, (h, c) = self.lstm(packed, (h[None], c[None]))
        y = torch.empty_like(x).flatten(0, 1).index_copy(0, position, out.data).view_as(x)
        last = torch.empty(B, dtype=torch.long, device=x.device)
        ends = begin + lengths == T
        last[row[ends]] = ends.nonzero()[:, 0]
        return y, h[0, last], c[0, last]
