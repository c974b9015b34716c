"""torch's own recurrent modules with resets inside a call, a shared part of `rnn`, `gru` and `lstm`.

torch cannot reset inside a call. A piece with few resets is cut where they are; one with many runs its documents as one packed
batch, which torch computes without its fastest kernel.
"""

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

SHORTEST = 2  # tokens in a piece; a step alone is the plain cell's, which is quicker there and can be exported
FEW = 4  # tokens between cuts, at least on average, for cutting to be the faster way


def run(module: nn.RNNBase, x: Tensor, state: tuple[Tensor, ...], reset: Tensor | None) -> tuple[Tensor, tuple[Tensor, ...]]:
    """x (B, T, D), T > 0, through one layer with `batch_first`, its state as (B, ...) leaves: outputs (B, T, ...) and the end state."""
    dtype = next(module.parameters()).dtype
    with torch.autocast(x.device.type, enabled=False):  # torch's kernels want one dtype throughout: the weights'
        y, after = _run(module, x.to(dtype), tuple(leaf.to(dtype) for leaf in state), reset)
    return y.to(x.dtype), tuple(leaf.to(before.dtype) for leaf, before in zip(after, state, strict=True))


def _run(module: nn.RNNBase, x: Tensor, state: tuple[Tensor, ...], reset: Tensor | None) -> tuple[Tensor, tuple[Tensor, ...]]:
    if reset is None:
        return _call(module, x, state)
    places = reset.any(0).nonzero()[:, 0].tolist()
    if len(places) * FEW > x.shape[1]:
        return _packed(module, x, state, reset)
    outputs = []
    for start, end in pairwise(sorted({0, *places, x.shape[1]})):
        y, state = _call(module, x[:, start:end], _restart(state, reset[:, start, None]))
        outputs.append(y)
    return torch.cat(outputs, 1), state


def _restart(state: tuple[Tensor, ...], fresh: Tensor) -> tuple[Tensor, ...]:
    """Zeros, a fresh state, in the rows where `fresh` (B, 1)."""
    return tuple(torch.where(fresh, 0, leaf) for leaf in state)


def _call(module: nn.RNNBase, x: Tensor | PackedSequence, state: tuple[Tensor, ...]) -> tuple:
    """torch's call: a state of one leaf is no tuple there, and has an axis for layers in front."""
    leaves = tuple(leaf[None] for leaf in state)
    y, after = module(x, leaves if len(leaves) > 1 else leaves[0])
    return y, tuple(leaf[0] for leaf in (after if len(leaves) > 1 else (after,)))


def _packed(module: nn.RNNBase, x: Tensor, state: tuple[Tensor, ...], reset: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
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
    packed = PackedSequence(x.flatten(0, 1)[position], alive.sum(1).cpu())
    out, after = _call(module, packed, _restart(tuple(leaf[row] for leaf in state), reset[row, begin][:, None]))
    y = out.data.new_empty(B * T, out.data.shape[1]).index_copy(0, position, out.data).unflatten(0, (B, T))
    last = torch.empty(B, dtype=torch.long, device=x.device)
    ends = begin + lengths == T
    last[row[ends]] = ends.nonzero()[:, 0]
    return y, tuple(leaf[last] for leaf in after)
