"""Any cell becomes a mixer: cell(x_t, state) -> (y_t, state) gets its loop over time, its resets and its dtypes here.

    u = inputs(x)        y_t, s_t = cell(u_t, s_{t-1})        out = outputs(y)

What needs no state is done for the whole piece at once, before the loop (`inputs`: the input's share of the gates) and after
it (`outputs`); only the cell waits for the step before. Where a document begins, s_{t-1} is a fresh state.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ritornello.mixers.base import Context, Mixer
from ritornello.state import map_leaves


class CellMixer(Mixer):
    """A mixer from a cell: write `cell` and `init_state`, and `inputs` and `outputs` where there is something to do at once.

    Matrix products have the weights' dtype, everything else the state's. A cell has one implementation, the loop.
    """

    def inputs(self, x: Tensor) -> Tensor:
        """(B, T, D) in the weights' dtype to (B, T, ...), what the cell sees of each token."""
        return x

    def cell(self, x: Tensor, state: Any) -> tuple[Tensor, Any]:
        """One step: (B, ...) and the state before it to the output (B, ...) and the state after it."""
        raise NotImplementedError

    def outputs(self, y: Tensor) -> Tensor:
        """The cell's outputs (B, T, ...) to (B, T, D)."""
        return y

    def forward(self, x: Tensor, state: Any, context: Context) -> tuple[Tensor, Any]:
        if x.shape[1] == 0:
            return x, state
        dtype = next(self.parameters()).dtype
        with torch.autocast(x.device.type, enabled=False):
            seen = self.inputs(x.to(dtype)).to(torch.promote_types(dtype, torch.float32))
            y, state = over_time(self.cell, seen, state, self.init_state(len(x)), context.reset)
        return self.outputs(y.to(x.dtype)), state


def over_time(
    cell: Callable[[Tensor, Any], tuple[Tensor, Any]], x: Tensor, state: Any, fresh: Any, reset: Tensor | None
) -> tuple[Tensor, Any]:
    """x (B, T, ...), T > 0, through a cell, from `fresh` where reset (B, T). Returns the outputs (B, T, ...) and the last state."""
    outputs = []
    resets = reset.unbind(1) if reset is not None else [None] * x.shape[1]
    for x_t, reset_t in zip(x.unbind(1), resets, strict=True):
        if reset_t is not None:
            state = map_leaves(lambda new, old, at=reset_t: torch.where(at.view(-1, *[1] * (old.dim() - 1)), new, old), fresh, state)
        y, state = cell(x_t, state)
        outputs.append(y)
    return torch.stack(outputs, 1), state
