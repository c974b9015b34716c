"""Losses. A loss owns the model; it is what a parallel wrapper would wrap.

nats, count, state, parts = loss(batch, state)        summed nats, scored targets, the state after the batch, what is told apart
"""

from typing import NamedTuple

from torch import Tensor, nn

from ritornello.data.batches import Batch
from ritornello.errors import InputError
from ritornello.mixers.layers import describe
from ritornello.model import LM
from ritornello.ops.linear_loss import IGNORED, chunked, cross_entropy
from ritornello.state import State


class Outcome(NamedTuple):
    """What a loss makes of a batch."""

    nats: Tensor  # (), summed over the scored targets: what is made smaller
    scored: Tensor  # (), how many
    state: State  # after the batch
    parts: dict[str, Tensor] = {}  # noqa: RUF012 (never written to) more sums for the log; "cross_entropy" where nats are not that alone


class NextToken(nn.Module):
    """Cross-entropy of the next token, in float32 whatever the model computed in.

    With `chunk` (for an LM) the logits of so many tokens are held at a time instead of all: it saves memory, not time.
    """

    def __init__(self, model: nn.Module, chunk: int | None = None):
        super().__init__()
        if isinstance(model, LM) and not model.causal:
            raise InputError(f"next-token loss: {describe(model.config.layers)} sees the tokens it is to predict; use causal mixers")
        if chunk is not None and not isinstance(model, LM):
            raise InputError("next-token loss: only our own models can make their logits in chunks; leave chunk out")
        self.model, self.chunk = model, chunk
        self.impl = getattr(model, "impl", "auto")

    def init_state(self, batch: int) -> State:
        return self.model.init_state(batch)  # type: ignore[operator]

    def forward(self, batch: Batch, state: State) -> Outcome:
        targets = batch.targets.flatten()
        if self.chunk is None:
            logits, state = self.model(batch.tokens, state, batch.reset)
            nats = cross_entropy(logits.flatten(0, 1), targets, self.impl)
        else:
            assert isinstance(self.model, LM), "checked above"
            x, state = self.model.features(batch.tokens, state, batch.reset)
            nats = chunked(x.flatten(0, 1), self.model.head.weight, targets, self.chunk, self.model.config.softcap, self.impl)
        return Outcome(nats, (targets != IGNORED).sum(), state)
