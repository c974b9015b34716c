"""`past_key_values` of a recurrent model: its state, and how many tokens it has seen.

transformers changes a cache in place and keeps a list of layers in it, each with keys and values. Here the state is replaced by the next
one, and rows are picked from it as a whole. A recurrent state cannot be cropped: what a token did to it is not kept.
"""

from typing import Any, NoReturn

import torch
from torch import Tensor
from transformers import Cache

from ritornello.errors import InputError
from ritornello.state import State, named_leaves, rows


class StateCache(Cache):
    """Empty until a model's `forward` has been given it, then the state after all tokens that went through."""

    is_croppable = False

    def __init__(self) -> None:
        super().__init__(layers=[])
        self.state: State | None = None
        self.seen = 0  # tokens, padding included

    def put(self, state: State, new: int) -> None:
        """The state after `new` more tokens."""
        self.state, self.seen = state, self.seen + new

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return self.seen

    @property
    def batch_size(self) -> int:
        """Rows of the state; -1 before there is one, as in transformers."""
        return -1 if self.state is None else len(next(named_leaves(self.state))[1])

    def batch_select_indices(self, indices: Tensor) -> None:
        """Go on with these rows, in this order."""
        if self.state is not None:
            self.state = rows(self.state, indices)

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """The same, as beam search calls it."""
        self.batch_select_indices(beam_idx)

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Each row `repeats` times, one after another."""
        self.batch_select_indices(torch.arange(self.batch_size).repeat_interleave(repeats))

    def reset(self) -> None:
        """Forget everything."""
        self.state, self.seen = None, 0

    def crop(self, tokens_to_remove: int) -> None:
        if tokens_to_remove:
            raise InputError("a recurrent state cannot be cropped: no token can be taken back; keep a copy of the cache from before")

    def update(self, *_: Any, **__: Any) -> NoReturn:
        raise InputError("StateCache holds no keys and values, so none can be added; it belongs to Ritornello's models alone")
