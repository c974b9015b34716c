"""Losses. A loss owns the model; it is what a parallel wrapper would wrap.

nats, count, state, parts = loss(batch, state)        summed nats, scored targets, the state after the batch, what is told apart
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ritornello.data.batches import Batch
from ritornello.errors import InputError
from ritornello.mixers.layers import describe
from ritornello.model import LM
from ritornello.ops.linear_loss import IGNORED, chunked, cross_entropy
from ritornello.state import State
from ritornello.train.masking import MASK
from ritornello.train.objective import PLAIN, Objective, Sums, penalty, shaped, watched


class Outcome(NamedTuple):
    """What a loss makes of a batch."""

    nats: Tensor  # (), summed over the scored targets: what is made smaller
    scored: Tensor  # (), how many
    state: State  # after the batch
    parts: dict[str, Tensor] = {}  # noqa: RUF012 (never written to) more sums for the log; "cross_entropy" where nats are not that alone


class NextToken(nn.Module):
    """Cross-entropy of the next token, in float32 whatever the model computed in; or what `objective` makes of it.

    With `chunk` (for an LM) the logits of so many tokens are held at a time instead of all: it saves memory, not time.
    """

    def __init__(self, model: nn.Module, chunk: int | None = None, objective: Objective = PLAIN):
        super().__init__()
        if isinstance(model, LM) and not model.causal:
            raise InputError(f"next-token loss: {describe(model.config.layers)} sees the tokens it is to predict; use causal mixers")
        if chunk is not None and not isinstance(model, LM):
            raise InputError("next-token loss: only our own models can make their logits in chunks; leave chunk out")
        if (objective.ar or objective.tar or objective.masked) and not isinstance(model, LM):
            raise InputError("next-token loss: ar, tar and masked reach into a model and need one of ours; leave them out")
        self.model, self.chunk, self.objective = model, chunk, objective
        self.impl = getattr(model, "impl", "auto")
        self.mask = nn.Parameter(0.02 * torch.randn(model.config.dim)) if objective.masked and isinstance(model, LM) else None

    def init_state(self, batch: int) -> State:
        return self.model.init_state(batch)  # type: ignore[operator]

    def forward(self, batch: Batch, state: State) -> Outcome:
        if not (self.objective.ar or self.objective.tar):
            return self._tokens(batch, state)
        with watched(self.model) as kept:  # type: ignore[arg-type]
            nats, scored, state, parts = self._tokens(batch, state)
        parts = {"cross_entropy": nats.detach()} | parts
        return Outcome(nats + scored * penalty(kept[0], batch.reset, self.objective), scored, state, parts)

    def _tokens(self, batch: Batch, state: State) -> Outcome:
        """The loss of the tokens alone."""
        inputs, targets = batch.tokens if self.mask is None else self._masked(batch.tokens), batch.targets.flatten()
        scored = (targets != IGNORED).sum()
        if self.chunk is None:
            logits, state = self.model(inputs, state, batch.reset)
            logits = logits.flatten(0, 1)
            if not self.objective.shaped:
                return Outcome(cross_entropy(logits, targets, self.impl), scored, state)
            sums = shaped(logits, targets, self.objective)
        else:
            assert isinstance(self.model, LM), "checked above"
            x, state = self.model.features(inputs, state, batch.reset)
            x = x.flatten(0, 1)
            if not self.objective.shaped:
                nats = chunked(x, self.model.head.weight, targets, self.chunk, self.model.config.softcap, self.impl)
                return Outcome(nats, scored, state)
            sums = self._in_chunks(self.model, x, targets, self.chunk)
        return Outcome(sums.nats, scored, state, {"cross_entropy": sums.cross_entropy.detach()})

    def _masked(self, tokens: Tensor) -> Tensor:
        """Embeddings (B, T, D) of tokens (B, T), the mask's where they are hidden."""
        assert isinstance(self.model, LM), "checked above"
        return self.model.look_up(tokens.clamp_min(0)).where((tokens != MASK)[..., None], self.mask)  # type: ignore[arg-type]

    def _in_chunks(self, model: LM, x: Tensor, targets: Tensor, rows: int) -> Sums:
        """Features (N, D), `rows` of them at a time; their logits are made again on the way back."""
        parts = [
            checkpoint(lambda x, y: shaped(model.logits(x), y, self.objective), *each, use_reentrant=False, preserve_rng_state=False)
            for each in zip(x.split(rows), targets.split(rows), strict=True)
        ]
        return Sums(*(torch.stack(each).sum() for each in zip(*parts, strict=True)))
