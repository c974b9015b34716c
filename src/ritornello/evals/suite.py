"""What an evaluation is made of: suites of tasks, each of which turns a subject into rows and predictions.

    for task in SUITES["blimp"].load().tasks(folder, None):
        outcome = task.run(subject, progress)

A suite is one module of this package that reads its files and says how its tasks are graded and averaged; its line in SUITES is all that
the command, the cache, the table and the page need. A suite or task that cannot be read is a gap: a row without a value, with the reason.
"""

import hashlib
import importlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from torch import Tensor

from ritornello.errors import InputError, unknown
from ritornello.evals.report import Row
from ritornello.evals.scoring import Progress
from ritornello.evals.subject import Request, Subject

SEED = ".seed-"  # before the number, in the names of a task's further runs
RULES = 1  # raised when the same items would be scored otherwise, so that no kept result outlives a rule

T = TypeVar("T")


class Outcome(NamedTuple):
    rows: tuple[Row, ...]
    predictions: tuple[dict[str, Any], ...] = ()  # one an item, as the challenge's file wants it; never the text of a protected item


@dataclass(frozen=True)
class Task:
    """One subtask. What it gives is a function of the subject and of what `sha256` covers: its items and how they are scored."""

    name: str
    sha256: str
    run: Callable[[Subject, Progress | None], Outcome]


@dataclass(frozen=True)
class Suite:
    name: str
    tasks: Callable[[Path, int | None], Sequence[Task]]  # of its folder or file, each of at most so many items (see `spread`)
    means: Callable[[Sequence[Row]], tuple[Row, ...]]  # rows over all tasks, the main figure first; not asked where a task is a gap
    seeded: Callable[[tuple[int, ...]], "Suite"] | None = None  # the same with other seeds, where weights are trained


def only(suite: Suite, names: Sequence[str]) -> Suite:
    """The tasks of these names and no others. Asked for them it raises InputError for a name that the suite does not have."""

    def tasks(path: Path, limit: int | None) -> list[Task]:
        whole = suite.tasks(path, limit)
        known = {task.name.partition(SEED)[0] for task in whole}
        for name in names:
            if name not in known:
                raise unknown(f"task of {suite.name}", name, sorted(known))
        return [task for task in whole if task.name.partition(SEED)[0] in names]

    return replace(suite, tasks=tasks)


def scored_task(name: str, items: Sequence[Any], requests: Sequence[Request], grade: Callable[[Tensor], Outcome]) -> Task:
    """A task whose items are requests: `grade` is given their log-probabilities, in order. `items`: JSON values that say all about it."""

    def run(subject: Subject, progress: Progress | None) -> Outcome:
        return grade(subject.log_probs(requests, progress))

    return Task(name, digest([name, list(items)]), run)


def spread(items: Sequence[T], limit: int | None) -> Sequence[T]:
    """At most `limit` of the items, evenly spaced."""
    if limit is None or len(items) <= limit:
        return items
    if limit < 1:
        raise InputError(f"limit: at least 1 item a task is needed, found {limit}")
    return [items[place * len(items) // limit] for place in range(limit)]


def digest(value: Any) -> str:
    """SHA-256 of a JSON value."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, ensure_ascii=False).encode("utf-8", "surrogatepass")).hexdigest()


@dataclass(frozen=True)
class Entry:
    """Where a suite is, and where its files lie in the data folder."""

    module: str  # "ritornello.evals.blimp:filtered", imported when asked for
    path: str
    hours: bool = False  # too long to be part of "all"

    def load(self) -> Suite:
        module, name = self.module.split(":")
        return getattr(importlib.import_module(module), name)


SUITES: dict[str, Entry] = {
    "blimp": Entry("ritornello.evals.blimp:FILTERED", "babylm_eval/blimp_filtered"),
    "blimp-full": Entry("ritornello.evals.blimp:FULL", "blimp/data"),
    "blimp-fast": Entry("ritornello.evals.blimp:FAST", "babylm_eval/blimp_fast"),
    "supplement": Entry("ritornello.evals.blimp:SUPPLEMENT", "babylm_eval/supplement_filtered"),
    "supplement-fast": Entry("ritornello.evals.blimp:SUPPLEMENT_FAST", "babylm_eval/supplement_fast"),
    "ewok": Entry("ritornello.evals.ewok:FILTERED", "ewok"),
    "ewok-full": Entry("ritornello.evals.ewok:FULL", "ewok"),
    "bear": Entry("ritornello.evals.bear:SUITE", "bear/BEAR"),
    "bear-big": Entry("ritornello.evals.bear:BIG", "bear/BEAR-big", hours=True),
    "entity": Entry("ritornello.evals.entity:SUITE", "babylm_eval/entity_tracking"),
    "wug": Entry("ritornello.evals.wug:SUITE", "babylm_eval"),
    "reading": Entry("ritornello.evals.reading:SUITE", "babylm_eval/reading"),
    "glue": Entry("ritornello.evals.glue:GLUE", "glue"),
    "glue-2024": Entry("ritornello.evals.glue:GLUE_2024", "glue"),
    "glue-2025": Entry("ritornello.evals.glue:GLUE_2025", "glue"),
}


def suite(name: str) -> Entry:
    """The entry of that name; InputError naming the nearest if there is none."""
    if name not in SUITES:
        raise unknown("suite", name, SUITES)
    return SUITES[name]
