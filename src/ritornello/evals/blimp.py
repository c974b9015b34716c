"""BLiMP and the challenge's supplement to it, as suites of minimal pairs: a subtask a file.

BLiMP: Warstadt et al. 2020, arXiv:1912.00582. "Filtered" keeps the pairs whose words all occur in the BabyLM text, "fast" 200 of each
subtask.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from torch import Tensor

from ritornello.evals.files import Record, file_tasks
from ritornello.evals.means import means
from ritornello.evals.pairs import MinimalPair, accuracies, pairs_of
from ritornello.evals.subject import Request
from ritornello.evals.suite import Outcome, Suite, Task, scored_task, spread


def pairs_suite(name: str, published: bool = False) -> Suite:
    """A suite of a folder, or a file, of minimal pairs; `published`: those of that name that everybody has."""

    def tasks(path: Path, limit: int | None) -> list[Task]:
        def make(subtask: str, records: list[Record]) -> list[Task]:
            return [_task(name, subtask, spread(pairs_of(records), limit))]

        return file_tasks(path, make, name if published else None)

    return Suite(name, tasks, partial(means, items="all pairs"))


def _task(suite: str, name: str, pairs: Sequence[MinimalPair]) -> Task:
    def grade(log_probs: Tensor) -> Outcome:
        margin = log_probs.view(-1, 2)[:, 0] - log_probs.view(-1, 2)[:, 1]
        rows = tuple(row for row in accuracies({name: margin}, suite=suite) if row.task == name)
        chosen = [(pair.good, pair.bad)[int(each < 0)] for pair, each in zip(pairs, margin.tolist(), strict=True)]
        return Outcome(rows, tuple({"id": f"{name}_{index}", "pred": f" {text}"} for index, text in enumerate(chosen)))

    return scored_task(name, pairs, [Request(pair.context + side) for pair in pairs for side in (pair.good, pair.bad)], grade)


FULL = pairs_suite("blimp-full", published=True)
FILTERED = pairs_suite("blimp", published=True)
FAST = pairs_suite("blimp-fast", published=True)
SUPPLEMENT = pairs_suite("supplement", published=True)
SUPPLEMENT_FAST = pairs_suite("supplement-fast", published=True)
