"""The diagonal recurrence: a vector whose entries decay, turn and are written to each on its own.

    h_t = a_t h_{t-1} + b_t          (scan: real a of either sign; scan_complex: numbers are pairs on a last axis of 2)

HGRN, minGRU, minLSTM, RG-LRU and the LRU are this with different a and b.

`chunk` cuts time into pieces of 16 and steps through all pieces at once, each from zero, keeping beside it the product of
the decays so far; then 16 times fewer steps carry the true start from piece to piece, and product times start is added.
It neither divides nor takes logarithms (as the prefix sums of Heinsen 2023, arXiv:2311.06281, do), so decays of zero, of
one and below zero are as exact as in the loop.
"""

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from ritornello.ops.op import Implementation, Op, native

CHUNK = 16

Times = Callable[..., Tensor]  # (a, h, plus=None) -> a h + plus


def real(a: Tensor, h: Tensor, plus: Tensor | None = None) -> Tensor:
    """a h + plus, entry by entry."""
    return a * h if plus is None else torch.addcmul(plus, a, h)


def complex_(a: Tensor, h: Tensor, plus: Tensor | None = None) -> Tensor:
    """a h + plus of complex numbers (..., 2), real part first."""
    (p, q), (x, y) = a.unbind(-1), h.unbind(-1)
    product = torch.stack([p * x - q * y, p * y + q * x], -1)
    return product if plus is None else product + plus


def loop(a: Tensor, b: Tensor, h: Tensor, reset: Tensor | None, times: Times = real) -> tuple[Tensor, Tensor]:
    """The definition. a, b: (B, T, *N), a may have ones among its axes; h: (B, *N); reset: (B, T) bool.

    Returns every h (B, T, *N) and the last one.
    """
    outputs = []
    resets = like(reset, b).unbind(1) if reset is not None else [None] * b.shape[1]
    for a_t, b_t, reset_t in zip(_every_step(a, b).unbind(1), b.unbind(1), resets, strict=True):
        if reset_t is not None:
            h = torch.where(reset_t, 0, h)
        h = times(a_t, h) + b_t
        outputs.append(h)
    return torch.stack(outputs, 1) if outputs else b, h


def chunk(a: Tensor, b: Tensor, h: Tensor, reset: Tensor | None, times: Times = real) -> tuple[Tensor, Tensor]:
    """The same in pieces of 16; see the top of the file."""
    T = b.shape[1]
    if T == 0:
        return b, h
    a_steps, b_steps = _steps(_every_step(a, b)), _steps(b)  # 16 tensors (B, N, *N) each
    cuts = _steps(like(reset, b)) if reset is not None else None
    products, locals_ = [a_steps[0]], [b_steps[0]]
    for i in range(1, CHUNK):
        product, local = products[-1], locals_[-1]
        if cuts is not None:
            product, local = torch.where(cuts[i], 0, product), torch.where(cuts[i], 0, local)
        products.append(times(a_steps[i], product))
        locals_.append(times(a_steps[i], local, plus=b_steps[i]))

    # what a reset has cut off is masked on both sides, as zero times infinity would not be zero
    lost = torch.stack(cuts, 2).cumsum(2).bool().unbind(2) if cuts is not None else None
    starts = []
    losts = lost[-1].unbind(1) if lost is not None else [None] * b_steps[0].shape[1]
    for product, local, lost_n in zip(products[-1].unbind(1), locals_[-1].unbind(1), losts, strict=True):
        starts.append(h)
        h = times(product, h if lost_n is None else torch.where(lost_n, 0, h), plus=local)
    start = torch.stack(starts, 1)
    masked = [start] * CHUNK if lost is None else [torch.where(lost_i, 0, start) for lost_i in lost]
    y = torch.stack([times(*each, plus=local) for *each, local in zip(products, masked, locals_, strict=True)], 2).flatten(1, 2)[:, :T]
    return y, y[:, -1].clone()  # a copy: who keeps the state should not keep all of y with it


def _every_step(a: Tensor, b: Tensor) -> Tensor:
    """An `a` that is the same at every step, (., 1, *N), for each of b's steps; nothing is copied."""
    return a.expand(a.shape[0], b.shape[1], *a.shape[2:])


def like(reset: Tensor, b: Tensor) -> Tensor:
    """(B, T) -> (B, T, 1, ...), as many axes as b."""
    return reset.view(*reset.shape, *[1] * (b.dim() - 2))


def _steps(x: Tensor) -> tuple[Tensor, ...]:
    """(B, T, *N) -> 16 tensors (B, pieces, *N): the pieces' first steps, their second ones, ...; zeros fill the last piece."""
    missing = -x.shape[1] % CHUNK
    if missing:
        x = F.pad(x, (0, 0) * (x.dim() - 2) + (0, missing))
    return x.unflatten(1, (-1, CHUNK)).unbind(2)


def _few_steps(a: Tensor, b: Tensor) -> str | None:
    return f"{b.shape[1]} steps, fewer than two pieces of {CHUNK}" if b.shape[1] < 2 * CHUNK else None


scan = Op("scan", {"native": native("scan", "native_scans"), "chunk": Implementation(chunk, _few_steps), "loop": Implementation(loop)})
scan_complex = Op(
    "scan_complex",
    {
        "native": native("scan_complex", "native_scans"),
        "chunk": Implementation(partial(chunk, times=complex_), _few_steps),
        "loop": Implementation(partial(loop, times=complex_)),
    },
)
