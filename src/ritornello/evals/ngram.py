"""An n-gram model with interpolated modified Kneser-Ney smoothing: the baseline that a network has to beat.

The probability of token w after the context h = h_1 .. h_{k-1}, where h' is h without its first token:

    p_k(w | h) = (c(h w) - D[c(h w)]) / c(h .) + spare(h) p_{k-1}(w | h')      spare(h) = sum_w D[c(h w)] / c(h .)
    p_0(w) = 1 / V                                                             p_k = p_{k-1} where h was never seen

c counts occurrences in the highest order. Below, it counts the different tokens seen before the n-gram, so a word that
follows one word only gets little; an n-gram that begins with BOS has nothing before it and keeps its occurrences.
D[1], D[2] and D[3 or more] are estimated for each order from n_j, the number of n-grams with count j:

    Y = n_1 / (n_1 + 2 n_2)      D[j] = j - (j + 1) Y n_{j+1} / n_j

An estimate that does not exist or is not within (0, j) is replaced by j / 2 (all three, if n_1 or n_2 is zero). Hence
spare(h) > 0, every token has a positive probability, and each context's probabilities sum to 1 over the vocabulary.

A document is BOS t_1 .. t_n EOS with one BOS, which conditions and is never predicted; t_1 is predicted from (BOS), t_2
from (BOS, t_1) and so on, until the context has its full length. No context reaches into another document.

Source: Chen and Goodman 1999, "An empirical study of smoothing techniques for language modeling", section 3.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple

import numpy as np

from ritornello.errors import InputError

LAST = np.iinfo(np.int64).max  # closes every table of keys, so that a look-up always lands inside it
SORTING = 40  # bytes a token while one order is counted
ENTRY = 28  # bytes an n-gram in a finished table


class Level(NamedTuple):
    """The n-grams of one order. N of them, C of the order below; the last of each is a sentinel that was never seen."""

    keys: np.ndarray  # (N,) int64, rising: the place of the context among the n-grams one order below, times base, plus the token
    counts: np.ndarray  # (N,) int32
    discounts: np.ndarray  # (4,) float64: 0, D[1], D[2], D[3 or more]
    totals: np.ndarray  # (C,) float64, c(h .)
    spare: np.ndarray  # (C,) float64, the share handed to the order below; 1 for a context never seen


class Walk(NamedTuple):
    """Where the climb from short to long contexts stands, for each position of some rows of tokens."""

    contexts: np.ndarray  # (R, T) int64, places of the contexts that the next order looks at; -1: never seen
    p: np.ndarray  # (R, T) float64


@dataclass(frozen=True)
class NGram:
    """A fitted model; `fit` and `choose_order` make it."""

    levels: tuple[Level, ...]  # of orders 1, 2, ...
    vocab: int
    bos: int
    eos: int

    @property
    def order(self) -> int:
        """The longest n-gram's length."""
        return len(self.levels)

    @property
    def nbytes(self) -> int:
        """Bytes held by the tables."""
        return sum(array.nbytes for level in self.levels for array in level)

    def nats(self, ids: np.ndarray, ends: np.ndarray) -> np.ndarray:
        """-log p, in nats, of every token and of each document's end, in order: float64 (len(ids) + len(ends),).

        `ids` (N,) are the documents one after another, `ends` (D,) the places where they end. Raises InputError for ids
        that are not in the vocabulary or are special, and for ends that do not fit.
        """
        tokens = _layout(ids, ends, self.vocab, self.bos, self.eos)[None]
        return -np.log(self._p(tokens)[tokens != self.vocab])

    def probabilities(self, context: list[int]) -> np.ndarray:
        """p(w | context) for every id w: float64 (vocab,). Only a BOS that is not also EOS has probability 0.

        A context that begins with BOS is all that its document has so far; one that does not is the middle of a document.
        """
        if any(not 0 <= token < self.vocab for token in context):
            raise InputError(f"n-gram context: expected ids from 0 to {self.vocab - 1}, found {context}")
        past = [self.vocab if place == 0 and token == self.bos else token for place, token in enumerate(context)]
        past = past[max(0, len(past) - self.order + 1) :]
        tokens = np.empty((self.vocab, len(past) + 1), np.int32)
        tokens[:, :-1], tokens[:, -1] = past, np.arange(self.vocab)
        p = self._p(tokens)[:, -1].copy()
        if self.bos != self.eos:
            p[self.bos] = 0.0
        return p

    def _p(self, tokens: np.ndarray) -> np.ndarray:
        """p of each token given those before it in its row, (R, T)."""
        walk = _start(self, tokens.shape)
        for level in self.levels:
            walk = _climb(level, tokens, walk, self.vocab + 1)
        return walk.p


class Choice(NamedTuple):
    """The best order's model, and what each order tried gave."""

    model: NGram
    nats: dict[int, float]  # order -> mean nats of a held-out token, document ends included


def fit(ids: np.ndarray, ends: np.ndarray, vocab: int, order: int, *, bos: int, eos: int) -> NGram:
    """The model of this order for the documents in `ids` (N,), which end at the places `ends` (D,).

    Ids are integers from 0 to vocab - 1 without `bos` and `eos`; with bos == eos the id stands for the end. Raises
    InputError for anything else, for no document at all, and for an order below 1.
    """
    if order < 1:
        raise InputError(f"n-gram order: expected 1 or more, found {order}")
    return next(islice(_models(_train_tokens(ids, ends, vocab, bos, eos), vocab, bos, eos), order - 1, None))


def choose_order(
    train: tuple[np.ndarray, np.ndarray],
    held_out: tuple[np.ndarray, np.ndarray],
    vocab: int,
    *,
    bos: int,
    eos: int,
    max_order: int = 6,
    max_bytes: int = 4 * 2**30,
) -> Choice:
    """The model whose order has the lowest mean nats on the held-out text. Both texts are (ids, ends) as in `fit`.

    Orders are tried upwards, each built on the counts of the one before, until one does worse than its predecessor,
    `max_order` is reached (6 is enough for subwords, 10 for bytes) or the next order would need more memory than
    `max_bytes`, as estimated from the sizes so far. Choosing on the text that is then reported favours the n-gram model,
    which is right for a baseline. Raises InputError as `fit`, and for a held-out text without documents.
    """
    if max_order < 1:
        raise InputError(f"n-gram order: expected a max_order of 1 or more, found {max_order}")
    tokens = _train_tokens(*train, vocab, bos, eos)
    held = _layout(*held_out, vocab, bos, eos)[None]
    targets = held != vocab
    if not targets.any():
        raise InputError("n-gram held-out text: it has no documents; give at least one")
    best, nats, walk = None, {}, None
    for model in islice(_models(tokens, vocab, bos, eos), max_order):
        walk = _start(model, held.shape) if walk is None else _climb(model.levels[-2], held, walk, vocab + 1)
        nats[model.order] = float(-np.log(_climb(model.levels[-1], held, walk, vocab + 1).p[targets]).mean())
        if best is not None and nats[model.order] > nats[best.order]:
            break
        best = model
        if _next_bytes(model, tokens.size) > max_bytes:
            break
    assert best is not None, "max_order is at least 1, so one model was fitted"
    return Choice(best, nats)


def _models(tokens: np.ndarray, vocab: int, bos: int, eos: int) -> Iterator[NGram]:
    """The models of order 1, 2, ... without end; each shares its lower levels with the next."""
    base = vocab + 1
    keys, counts = np.append(np.arange(base), LAST), np.bincount(tokens[tokens != vocab], minlength=base + 1).astype(np.int32)
    lower: tuple[Level, ...] = ()
    contexts, places = 1, tokens  # the one context of order 1 is the empty one
    while True:
        yield NGram((*lower, _level(keys, counts, contexts, base)), vocab, bos, eos)
        longer, longer_counts, places, tails = _count(tokens, places, base)
        preceded = np.bincount(tails, minlength=len(keys)).astype(np.int32)
        lower = (*lower, _level(keys, np.where(preceded > 0, preceded, counts), contexts, base))
        contexts, keys, counts = len(keys), longer, longer_counts


def _count(tokens: np.ndarray, places: np.ndarray, base: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The n-grams one token longer than those that `places` (T,) says end at each position (-1: none).

    Returns their keys and counts (N,), closed by the sentinel; the place (T,) of the one that ends at each position; and
    for each of them the place of its tail, that is the n-gram without its first token, (N - 1,).
    """
    ended = (places[:-1] >= 0) & (tokens[1:] != base - 1)
    keys = places[:-1][ended].astype(np.int64) * base
    keys += tokens[1:][ended]
    order = keys.argsort()
    keys = keys[order]
    first = np.flatnonzero(np.diff(keys, prepend=-1))
    keys = keys[first]
    counts = np.diff(first, append=len(order)).astype(np.int32)
    tails = places[1:][ended][order[first]]
    which = np.empty(len(order), np.int32)
    which[order] = np.repeat(np.arange(len(first), dtype=np.int32), counts)
    longer = np.full(len(places), -1, np.int32)
    longer[1:][ended] = which
    return np.append(keys, LAST), np.append(counts, np.int32(0)), longer, tails


def _level(keys: np.ndarray, counts: np.ndarray, contexts: int, base: int) -> Level:
    discounts = _discounts(counts)
    context, seen = keys[:-1] // base, counts[:-1]
    totals = np.bincount(context, weights=seen, minlength=contexts)
    spare = np.bincount(context, weights=discounts[np.minimum(seen, 3)], minlength=contexts)
    unseen = totals == 0
    totals[unseen] = spare[unseen] = 1.0
    return Level(keys, counts, discounts, totals, spare / totals)


def _discounts(counts: np.ndarray) -> np.ndarray:
    """0, D[1], D[2], D[3 or more] from the numbers of n-grams with counts 1 to 4."""
    n = np.bincount(np.minimum(counts, 5), minlength=6).astype(float)
    discounts = np.array([0.0, 0.5, 1.0, 1.5])
    if n[1] and n[2]:
        y = n[1] / (n[1] + 2 * n[2])
        for j in (1, 2, 3):
            estimate = j - (j + 1) * y * n[j + 1] / n[j] if n[j] else 0.0
            if 0 < estimate < j:
                discounts[j] = estimate
    return discounts


def _start(model: NGram, shape: tuple[int, ...]) -> Walk:
    """Before order 1: the empty context, and the uniform distribution over all that can be predicted."""
    return Walk(np.zeros(shape, np.int64), np.full(shape, 1 / (model.vocab - (model.bos != model.eos))))


def _climb(level: Level, tokens: np.ndarray, walk: Walk, base: int) -> Walk:
    """One order up, for rows of tokens (R, T)."""
    wanted = walk.contexts * base + tokens
    places = np.searchsorted(level.keys, wanted)
    found = level.keys[places] == wanted
    counts = np.where(found, level.counts[places], 0)
    own = (counts - level.discounts[np.minimum(counts, 3)]) / level.totals[walk.contexts]
    contexts = np.full_like(walk.contexts, -1)
    contexts[:, 1:] = np.where(found, places, -1)[:, :-1]
    return Walk(contexts, own + level.spare[walk.contexts] * walk.p)


def _next_bytes(model: NGram, tokens: int) -> float:
    """Bytes that building the next order takes, if the tables go on growing at the rate of the last order, which in truth falls."""
    below, top = (len(level.keys) for level in (model.levels[-2:] * 2)[:2])
    more = min(tokens, top * top / below)
    return model.nbytes + SORTING * tokens + ENTRY * (top + more)


def _train_tokens(ids: np.ndarray, ends: np.ndarray, vocab: int, bos: int, eos: int) -> np.ndarray:
    if len(ends) == 0:
        raise InputError("n-gram training text: it has no documents; give at least one")
    return _layout(ids, ends, vocab, bos, eos)


def _layout(ids: np.ndarray, ends: np.ndarray, vocab: int, bos: int, eos: int) -> np.ndarray:
    """BOS t_1 .. t_n EOS of each document, one after another: int32 (N + 2 D,). BOS is `vocab`, an id that no text holds."""
    _check(ids, ends, vocab, bos, eos)
    ends = ends.astype(np.int64)
    tokens = np.empty(ids.size + 2 * ends.size, np.int32)
    text = np.ones(tokens.size, bool)
    number = np.arange(ends.size)
    first, last = np.append(0, ends[:-1])[: ends.size] + 2 * number, ends + 2 * number + 1
    text[first] = text[last] = False
    tokens[text], tokens[first], tokens[last] = ids, vocab, eos
    return tokens


def _check(ids: np.ndarray, ends: np.ndarray, vocab: int, bos: int, eos: int) -> None:
    if not (0 <= bos < vocab and 0 <= eos < vocab):
        raise InputError(f"n-gram: expected bos and eos from 0 to {vocab - 1}, found {bos} and {eos}")
    for what, array in (("ids", ids), ("ends", ends)):
        if array.ndim != 1 or (array.size and array.dtype.kind not in "iu"):
            raise InputError(f"n-gram {what}: expected whole numbers on one axis, found {array.dtype} of shape {array.shape}")
    if (np.diff(ends.astype(np.int64), prepend=0) < 0).any() or (ends[-1] if ends.size else 0) != ids.size:
        raise InputError(f"n-gram ends: expected rising places, the last of them the number of ids, {ids.size}")
    if ids.size and (ids.min() < 0 or ids.max() >= vocab):
        raise InputError(f"n-gram ids: expected 0 to {vocab - 1}, found {ids.min()} to {ids.max()}")
    for name, special in (("BOS", bos), ("EOS", eos)):
        if (ids == special).any():
            raise InputError(f"n-gram ids: found {name}, {special}, inside a document; documents are given without special ids")
