"""LSTM, long short-term memory: torch's own, and the variants of it that have been studied.

    i, f, o = sigmoid(W x_t + U h_{t-1} + b)        g = tanh(W_g x_t + U_g h_{t-1} + b_g)
    c_t = f * c_{t-1} + i * g                       h_t = o * tanh(c_t)

`weight_dropout` leaves out entries of U in training, the same ones for a whole piece (Merity et al. 2017, arXiv:1708.02182).

With `expand` the cell is that much wider than the model, with `projection` its output is narrower than it (h_t = P (o * tanh c_t),
torch's proj_size, Sak et al. 2014, arXiv:1402.1128). Where h is not as wide as the model, a last linear map y_t = V h_t makes it so.

The switches are those of Greff et al. 2015, arXiv:1503.04069, each of which changes one thing: a gate that is missing is 1, an
activation that is missing is the identity, and

    peepholes          i and f also see p * c_{t-1}, o sees p * c_t       (their vanilla LSTM has them, torch's has not)
    coupled            f = 1 - i
    gate_recurrence    every gate also sees R times all gates of the step before

As it is by default, and with any width, torch's kernel runs, or its plain cell on the same weights ("loop"); every switch runs the
plain cell, with torch's names for the weights and no rows for what is missing.

Source: Hochreiter and Schmidhuber 1997; the forget gate is Gers et al. 2000.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from ritornello.errors import InputError
from ritornello.mixers.base import Context, Place
from ritornello.mixers.cell import CellMixer
from ritornello.mixers.dropout import check, dropped
from ritornello.mixers.torch_cells import SHORTEST, run


class State(NamedTuple):
    h: Tensor  # (B, D or the projection) float32, the last output
    c: Tensor  # (B, expand * D) float32, the cell


class GatesState(NamedTuple):
    h: Tensor
    c: Tensor
    gates: Tensor  # (B, gates * expand * D) float32, the last gates: i, f, o, those there are


class LSTM(CellMixer):
    @dataclass(frozen=True, kw_only=True)
    class Config(CellMixer.Config):
        forget_bias: float = 1.0  # Jozefowicz et al. 2015: the gate starts open, also where it is 1 - i
        expand: int = 1  # the cell's width as a multiple of the model's
        projection: int | None = None  # the width of h; None: the cell's
        input_gate: bool = True
        forget_gate: bool = True
        output_gate: bool = True
        input_activation: bool = True
        output_activation: bool = True
        peepholes: bool = False
        coupled: bool = False
        gate_recurrence: bool = False
        weight_dropout: float = 0.0  # of U, in training
        reads: int | None = None  # channels, from the first on, that the lowest layer of a model reads; None: all

    def __init__(self, dim: int, config: Config, place: Place):
        super().__init__(dim, config, place)
        check(config.weight_dropout, "lstm.weight_dropout")
        self.parts, self.gates = parts(config)
        if config.expand < 1:
            raise InputError(f"lstm.expand: {config.expand} must be at least 1")
        self.width = config.expand * dim
        if config.projection is not None and not 0 < config.projection < self.width:
            raise InputError(f"lstm.projection: {config.projection} is not in 1 to {self.width - 1}, narrower than the cell")
        self.out_width = config.projection or self.width
        if config.reads is not None and not 0 < config.reads <= dim:
            raise InputError(f"lstm.reads: {config.reads} is not in 1 to {dim}, the model's width")
        self.reads = config.reads if config.reads is not None and place.index == 0 else dim
        whole = self.parts == "ifgo" and config.input_activation and config.output_activation
        self.torchs = whole and not config.peepholes and not config.gate_recurrence
        self.lstm: Any  # an nn.Module with torch's names for the weights
        if self.torchs:
            self.lstm = nn.LSTM(self.reads, self.width, batch_first=True, proj_size=config.projection or 0)
        else:
            self.lstm = Weights(self.reads, self.width, self.out_width, self.parts, self.gates, config)
        self.out = nn.Linear(self.out_width, dim, bias=False) if self.out_width != dim else None
        self.reset_parameters()

    plain = ("lstm.peephole",)

    def reset_parameters(self) -> None:
        """torch's uniform(-1/sqrt(width), 1/sqrt(width)) weights; biases zero but the forget gate's."""
        self.lstm.reset_parameters()
        with torch.no_grad():
            if self.torchs:
                self.lstm.bias_hh_l0.zero_()
            bias = dict(zip(self.parts, self.lstm.bias_ih_l0.zero_().chunk(len(self.parts)), strict=True))
            if "f" in bias:
                bias["f"].fill_(self.config.forget_bias)
            elif self.config.coupled:
                bias["i"].fill_(-self.config.forget_bias)
        if self.out is not None:
            self.out.reset_parameters()

    def init_state(self, batch: int) -> State | GatesState:
        h, c = self.zeros(batch, self.out_width), self.zeros(batch, self.width)
        return GatesState(h, c, self.zeros(batch, len(self.gates) * self.width)) if self.config.gate_recurrence else State(h, c)

    def inputs(self, x: Tensor) -> Tensor:
        return linear(x[..., : self.reads], self.lstm.weight_ih_l0, self.lstm.bias_ih_l0)

    def cell(self, x: Tensor, state: State | GatesState) -> tuple[Tensor, State | GatesState]:
        config, weights, dtype = self.config, self.lstm, self.lstm.weight_hh_l0.dtype
        each = (x + linear(state.h.to(dtype), weights.weight_hh_l0, weights.bias_hh_l0)).chunk(len(self.parts), -1)
        logits = dict(zip(self.parts, each, strict=True))
        if isinstance(state, GatesState):
            across = linear(state.gates.to(dtype), weights.weight_gates)
            logits |= {name: logits[name] + part for name, part in zip(self.gates, across.chunk(len(self.gates), -1), strict=True)}

        def gate(name: str, c: Tensor) -> Tensor:
            if name not in self.gates:
                return torch.ones_like(c)
            peephole = weights.peephole[self.gates.index(name)] * c if config.peepholes else 0
            return (logits[name] + peephole).sigmoid()

        i = gate("i", state.c)
        f = 1 - i if config.coupled else gate("f", state.c)
        c = f * state.c + i * (logits["g"].tanh() if config.input_activation else logits["g"])
        o = gate("o", c)
        h = o * (c.tanh() if config.output_activation else c)
        if config.projection is not None:
            h = linear(h.to(dtype), weights.weight_hr_l0).to(c.dtype)
        if not config.gate_recurrence:
            return h, State(h, c)
        values = {"i": i, "f": f, "o": o}
        return h, GatesState(h, c, torch.cat([values[name] for name in self.gates], -1))

    def outputs(self, y: Tensor) -> Tensor:
        return y if self.out is None else self.out(y)

    def forward(self, x: Tensor, state: State | GatesState, context: Context) -> tuple[Tensor, State | GatesState]:
        if not (self.training and self.config.weight_dropout):
            return self._run(x, state, context)
        with dropped(self.lstm, "weight_hh_l0", self.config.weight_dropout):
            return self._run(x, state, context)

    def _run(self, x: Tensor, state: State | GatesState, context: Context) -> tuple[Tensor, State | GatesState]:
        if context.impl == "loop" or not self.torchs or x.shape[1] < SHORTEST:
            return super().forward(x, state, context)
        y, after = run(self.lstm, x[..., : self.reads], state, context.reset)
        return self.outputs(y), State(*after)


class Weights(nn.Module):
    """What torch's module holds, under its names, for the parts a variant has; and what torch has not."""

    def __init__(self, dim: int, width: int, out_width: int, parts: str, gates: str, config: LSTM.Config):
        super().__init__()
        self.width = width
        self.weight_ih_l0 = nn.Parameter(torch.empty(len(parts) * width, dim))
        self.weight_hh_l0 = nn.Parameter(torch.empty(len(parts) * width, out_width))
        self.bias_ih_l0 = nn.Parameter(torch.empty(len(parts) * width))
        self.bias_hh_l0 = None
        if config.projection is not None:
            self.weight_hr_l0 = nn.Parameter(torch.empty(out_width, width))
        if config.peepholes:
            self.peephole = nn.Parameter(torch.empty(len(gates), width))  # a row a gate
        if config.gate_recurrence:
            self.weight_gates = nn.Parameter(torch.empty(len(gates) * width, len(gates) * width))

    def reset_parameters(self) -> None:
        for weight in self.parameters():
            nn.init.uniform_(weight, -(self.width**-0.5), self.width**-0.5)


def parts(config: LSTM.Config) -> tuple[str, str]:
    """The letters of the maps there are, in torch's order, and those of them that are gates: ("ifgo", "ifo") by default."""
    if config.coupled and not (config.input_gate and config.forget_gate):
        raise InputError("lstm.coupled: the forget gate is 1 - the input gate, so both must be there; leave one of the switches out")
    there = {"i": config.input_gate, "f": config.forget_gate and not config.coupled, "g": True, "o": config.output_gate}
    names = "".join(name for name in "ifgo" if there[name])
    gates = names.replace("g", "")
    if not gates and (config.peepholes or config.gate_recurrence):
        raise InputError("lstm: peepholes and gate_recurrence need a gate to go to, and all three are switched off")
    return names, gates
