"""Entity tracking: what is in the box after so many moves?

The first of five options is right. Only the option is scored, given the story. A task is a split and its number of operations, 0 to 5; a
split is the mean over its numbers of operations, and "all" the mean over the three splits, as BabyLM 2025 averages.

Source: Kim and Schuster 2023, arXiv:2305.02363.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from torch import Tensor

from ritornello.evals.choices import choice_rows, choose
from ritornello.evals.files import Record, file_tasks
from ritornello.evals.means import macro
from ritornello.evals.report import Row
from ritornello.evals.subject import Request
from ritornello.evals.suite import Outcome, Suite, Task, scored_task, spread


def _tasks(path: Path, limit: int | None) -> list[Task]:
    return file_tasks(path, partial(_split, limit=limit), published="entity")


def _split(name: str, records: Sequence[Record], limit: int | None) -> list[Task]:
    by_operations: dict[int, list[tuple[str, list[str]]]] = {}
    for record in records:
        item = record.text("input_prefix"), record.texts("options")
        by_operations.setdefault(int(record.number("numops")), []).append(item)
    return [_task(f"{name}_{count}_ops", spread(items, limit)) for count, items in by_operations.items()]


def _task(name: str, items: Sequence[tuple[str, list[str]]]) -> Task:
    def grade(log_probs: Tensor) -> Outcome:
        scores = log_probs.split([len(options) for _, options in items])
        made = zip(items, choose(scores), strict=True)
        predictions = tuple({"id": f"{name}_{index}", "pred": options[choice]} for index, ((_, options), choice) in enumerate(made))
        return Outcome(tuple(choice_rows("entity", name, scores, [0] * len(items))), predictions)

    return scored_task(name, items, [Request(story + option, len(story)) for story, options in items for option in options], grade)


def _means(rows: Sequence[Row]) -> tuple[Row, ...]:
    found: list[Row] = []
    for metric in dict.fromkeys(row.metric for row in rows):
        splits: dict[str, list[Row]] = {}
        for row in rows:
            if row.metric == metric:
                splits.setdefault(row.task.rsplit("_", 2)[0], []).append(row)
        averaged = [macro(tasks, split) for split, tasks in splits.items()]
        found += [macro(averaged), *averaged]
    return tuple(found)


SUITE = Suite("entity", _tasks, _means)
