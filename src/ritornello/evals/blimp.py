"""BLiMP and the challenge's supplement to it, as suites of minimal pairs: a subtask a file.

BLiMP: Warstadt et al. 2020, arXiv:1912.00582. "Filtered" keeps the pairs whose words all occur in the BabyLM text, "fast" 200 of each
subtask.
"""

from functools import partial
from pathlib import Path

from ritornello.evals.files import Record, file_tasks
from ritornello.evals.means import means
from ritornello.evals.pairs import pair_task, pairs_of
from ritornello.evals.suite import Suite, Task, spread


def pairs_suite(name: str, published: bool = False) -> Suite:
    """A suite of a folder, or a file, of minimal pairs; `published`: those of that name that everybody has."""

    def tasks(path: Path, limit: int | None) -> list[Task]:
        def make(subtask: str, records: list[Record]) -> list[Task]:
            return [pair_task(name, subtask, spread(pairs_of(records), limit))]

        return file_tasks(path, make, name if published else None)

    return Suite(name, tasks, partial(means, items="all pairs"))


FULL = pairs_suite("blimp-full", published=True)
FILTERED = pairs_suite("blimp", published=True)
FAST = pairs_suite("blimp-fast", published=True)
SUPPLEMENT = pairs_suite("supplement", published=True)
SUPPLEMENT_FAST = pairs_suite("supplement-fast", published=True)
