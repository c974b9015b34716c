"""Masked next-token prediction: in some rows of a step, tokens are hidden and are what the row is trained to predict.

A token hidden at place t is replaced by a mask among the inputs, and scored where it is predicted, at place t - 1; nothing else in the row
is scored. For a model that sees ahead this is masked language modelling, shifted by one so that it shares the head with plain rows
(GPT-BERT). A recurrent model sees only what comes before: to it such a row is next-token prediction with holes in the past, so that it
must not lean on the last few tokens; what it learns is kept for plain text. The first token of a piece, which was predicted in the
piece before, and the first of a document are never hidden. The mask is an embedding of the loss's own: the model does not get it.

The share of rows and the rate of tokens go in a straight line from their first to their last value over the run.

Source: Charpentier and Samuel 2024, arXiv:2410.24159: a rate that falls from 0.3 to 0.15; of their rows 15 in 16 are masked, for a model
that sees both sides there. Holes as noise for recurrent models: Xie et al. 2017, arXiv:1703.02573.
"""

from dataclasses import dataclass

import torch

from ritornello.data.batches import Batch
from ritornello.errors import InputError
from ritornello.ops.linear_loss import IGNORED

MASK = -1  # among the tokens of a batch: the loss's own embedding


@dataclass(frozen=True, kw_only=True)
class MaskConfig:
    share: float = 0.5  # of a step's rows that are masked, at first
    share_end: float | None = None  # at last; None: as at first
    rate: float = 0.3  # of a masked row's tokens that are hidden, at first
    rate_end: float | None = 0.15

    def __post_init__(self) -> None:
        for name in ("share", "share_end", "rate", "rate_end"):
            if (value := getattr(self, name)) is not None and not 0 <= value <= 1:
                raise InputError(f"train.objective.masked.{name}: {value} is not in [0, 1]")


def mask(batch: Batch, config: MaskConfig, done: float) -> Batch:
    """The batch with some rows masked; `done` is the share of the run that is behind. Random by torch's own generator.

    As many rows as the share says, the last one by chance; a row where nothing came to be hidden stays as it is.
    """
    B, T = batch.tokens.shape
    share, rate = _between(config.share, config.share_end, done), _between(config.rate, config.rate_end, done)
    chosen = torch.randperm(B) < int(share * B + float(torch.rand(())))
    hidden = chosen[:, None] & (torch.rand(B, T) < rate)
    hidden[:, 0] = False
    if batch.reset is not None:
        hidden &= ~batch.reset
    wanted = torch.nn.functional.pad(hidden[:, 1:], (0, 1))  # at the place before
    plain = ~hidden.any(1, keepdim=True)
    return batch._replace(tokens=batch.tokens.where(~hidden, MASK), targets=batch.targets.where(wanted | plain, IGNORED))


def _between(first: float, last: float | None, done: float) -> float:
    return first if last is None else first + (last - first) * done
