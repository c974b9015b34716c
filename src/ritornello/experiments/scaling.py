"""The scaling rule: how large a model, and how many passes over the text, an amount of computation should buy.

A training run costs about C = 6 N D FLOP for N weights that multiply and D tokens. For every width of a ladder, D = C / (6 N);
the width with the lowest predicted loss wins:

    loss = A / N^0.34 + B / D'^0.28        D' = U + 15.4 U (1 - exp(-(D / U - 1) / 15.4))   for D > U, else D

The law is Hoffmann et al. 2022 (arXiv:2203.15556): A = 406.4, B = 410.7. U is the corpus in tokens: what
repeated text is worth is Muennighoff et al. 2023 (arXiv:2305.16264): the fourth pass is nearly as good as new text, the fortieth
nearly worthless. Both were fitted on models far larger than ours; here they only rank widths.
"""

import math
from dataclasses import dataclass

from ritornello.config import from_dict
from ritornello.errors import InputError
from ritornello.mixers import mixer
from ritornello.mixers.layers import expand
from ritornello.model import LMConfig, parameters

WIDTHS = (32, 48, 64, 96, 128, 160, 192, 256, 320, 384, 512, 640, 768, 1024)
MOST_PASSES = 40
MOST_WEIGHTS = 4  # for each token of the text; the law does not know that a large model learns a short text by heart


@dataclass(frozen=True)
class Shape:
    """A model's size and what one update sees."""

    dim: int
    layers: tuple[str, ...]
    weights: int  # that multiply: all but the embedding table, the head included
    tokens: float  # to train on in all
    batch: int
    length: int
    dropout: float

    @property
    def steps(self) -> int:
        return max(1, round(self.tokens / (self.batch * self.length)))


def flop_per_token(weights: int) -> float:
    """Forward and backward: two FLOP a weight forward, four backward."""
    return 6.0 * weights


def predicted_loss(weights: int, tokens: float, unique: int) -> float:
    """The law above, without its constant term."""
    passes = tokens / unique
    useful = tokens if passes <= 1 else unique + 15.4 * unique * (1 - math.exp(-(passes - 1) / 15.4))
    return 406.4 / weights**0.34 + 410.7 / useful**0.28


def depth(dim: int) -> int:
    """Layers for a width: about one for each 40 channels, at least two."""
    return max(2, round(dim / 40))


def head_dim(dim: int, most: int = 64) -> int:
    """Channels a head: the largest number up to `most` that divides the width, an even one where there is one."""
    return max(size for size in range(1, most + 1) if dim % size == 0 and (size % 2 == 0 or dim % 2 or most == 1))


def choose(
    flop: float,
    unique: int,
    vocab: int,
    *,
    pattern: str = "hgrn2",
    channel: str | None = "swiglu",
    dim: int | None = None,
    layers: int | None = None,
    batch: int | None = None,
    length: int | None = None,
) -> Shape:
    """The best shape for `flop` of computation on `unique` tokens of text; what is given is kept.

    A pattern of one name is repeated to a depth that fits the width; a longer one is the stack, or goes round for so many `layers`.
    """
    alone = len(expand(pattern)) == 1
    best: tuple[float, Shape] | None = None
    for width in (dim,) if dim is not None else WIDTHS:
        stack = expand(pattern, layers or (depth(width) if alone else None))
        weights = parameters(model_config(vocab, width, stack, channel=channel), embedding=False) + vocab * width
        tokens = min(flop / flop_per_token(weights), MOST_PASSES * unique)
        rows, pieces = batch_shape(tokens, unique, batch, length)
        loss = predicted_loss(weights, tokens, unique)
        if best is None or (loss < best[0] and weights <= MOST_WEIGHTS * unique):
            best = loss, Shape(width, stack, weights, tokens, rows, pieces, dropout(tokens / unique))
    assert best is not None, "the ladder has widths"
    return best[1]


def dropout(passes: float) -> float:
    """None for text seen twice at most, 0.1 up to eight times, else 0.2."""
    return 0.0 if passes <= 2 else 0.1 if passes <= 8 else 0.2


def batch_shape(tokens: float, unique: int, batch: int | None, length: int | None) -> tuple[int, int]:
    """Rows and length of an update: pieces of 128 tokens (256 from 50 million tokens on), rows for about 2,000 updates, 16 to 64 of them.

    Fewer than 16 rows leave a processor idle. A text too short for that gets fewer rows and shorter pieces; InputError if what the
    user fixed does not fit.
    """
    pieces = length or min(128 if tokens < 5e7 else 256, max(8, unique // 8))
    if batch is not None:
        return batch, pieces
    rows = 2 ** round(math.log2(min(64, max(16, tokens / pieces / 2000))))
    most = unique // (pieces + 1)
    if most < 1:
        raise InputError(f"the training text has {unique} tokens, fewer than one piece of {pieces}; use a shorter --length or more text")
    return max(1, min(rows, most)), pieces


def model_config(vocab: int, dim: int, layers: tuple[str, ...], drop: float = 0.0, channel: str | None = "swiglu") -> LMConfig:
    """A model of these layers; heads fit the width."""
    kinds = {kind: mixer(kind).Config() for kind in set(layers)}
    mixers = {kind: from_dict(type(config), {"head_dim": head_dim(dim)}) for kind, config in kinds.items() if hasattr(config, "head_dim")}
    return LMConfig(vocab=vocab, dim=dim, layers=layers, channel=channel, mixers=mixers, dropout=drop)
