"""BLiMP and the challenge's supplement to it, as suites of minimal pairs: a subtask a file.

BLiMP: Warstadt et al. 2020, arXiv:1912.00582. "Filtered" keeps the pairs whose words all occur in the BabyLM text, "fast" 200 of each
subtask.
"""

import math
from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from ritornello.evals.pairs import MinimalPair, accuracies, macro, read_pairs
from ritornello.evals.report import Row
from ritornello.evals.subject import Request
from ritornello.evals.suite import Outcome, Suite, Task, scored_task, spread


def pairs_suite(name: str) -> Suite:
    """A suite of a folder, or a file, of minimal pairs."""

    def tasks(path: Path, limit: int | None) -> list[Task]:
        return [_task(name, task, spread(pairs, limit)) for task, pairs in read_pairs(path).items()]

    return Suite(name, tasks, means)


def _task(suite: str, name: str, pairs: Sequence[MinimalPair]) -> Task:
    def grade(log_probs: Tensor) -> Outcome:
        margin = log_probs.view(-1, 2)[:, 0] - log_probs.view(-1, 2)[:, 1]
        rows = tuple(row for row in accuracies({name: margin}, suite=suite) if row.task == name)
        chosen = [(pair.good, pair.bad)[int(each < 0)] for pair, each in zip(pairs, margin.tolist(), strict=True)]
        return Outcome(rows, tuple({"id": f"{name}_{index}", "pred": f" {text}"} for index, text in enumerate(chosen)))

    return scored_task(name, pairs, [Request(pair.context + side) for pair in pairs for side in (pair.good, pair.bad)], grade)


def means(rows: Sequence[Row]) -> tuple[Row, ...]:
    """For each metric "all", the unweighted mean over subtasks, and "all pairs", the mean over pairs."""
    found: list[Row] = []
    for metric in dict.fromkeys(row.metric for row in rows):
        tasks = [row for row in rows if row.metric == metric]
        found += [macro(tasks), _pooled(tasks)]
    return tuple(found)


def _pooled(tasks: list[Row]) -> Row:
    """The mean over all items, with the standard error that the items themselves would give."""
    whole = macro(tasks)
    if whole.value is None:
        return Row(whole.suite, "all pairs", whole.metric, None, n=whole.n, chance=whole.chance, by=whole.by, reason=whole.reason)
    known = [(row.n, row.value, row.stderr or 0.0) for row in tasks if row.value is not None]
    mean = sum(n * value for n, value, _ in known) / whole.n
    variance = sum(n * (n * stderr**2 + (value - mean) ** 2) for n, value, stderr in known) / whole.n
    return Row(whole.suite, "all pairs", whole.metric, mean, math.sqrt(variance / whole.n), whole.n, whole.chance, whole.by)


FULL = pairs_suite("blimp-full")
FILTERED = pairs_suite("blimp")
FAST = pairs_suite("blimp-fast")
SUPPLEMENT = pairs_suite("supplement")
SUPPLEMENT_FAST = pairs_suite("supplement-fast")
