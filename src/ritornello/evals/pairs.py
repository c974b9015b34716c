"""Minimal pairs: is the grammatical sentence of two more probable?

The score of a sentence is the plain sum of its tokens' log-probabilities; a margin is good minus bad, in nats. What is put before it is the
protocol's (see subject.py).

Both official pipelines call a tie right, and a scorer that gives everything the same score gets 100 % by it. So ties are counted, and
accuracy is also given with half a point for each. "all" is the unweighted mean over subtasks, as published scores are; "all pairs"
is the mean over pairs. BLiMP: Warstadt et al. 2020, arXiv:1912.00582.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from ritornello.data.tokenizers import Tokenizer
from ritornello.errors import unknown
from ritornello.evals.files import Record, record_files, records
from ritornello.evals.means import macro
from ritornello.evals.report import Row
from ritornello.evals.scoring import Progress, log_prob
from ritornello.evals.subject import PROTOCOLS
from ritornello.evals.suite import spread
from ritornello.model import CausalLM

NAMES = (("good", "bad"), ("sentence_good", "sentence_bad"))


class MinimalPair(NamedTuple):
    good: str
    bad: str
    context: str = ""  # put before both as it stands, its last space included
    tag: str = ""  # what sort of pair, such as "singular"


def read_pairs(path: Path, say: Callable[[str], None] | None = None) -> dict[str, list[MinimalPair]]:
    """Pairs by subtask: a file of JSON lines, plain, .gz or .xz, or a folder of such files. The subtask is the file's bare name.

    A line has `good` and `bad`, or `sentence_good` and `sentence_bad`; `context` and `tag` may be there, other fields are left.
    Other files of a folder are left too, and `say` is told which. Raises InputError with file and line.
    """
    files = record_files(path)
    if say and path.is_dir() and (left := sorted(other.name for other in path.iterdir() if other not in files.values())):
        say(f"{path}: left out {', '.join(left)}")
    return {name: pairs_of(records(file)) for name, file in files.items()}


def pairs_of(records: Sequence[Record]) -> list[MinimalPair]:
    """The pairs in lines of JSON. Raises InputError with file and line."""
    pairs = []
    for record in records:
        good, bad = next((names for names in NAMES if names[0] in record.fields or names[1] in record.fields), NAMES[0])
        record.need(good, bad)
        rest = {name: record.text(name, empty=True) for name in ("context", "tag") if name in record.fields}
        pairs.append(MinimalPair(record.text(good), record.text(bad), **rest))
    return pairs


def score_pairs(
    model: CausalLM,
    tokenizer: Tokenizer,
    suites: Mapping[str, Sequence[MinimalPair]],
    protocol: str = "ritornello",
    *,
    suite: str = "pairs",
    by: str = "model",
    limit: int | None = None,
    tokens_per_batch: int = 16384,
    progress: Progress | None = None,
) -> tuple[Row, ...]:
    """Accuracies and ties by subtask and over all. `limit` takes so many evenly spaced pairs a subtask; the suite's name says so."""

    def score(texts: list[list[int]]) -> Tensor:
        return log_prob(model, texts, tokens_per_batch=tokens_per_batch, progress=progress)

    cut = limit is not None and any(len(pairs) > limit for pairs in suites.values())
    name = f"{suite} (at most {limit} pairs a subtask)" if cut else suite
    return accuracies(margins(score, tokenizer, suites, protocol, limit=limit), suite=name, by=by)


def margins(
    score: Callable[[list[list[int]]], Tensor],
    tokenizer: Tokenizer,
    suites: Mapping[str, Sequence[MinimalPair]],
    protocol: str = "ritornello",
    *,
    limit: int | None = None,
) -> dict[str, Tensor]:
    """log p(good) - log p(bad), in nats: (pairs,) float64 a subtask, in the order of the pairs.

    `score` is any scorer of token lists whose first token conditions and is not scored: a model's `log_prob`, or a baseline's.
    """
    found = score(_texts(tokenizer, suites, protocol, limit)).double().reshape(-1, 2)
    parts = (found[:, 0] - found[:, 1]).split([len(spread(pairs, limit)) for pairs in suites.values()])
    return dict(zip(suites, parts, strict=True))


def count_tokens(
    tokenizer: Tokenizer, suites: Mapping[str, Sequence[MinimalPair]], protocol: str = "ritornello", *, limit: int | None = None
) -> int:
    """Tokens that `score_pairs` will score, equal sentences counted once."""
    return sum(len(text) - 1 for text in set(map(tuple, _texts(tokenizer, suites, protocol, limit))))


def accuracies(margins: Mapping[str, Tensor], *, suite: str = "pairs", by: str = "model") -> tuple[Row, ...]:
    """Rows for each subtask, for "all" (the mean over subtasks) and for "all pairs", of good-minus-bad margins in nats.

    Standard errors are binomial (for half credit: of the mean of 0, 1/2 and 1); that of "all" is sqrt(sum se^2) over the number of
    subtasks. A subtask with a margin that is not a number has no value, and neither have the two means.
    """
    if not margins:
        return ()
    pooled = torch.cat(list(margins.values()))
    rows: list[Row] = []
    for metric, chance, credit in METRICS:
        tasks = [_mean(part, credit, suite, task, metric, chance, by) for task, part in margins.items()]
        rows += [*tasks, macro(tasks), _mean(pooled, credit, suite, "all pairs", metric, chance, by)]
    return tuple(rows)


METRICS: tuple[tuple[str, float | None, Callable[[Tensor], Tensor]], ...] = (
    ("accuracy (official)", 0.5, lambda margin: (margin >= 0).double()),
    ("accuracy (half credit)", 0.5, lambda margin: (margin.sign().double() + 1) / 2),
    ("ties", None, lambda margin: (margin == 0).double()),
)


def _mean(margin: Tensor, credit: Callable[[Tensor], Tensor], suite: str, task: str, metric: str, chance: float | None, by: str) -> Row:
    n, lost = len(margin), int(margin.isnan().sum())
    if lost or not n:
        reason = f"{lost} of {n} pairs have no finite score" if n else "there is no pair"
        return Row(suite, task, metric, None, n=n, chance=chance, by=by, reason=reason)
    points = credit(margin)
    return Row(suite, task, metric, float(points.mean()), math.sqrt(float(points.var(correction=0)) / n), n, chance, by)


def _texts(tokenizer: Tokenizer, suites: Mapping[str, Sequence[MinimalPair]], protocol: str, limit: int | None) -> list[list[int]]:
    """Good, bad, good, bad ... as tokens, the first of which conditions."""
    if protocol not in PROTOCOLS:
        raise unknown("protocol", protocol, PROTOCOLS)
    first = [] if protocol == "official-2025" else [tokenizer.bos]
    space = " " if protocol == "official-2024" else ""
    chosen = [pair for pairs in suites.values() for pair in spread(pairs, limit)]
    sentences = [space + pair.context + side for pair in chosen for side in (pair.good, pair.bad)]
    return [[*first, *ids.tolist()] for ids in tokenizer.encode_many(sentences)]
