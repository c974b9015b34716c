"""Losses. A loss owns the model; it is what a parallel wrapper would wrap.

nats, count, state = loss(batch, state)        summed nats, scored targets, the state after the batch
"""

import torch
from torch import Tensor, nn

from ritornello.data.batches import Batch
from ritornello.errors import InputError
from ritornello.mixers.layers import describe
from ritornello.model import LM
from ritornello.state import State


class NextToken(nn.Module):
    """Cross-entropy of the next token, in float32 whatever the model computed in."""

    def __init__(self, model: nn.Module):
        super().__init__()
        if isinstance(model, LM) and not model.causal:
            raise InputError(f"next-token loss: {describe(model.config.layers)} sees the tokens it is to predict; use causal mixers")
        self.model = model

    def init_state(self, batch: int) -> State:
        return self.model.init_state(batch)  # type: ignore[operator]

    def forward(self, batch: Batch, state: State) -> tuple[Tensor, Tensor, State]:
        logits, state = self.model(batch.tokens, state, batch.reset)
        wide = torch.promote_types(logits.dtype, torch.float32)
        nats = nn.functional.cross_entropy(logits.flatten(0, 1).to(wide), batch.targets.flatten(), ignore_index=-100, reduction="sum")
        return nats, (batch.targets != -100).sum(), state
