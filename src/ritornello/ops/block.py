"""The block-diagonal recurrence: a small dense matrix of its own for every head and step.

    h_t = A_t h_{t-1} + b_t

Block-diagonal linear RNNs (Fan, Chi and Rudnicky 2023, arXiv:2309.07412), unitary ones (Bernardy and Lappin 2022,
arXiv:2208.05719) and every finite automaton, whose words are products of transition matrices, are this.

`chunk` cuts time into pieces of 16 and steps through all pieces at once, keeping not a state but what the steps so far make of
any: h = P start + l, the two side by side as one matrix [P l]. Then 16 times fewer steps carry the start from piece to piece.
Nothing is divided or inverted, so singular, reflecting and rotating matrices are as exact as in the loop.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from ritornello.ops.op import Implementation, Op

CHUNK = 16


def loop(A: Tensor, b: Tensor | None, fresh: Tensor | None, h: Tensor, reset: Tensor | None) -> tuple[Tensor, Tensor]:
    """The definition. A: (B, T, H, n, n); b: (B, T, H, n) or None, nothing is added; fresh: (H, n), what a reset goes back to, None:
    zero; h: (B, H, n); reset: (B, T) bool.

    Returns every h (B, T, H, n) and the last one.
    """
    outputs, nothing = [], [None] * A.shape[1]
    resets = reset.unbind(1) if reset is not None else nothing
    for A_t, b_t, reset_t in zip(A.unbind(1), b.unbind(1) if b is not None else nothing, resets, strict=True):
        if reset_t is not None:
            h = torch.where(reset_t[:, None, None], 0 if fresh is None else fresh, h)
        h = torch.einsum("bhij,bhj->bhi", A_t, h)
        h = h if b_t is None else h + b_t
        outputs.append(h)
    return torch.stack(outputs, 1) if outputs else A[..., 0], h


def chunk(A: Tensor, b: Tensor | None, fresh: Tensor | None, h: Tensor, reset: Tensor | None) -> tuple[Tensor, Tensor]:
    """The same in pieces of 16; see the top of the file."""
    T, n = A.shape[1], A.shape[-1]
    if T == 0:
        return A[..., 0], h
    A_steps, nothing = _pieces(A).unbind(2), [None] * CHUNK  # each step (B, N, H, n, n)
    b_steps = _pieces(F.pad(b[..., None], (n, 0))).unbind(2) if b is not None else nothing  # (B, N, H, n, n + 1)
    cuts = _pieces(reset[..., None, None, None]) if reset is not None else None  # (B, N, 16, 1, 1, 1)
    whole, maps = F.pad(torch.eye(n, dtype=A.dtype, device=A.device), (0, 1)), []  # [P l]: at first the start itself
    again = torch.zeros_like(whole) if fresh is None else F.pad(fresh[..., None], (n, 0))  # after a reset: whatever the start was
    for A_i, b_i, cut in zip(A_steps, b_steps, cuts.unbind(2) if cuts is not None else nothing, strict=True):
        whole = A_i @ (whole if cut is None else torch.where(cut, again, whole))
        whole = whole if b_i is None else whole + b_i
        maps.append(whole)
    products, locals_ = torch.stack(maps, 2).split([n, 1], -1)  # (B, N, 16, H, n, n) and (B, N, 16, H, n, 1)

    # what a reset has cut off is masked here too, as zero times infinity would not be zero
    lost = cuts.cumsum(2).bool() if cuts is not None else None
    start, starts = h[..., None], []
    losts = lost[:, :, -1].unbind(1) if lost is not None else [None] * products.shape[1]
    for product, local, lost_n in zip(products[:, :, -1].unbind(1), locals_[:, :, -1].unbind(1), losts, strict=True):
        starts.append(start)
        start = product @ (start if lost_n is None else start.masked_fill(lost_n, 0)) + local
    start = torch.stack(starts, 1)[:, :, None]
    y = (products @ (start if lost is None else torch.where(lost, 0, start)) + locals_)[..., 0].flatten(1, 2)[:, :T]
    return y, y[:, -1].clone()  # a copy: who keeps the state should not keep all of y with it


def _pieces(x: Tensor) -> Tensor:
    """(B, T, ...) -> (B, N, 16, ...); zeros fill the last piece."""
    return F.pad(x, (0, 0) * (x.dim() - 2) + (0, -x.shape[1] % CHUNK)).unflatten(1, (-1, CHUNK))


def _few_steps(A: Tensor, *rest: Tensor | None) -> str | None:
    return f"{A.shape[1]} steps, fewer than two pieces of {CHUNK}" if A.shape[1] < 2 * CHUNK else None


block = Op("block", {"chunk": Implementation(chunk, _few_steps), "loop": Implementation(loop)})
