"""Generic functions over any state.

A state is a tensor, or a (named) tuple of states: batch first, never mutated. Three kinds of leaf:
accumulators (float32 or wider), buffers of past inputs (the weights' dtype) and counters (int64, (B,)).
So batching, moving, saving and counting bytes need to know nothing of the architecture.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from ritornello.errors import InputError

State = Any  # Tensor | tuple[State, ...], NamedTuples included


def rebuild(template: State, children: Sequence[State]) -> State:
    """A tuple of the template's own type holding `children`."""
    return type(template)(*children) if hasattr(template, "_fields") else tuple(children)


def map_leaves(function: Callable[..., Tensor], *states: State) -> State:
    """`function` on corresponding leaves of equally built states."""
    first = states[0]
    if isinstance(first, Tensor):
        return function(*states)
    return rebuild(first, [map_leaves(function, *children) for children in zip(*states, strict=True)])


def named_leaves(state: State, prefix: str = "") -> Iterator[tuple[str, Tensor]]:
    """(dotted path, leaf) pairs in order, such as ("3.time.S", tensor)."""
    if isinstance(state, Tensor):
        yield prefix, state
        return
    names = getattr(state, "_fields", range(len(state)))
    for name, child in zip(names, state, strict=True):
        yield from named_leaves(child, f"{prefix}.{name}" if prefix else str(name))


def flatten(state: State) -> dict[str, Tensor]:
    """The flat form used in files and exports: {"3.time.S": tensor}."""
    return dict(named_leaves(state))


def unflatten(template: State, flat: dict[str, Tensor], prefix: str = "") -> State:
    """The inverse of `flatten`, shaped like `template`; sizes may differ from the template's."""
    if isinstance(template, Tensor):
        if prefix not in flat:
            raise InputError(f"state: {prefix!r} is missing; found {', '.join(sorted(flat)) or 'nothing'}")
        return flat[prefix].to(template.device)
    names = getattr(template, "_fields", range(len(template)))
    parts = [unflatten(child, flat, f"{prefix}.{name}" if prefix else str(name)) for name, child in zip(names, template, strict=True)]
    return rebuild(template, parts)


def detach(state: State) -> State:
    """The same values without their history of gradients."""
    return map_leaves(Tensor.detach, state)


def to(state: State, device: torch.device | str) -> State:
    """The state on another device."""
    return map_leaves(lambda leaf: leaf.to(device), state)


def rows(state: State, index: Tensor | slice) -> State:
    """The given rows of the batch, in the given order; beams and pools are made of this."""
    return map_leaves(lambda leaf: leaf[index], state)


def stack(states: Sequence[State]) -> State:
    """Batches one after another as one batch. Leaves that grow with time are padded on the left with zeros."""
    return map_leaves(lambda *leaves: torch.cat(_left_pad(leaves)), *states)


def nbytes(state: State) -> int:
    """Bytes held by all leaves."""
    return sum(leaf.numel() * leaf.element_size() for _, leaf in named_leaves(state))


def _left_pad(leaves: Sequence[Tensor]) -> list[Tensor]:
    """Leaves that differ only in axis 1 (past inputs, newest last), made equal with zeros on the left."""
    if leaves[0].dim() < 2:
        return list(leaves)
    size = max(leaf.shape[1] for leaf in leaves)
    return [
        leaf if leaf.shape[1] == size else torch.cat([leaf.new_zeros(leaf.shape[0], size - leaf.shape[1], *leaf.shape[2:]), leaf], 1)
        for leaf in leaves
    ]
