"""A model as a list of steps for _native/decode.cpp: which mixers can be decoded natively, and how.

A step reads and writes registers, vectors of floats; its weights are copied and packed here: rows and columns padded with zeros to
multiples of 32, then in blocks of as many rows as the build has lanes, column by column (bfloat16: two columns of a row side by side,
bytes: four). Bytes have one scale a row. Maps too small to matter stay in float32.
"""

import ctypes
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ritornello.errors import InputError
from ritornello.mixers.geglu import GeGLU
from ritornello.mixers.gelu import GELU
from ritornello.mixers.gru import GRU
from ritornello.mixers.hgrn2 import HGRN2
from ritornello.mixers.lstm import LSTM
from ritornello.mixers.mamba import Mamba
from ritornello.mixers.mingru import MinGRU
from ritornello.mixers.mlstm import MLSTM
from ritornello.mixers.retnet import RetNet, fading
from ritornello.mixers.short_conv import ShortConv
from ritornello.mixers.swiglu import SwiGLU
from ritornello.model import LM
from ritornello.state import named_leaves

WEIGHTS = ("float32", "bfloat16", "int8")
PAD = 32  # as in product.h
KINDS = (
    "embed", "norm", "activate", "add", "softcap", "remember", "recall", "convolve", "hgrn2", "mingru", "lstm", "gru", "rotate",
    "selective", "blocks", "mlstm_write", "mlstm_read", "multiply", "outer",
)  # fmt: skip
INTEGERS = ("kind", "into", "out", "rows", "columns", "a", "b", "c", "heads", "leaf")
ACTIVATIONS = {"silu": 0, "gelu": 1, "gelu_tanh": 2}


class Step(ctypes.Structure):
    """As in decode.cpp, which says what each kind of step reads and writes."""

    _fields_ = [
        *((name, ctypes.c_int64) for name in INTEGERS),
        *((name, ctypes.c_void_p) for name in ("weight", "scale", "bias", "excess")),
        ("number", ctypes.c_double),
    ]


def padded(size: int) -> int:
    return -(-size // PAD) * PAD


class Plan:
    """Steps as they are added, the weights they point to, and how many floats of registers they need."""

    def __init__(self, weights: str, lanes: int):
        self.weights, self.lanes = weights, lanes
        self.steps: list[Step] = []
        self.kept: list[Tensor] = []
        self.used = self.room = 0
        self.leaf = 0  # the first of the mixer at hand

    def register(self, size: int) -> int:
        """Room for so many floats."""
        at, self.used = self.used, self.used + padded(size)
        self.room = max(self.room, self.used)
        return at

    @contextmanager
    def scratch(self) -> Iterator[None]:
        """Registers made within are free again after it."""
        used = self.used
        yield
        self.used = used

    def keep(self, tensor: Tensor | None) -> int | None:
        """A pointer to a copy that lives as long as the plan."""
        if tensor is None:
            return None
        self.kept.append(tensor.detach().clone(memory_format=torch.contiguous_format))
        return self.kept[-1].data_ptr()

    def vector(self, tensor: Tensor | None) -> int | None:
        """As `keep`, for numbers of channels: zeros follow the last."""
        return None if tensor is None else self.keep(nn.functional.pad(tensor.detach(), (0, padded(tensor.shape[-1]) - tensor.shape[-1])))

    def step(
        self, kind: str, into: int = 0, out: int = 0, *, pointers: dict[str, int | None] | None = None, number: float = 0, **sizes: int
    ) -> None:
        self.steps.append(Step(kind=KINDS.index(kind), into=into, out=out, number=number, **sizes, **(pointers or {})))

    def multiply(
        self, into: int, matrices: Sequence[Tensor], biases: Sequence[Tensor | None] = (), *, out: int | None = None, add: bool = False,
        exact: bool = False, logits: bool = False, parts: int = 1,
    ) -> int:  # fmt: skip
        """out (+)= each matrix times into, plus its bias; returns out, where the results lie side by side, each padded.

        exact: in float32 whatever the plan's weights are. parts: into is so many vectors, each padded.
        """
        rows = [padded(len(matrix)) for matrix in matrices]
        matrix = torch.cat([_grown(each.detach(), size, parts) for each, size in zip(matrices, rows, strict=True)])
        bias = None
        if any(each is not None for each in biases):
            bias = torch.cat([nn.functional.pad(each.detach(), (0, size - len(each))) for each, size in zip(biases, rows, strict=True)])  # type: ignore[union-attr, arg-type]
        form = 0 if exact else WEIGHTS.index(self.weights)
        pointers = {"bias": self.keep(bias)}
        if form == 2:
            scale = matrix.abs().amax(1).clamp_min(1e-30) / 127
            matrix = (matrix / scale[:, None]).round()
            pointers |= {"scale": self.keep(scale), "excess": self.keep((128 * matrix.sum(1)).to(torch.int32))}
        packed = matrix.to((torch.float32, torch.bfloat16, torch.int8)[form])
        unit = (1, 2, 4)[form]
        packed = packed.view(len(matrix) // self.lanes, self.lanes, -1, unit).transpose(1, 2)
        out = self.register(sum(rows)) if out is None and not logits else out or 0
        size = len(matrices[0]) if logits else sum(rows)
        pointers |= {"weight": self.keep(packed)}
        self.step("multiply", into, out, rows=size, columns=matrix.shape[1], a=add, b=form, c=logits, pointers=pointers)
        return out

    def linear(self, into: int, *linears: nn.Linear, **options: bool | int) -> int:
        return self.multiply(into, [each.weight for each in linears], [each.bias for each in linears], **options)  # type: ignore[arg-type]

    def norm(self, norm: Any, into: int, out: int, groups: int = 1) -> None:
        """RMSNorm, LayerNorm or HeadNorm; a scale that is narrower than all groups together is each group's."""
        weight, bias = norm.weight, getattr(norm, "bias", None)
        centred = not isinstance(norm, nn.RMSNorm)
        weight = weight.repeat(groups) if not centred else weight
        pointers = {"scale": self.vector(weight), "bias": self.vector(bias)}
        self.step("norm", into, out, rows=groups, columns=len(weight) // groups, a=centred, number=norm.eps, pointers=pointers)

    def activate(self, into: int, out: int, size: int, activation: str = "silu", times: int = -1) -> None:
        self.step("activate", into, out, columns=padded(size), a=times, b=ACTIVATIONS[activation])

    def add(self, into: int, out: int, other: int, size: int, scale: Tensor | None = None) -> None:
        self.step("add", into, out, columns=padded(size), a=other, pointers={"scale": self.vector(scale)})

    def convolve(self, conv: ShortConv, into: int, out: int, leaf: int) -> None:
        channels, _, width = conv.weight.shape
        pointers = {"scale": self.vector(conv.weight[:, 0].mT), "bias": self.vector(conv.bias)}
        self.step("convolve", into, out, rows=width, columns=channels, a=conv.activation, leaf=leaf, pointers=pointers)


def _grown(matrix: Tensor, rows: int, parts: int) -> Tensor:
    """Zeros below and, in each of the parts that the columns are made of, to the right."""
    columns = matrix.unflatten(1, (parts, -1))
    return nn.functional.pad(columns, (0, padded(columns.shape[-1]) - columns.shape[-1], 0, 0, 0, rows - len(matrix))).flatten(1)


# ---- mixers: each adds what it makes of register u to register x ---------------------------------------------------------------------


def _hgrn2(plan: Plan, mixer: HGRN2, model: LM, u: int, x: int) -> None:
    D, H, K = mixer.dim, mixer.heads, mixer.head_dim
    first = next(block.time for block in model.blocks if isinstance(block.time, HGRN2))
    rise = first.rise.detach().softmax(0)
    floor = (rise.cumsum(0) - rise[0])[mixer.place.nth]
    q = plan.linear(u, mixer.q, mixer.f, mixer.v)
    f, v, key = q + padded(D), q + 2 * padded(D), plan.register(D)
    if mixer.config.conv:
        for leaf, (at, conv) in enumerate(((q, mixer.q_conv), (f, mixer.f_conv), (v, mixer.v_conv)), plan.leaf + 1):
            plan.convolve(conv, at, at, leaf)
    plan.step("hgrn2", q, key, columns=D, a=f, number=K**-0.5, pointers={"scale": plan.vector(floor)})
    plan.step("outer", q, u, rows=K, columns=K, a=key, b=v, c=f, heads=H, number=K, leaf=plan.leaf)
    plan.norm(mixer.norm, u, u)
    plan.linear(u, mixer.out, out=x, add=True)


def _mingru(plan: Plan, mixer: MinGRU, model: LM, u: int, x: int) -> None:
    z = plan.linear(u, mixer.z, mixer.v)
    plan.step("mingru", z, z, columns=mixer.width, a=z + padded(mixer.width), leaf=plan.leaf)
    plan.linear(z, mixer.out, out=x, add=True)


def _lstm(plan: Plan, mixer: LSTM, model: LM, u: int, x: int) -> None:
    if not mixer.torchs:
        raise InputError("an lstm with peepholes, gate_recurrence or parts switched off")
    if mixer.reads != mixer.dim:
        raise InputError("an lstm that reads a part of its input")
    cell, W, narrow = mixer.lstm, mixer.width, mixer.out_width
    h = plan.register(max(W, narrow))
    plan.step("recall", out=h, columns=narrow, leaf=plan.leaf)
    bias = cell.bias_ih_l0 + cell.bias_hh_l0
    gates = plan.multiply(u, cell.weight_ih_l0.chunk(4), bias.chunk(4))
    plan.multiply(h, cell.weight_hh_l0.chunk(4), out=gates, add=True)
    plan.step("lstm", gates, h, rows=padded(W), columns=W, leaf=plan.leaf + 1)
    if mixer.config.projection is not None:
        h = plan.multiply(h, [cell.weight_hr_l0])
    plan.step("remember", h, columns=narrow, leaf=plan.leaf)
    if mixer.out is None:
        plan.add(x, x, h, narrow)
    else:
        plan.linear(h, mixer.out, out=x, add=True)


def _gru(plan: Plan, mixer: GRU, model: LM, u: int, x: int) -> None:
    if not mixer.config.reset_after:
        raise InputError("a gru with reset_after=False")
    (W, U, b, b_h), h = mixer.gru.all_weights[0], plan.register(mixer.dim)
    plan.step("recall", out=h, columns=mixer.dim, leaf=plan.leaf)
    gates = plan.multiply(u, W.chunk(3), b.chunk(3))
    past = plan.multiply(h, U.chunk(3), b_h.chunk(3))
    plan.step("gru", gates, h, rows=padded(mixer.dim), columns=mixer.dim, a=past, leaf=plan.leaf)
    plan.add(x, x, h, mixer.dim)


def _retnet(plan: Plan, mixer: RetNet, model: LM, u: int, x: int) -> None:
    H, K, D = mixer.heads, mixer.head_dim, mixer.dim
    V = mixer.config.expand * K
    q = plan.linear(u, mixer.q, mixer.k, mixer.v, mixer.gate)
    k, v = q + padded(D), q + 2 * padded(D)
    gate, y = v + padded(H * V), plan.register(H * V)
    rates = mixer.config.rope_base ** (-torch.arange(K // 2, dtype=torch.float32) / (K // 2))
    plan.step("rotate", q, rows=H, columns=K, a=k, leaf=plan.leaf + 1, number=K**-0.5, pointers={"scale": plan.keep(rates)})
    decay = plan.keep(fading(H, rates).exp())
    plan.step("outer", q, y, rows=K, columns=V, a=k, b=v, c=-1, heads=H, number=1, leaf=plan.leaf, pointers={"scale": decay})
    plan.norm(mixer.norm, y, y, H)
    plan.activate(gate, y, H * V, times=y)
    plan.linear(y, mixer.out, out=x, add=True)


def _mamba(plan: Plan, mixer: Mamba, model: LM, u: int, x: int) -> None:
    E, N, rank = mixer.inner, mixer.config.state_dim, mixer.rank
    halves = [None, None] if mixer.up.bias is None else mixer.up.bias.chunk(2)
    seen = plan.multiply(u, mixer.up.weight.chunk(2), halves)
    gate, y = seen + padded(E), plan.register(E)
    plan.convolve(mixer.conv, seen, seen, plan.leaf)
    low = plan.multiply(seen, mixer.select.weight.split([rank, N, N]))
    dt, write = plan.linear(low, mixer.dt, exact=True), low + padded(rank)
    A = plan.keep(-mixer.A_log.exp())
    plan.step(
        "selective", seen, y, rows=E, columns=N, a=dt, b=write, c=write + padded(N), leaf=plan.leaf + 1,
        pointers={"weight": A, "scale": plan.keep(mixer.D)},
    )  # fmt: skip
    plan.activate(gate, y, E, times=y)
    plan.linear(y, mixer.out, out=x, add=True)


def _mlstm(plan: Plan, mixer: MLSTM, model: LM, u: int, x: int) -> None:
    E, H, K = mixer.inner, mixer.config.heads, mixer.head_dim
    seen = plan.multiply(u, mixer.up.weight.chunk(2))
    z, c = seen + padded(E), plan.register(E)
    q, decay, y = plan.register(3 * padded(E)), plan.register(H), plan.register(E)
    k, v = q + padded(E), q + 2 * padded(E)
    plan.convolve(mixer.conv, seen, c, plan.leaf + 3)
    for into, out, weight in ((c, q, mixer.q), (c, k, mixer.k), (seen, v, mixer.v)):
        plan.step("blocks", into, out, columns=E, pointers={"weight": plan.keep(weight)})
    gates = plan.linear(q, mixer.i, mixer.f, exact=True, parts=3)
    sigmoid = mixer.config.forget == "sigmoid"
    plan.step("mlstm_write", gates, decay, rows=H, columns=K, a=gates + padded(H), b=sigmoid, c=k, leaf=plan.leaf, number=K**-0.5)
    plan.step("outer", q, y, rows=K, columns=K, a=k, b=v, c=decay, heads=H, number=1, leaf=plan.leaf)
    plan.step("mlstm_read", q, y, rows=H, columns=K, leaf=plan.leaf)
    plan.norm(mixer.norm, y, y, H)
    plan.add(y, y, c, E, mixer.skip)
    plan.activate(z, y, E, times=y)
    plan.linear(y, mixer.down, out=x, add=True)


def _gated(plan: Plan, mixer: SwiGLU | GeGLU, model: LM, u: int, x: int, activation: str = "silu") -> None:
    gate = plan.linear(u, mixer.gate, mixer.up)
    hidden = mixer.gate.out_features
    plan.activate(gate, gate, hidden, activation, times=gate + padded(hidden))
    plan.linear(gate, mixer.down, out=x, add=True)


def _geglu(plan: Plan, mixer: GeGLU, model: LM, u: int, x: int) -> None:
    _gated(plan, mixer, model, u, x, "gelu_tanh")


def _gelu(plan: Plan, mixer: GELU, model: LM, u: int, x: int) -> None:
    up = plan.linear(u, mixer.up)
    plan.activate(up, up, mixer.up.out_features, mixer.config.activation)
    plan.linear(up, mixer.down, out=x, add=True)


STEPS: dict[str, Callable[..., None]] = {
    "geglu": _geglu,
    "gelu": _gelu,
    "gru": _gru,
    "hgrn2": _hgrn2,
    "lstm": _lstm,
    "mamba": _mamba,
    "mingru": _mingru,
    "mlstm": _mlstm,
    "retnet": _retnet,
    "swiglu": _gated,
}


def plan(model: LM, weights: str, lanes: int) -> Plan:
    """The whole model. InputError names what in it cannot be decoded natively."""
    config = model.config
    for name in (*config.layers, *config.channels):
        if name is not None and name not in STEPS:
            raise InputError(f"{name} layers; known: {', '.join(STEPS)}")
    if config.wiring != "residual" or config.norm == "none":
        raise InputError(f"{config.wiring} wiring" if config.wiring != "residual" else "a model without norms")
    made, D = Plan(weights, lanes), config.dim
    x, u = made.register(D), made.register(D)
    table = model.embedding.weight * model.scale if config.embedding_scale else model.embedding.weight
    made.step("embed", out=x, columns=D, pointers={"weight": made.keep(nn.functional.pad(table, (0, D - table.shape[1])))})
    if model.embedding_norm is not None:
        made.norm(model.embedding_norm, x, x)
    for name, channel, block, state in zip(config.layers, config.channels, model.blocks, model.init_state(1), strict=True):
        for kind, mixer, norm, own in ((name, "time", "time_norm", state.time), (channel, "channel", "channel_norm", state.channel)):
            if kind is not None:
                made.norm(getattr(block, norm), x, u)
                with made.scratch():
                    STEPS[kind](made, getattr(block, mixer), model, u, x)
                made.leaf += len(list(named_leaves(own)))
    made.norm(model.norm, x, u)
    made.linear(u, model.head, logits=True)
    if config.softcap is not None:
        made.step("softcap", number=config.softcap)
    return made
