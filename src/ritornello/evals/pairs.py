"""Minimal pairs: is the grammatical sentence of two more probable?

The score of a sentence is the plain sum of its tokens' log-probabilities; a margin is good minus bad, in nats. What is put before it is the
protocol's (see subject.py).

Both official pipelines call a tie right, and a scorer that gives everything the same score gets 100 % by it. So ties are counted, and
accuracy is also given with half a point for each. "all" is the unweighted mean over subtasks, as published scores are; "all pairs"
is the mean over pairs. BLiMP: Warstadt et al. 2020, arXiv:1912.00582.
"""

import gzip
import json
import lzma
import math
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ritornello.data.tokenizers import Tokenizer
from ritornello.errors import InputError, unknown
from ritornello.evals.report import Row
from ritornello.evals.scoring import Progress, log_prob
from ritornello.evals.subject import PROTOCOLS
from ritornello.evals.suite import spread
from ritornello.model import CausalLM

OPENERS: dict[str, Callable[..., Any]] = {".gz": gzip.open, ".xz": lzma.open}
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
    if not path.exists():
        raise InputError(f"{path}: no such file or folder of minimal pairs")
    if path.is_file():
        return {_subtask(path) or path.stem: _read_file(path)}
    inside = sorted(path.iterdir())
    chosen = [file for file in inside if file.is_file() and _subtask(file)]
    if not chosen:
        folders = [folder.name for folder in inside if folder.is_dir() and any(_subtask(file) for file in folder.iterdir())]
        hint = f"; give one of its folders: {', '.join(folders)}" if folders else ""
        raise InputError(f"{path}: holds no .jsonl, .jsonl.gz or .jsonl.xz file{hint}")
    if say and len(chosen) < len(inside):
        say(f"{path}: left out {', '.join(other.name for other in inside if other not in chosen)}")
    suites: dict[str, list[MinimalPair]] = {}
    for file in chosen:
        if _subtask(file) in suites:
            raise InputError(f"{path}: two files hold the subtask {_subtask(file)}; keep one of them")
        suites[_subtask(file)] = _read_file(file)
    return suites


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


def macro(tasks: list[Row]) -> Row:
    """The unweighted mean of subtasks."""
    suite, metric, chance, by = tasks[0].suite, tasks[0].metric, tasks[0].chance, tasks[0].by
    n = sum(row.n for row in tasks)
    values = [row.value for row in tasks if row.value is not None]
    if len(values) < len(tasks):
        lost = ", ".join(row.task for row in tasks if row.value is None)
        return Row(suite, "all", metric, None, n=n, chance=chance, by=by, reason=f"no value for {lost}")
    stderr = math.sqrt(sum((row.stderr or 0) ** 2 for row in tasks)) / len(tasks)
    return Row(suite, "all", metric, sum(values) / len(tasks), stderr, n, chance, by)


def _texts(tokenizer: Tokenizer, suites: Mapping[str, Sequence[MinimalPair]], protocol: str, limit: int | None) -> list[list[int]]:
    """Good, bad, good, bad ... as tokens, the first of which conditions."""
    if protocol not in PROTOCOLS:
        raise unknown("protocol", protocol, PROTOCOLS)
    first = [] if protocol == "official-2025" else [tokenizer.bos]
    space = " " if protocol == "official-2024" else ""
    chosen = [pair for pairs in suites.values() for pair in spread(pairs, limit)]
    sentences = [space + pair.context + side for pair in chosen for side in (pair.good, pair.bad)]
    return [[*first, *ids.tolist()] for ids in tokenizer.encode_many(sentences)]


def _subtask(path: Path) -> str:
    """The bare name of a file of JSON lines; empty for any other."""
    name = path.name.removesuffix(path.suffix) if path.suffix in OPENERS else path.name
    return name.removesuffix(".jsonl") if name.endswith(".jsonl") else ""


def _read_file(path: Path) -> list[MinimalPair]:
    try:
        with OPENERS.get(path.suffix, open)(path, "rb") as file:
            text = file.read().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 text ({error.reason} at byte {error.start})") from error
    except (OSError, EOFError, lzma.LZMAError, zlib.error) as error:
        raise InputError(f"{path}: cannot be read: {error}") from error
    pairs = [_pair(line, f"{path}:{number}") for number, line in enumerate(text.split("\n"), 1) if line.strip()]
    if not pairs:
        raise InputError(f"{path}: holds no minimal pair")
    return pairs


def _pair(line: str, where: str) -> MinimalPair:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where}: not JSON: {error}") from error
    if not isinstance(found, dict):
        raise InputError(f"{where}: expected an object with good and bad, found {type(found).__name__}")
    good, bad = next((names for names in NAMES if names[0] in found or names[1] in found), NAMES[0])
    missing = [name for name in (good, bad) if name not in found]
    if missing:
        raise InputError(f"{where}: {' and '.join(missing)} missing; found {', '.join(found) or 'nothing'}")
    fields = {"good": found[good], "bad": found[bad], "context": found.get("context", ""), "tag": found.get("tag", "")}
    for name, value in fields.items():
        if not isinstance(value, str) or (not value and name in ("good", "bad")):
            raise InputError(f"{where}: {name} must be a text, found {value!r}")
    return MinimalPair(**fields)
