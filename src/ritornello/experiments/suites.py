"""An evaluation as a whole: suites of tasks, one after the other, what is finished kept.

    FOLDER/blimp/adjunct_island.json      rows and predictions of a task, and the key they belong to: subject, protocol, items, rules
    FOLDER/blimp@100/...                  the same of at most 100 items a task
    FOLDER/results.json                   all rows, and where they come from

A task whose key has not changed is not run again, so a killed evaluation goes on where it was. A suite or task that cannot be read or
scored is a gap: a row without a value that says why; the rest still runs, and a mean over a gap has no value either.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from ritornello import folder, provenance
from ritornello.config import from_dict, read_file, to_dict
from ritornello.errors import InputError
from ritornello.evals.report import Report, Row
from ritornello.evals.scoring import Progress
from ritornello.evals.subject import Subject
from ritornello.evals.suite import RULES, Suite, Task, digest, suite
from ritornello.experiments.console import Console, clock


class Source(NamedTuple):
    """A suite, and where its files lie."""

    suite: Suite
    path: Path


@dataclass(frozen=True)
class Kept:
    """What a task came to, as it lies on the disk."""

    key: dict[str, str]
    seconds: float
    rows: tuple[Row, ...]
    predictions: tuple[dict[str, Any], ...]


def evaluate_suites(subject: Subject, names: Sequence[str], data: Path, out: Path, console: Console, limit: int | None = None) -> Report:
    """Rows of the named suites of a data folder; everything is kept in `out`."""
    return evaluate_sources(subject, sources(names, data), out, console, limit)


def sources(names: Sequence[str], data: Path) -> list[Source]:
    """The named suites of a data folder. InputError for a name that is none."""
    return [Source(suite(name).load(), data / suite(name).path) for name in names]


def evaluate_sources(subject: Subject, chosen: Sequence[Source], out: Path | None, console: Console, limit: int | None = None) -> Report:
    """Rows of all suites, each of at most `limit` items a task; kept in `out` unless that is None."""
    if out is None:
        return _report(subject, chosen, None, console, limit)
    out.mkdir(parents=True, exist_ok=True)
    with folder.locked(out):
        report = _report(subject, chosen, out, console, limit)
        folder.write_json(out / "results.json", to_dict(report))
    return report


def _report(subject: Subject, chosen: Sequence[Source], out: Path | None, console: Console, limit: int | None) -> Report:
    rows: list[Row] = []
    data, seconds = {}, {}
    for wanted, path in chosen:
        name = wanted.name if limit is None else f"{wanted.name} (at most {limit:,} items a task)"
        try:
            tasks = wanted.tasks(path, limit)
        except InputError as error:
            console.say(f"{name}: left out: {error}")
            rows.append(Row(name, "all", "score", None, reason=str(error)))
            continue
        below = out and out / (wanted.name if limit is None else f"{wanted.name}@{limit}")
        found, seconds[name] = _suite(subject, wanted, tasks, below, console)
        rows += [replace(row, suite=name) for row in found]
        data[name] = digest([task.sha256 for task in tasks])
    about = {"name": subject.name, "sha256": subject.sha256, "protocol": subject.protocol}
    return Report(tuple(rows), provenance.collect(data), about, seconds)


def _suite(subject: Subject, wanted: Suite, tasks: Sequence[Task], out: Path | None, console: Console) -> tuple[list[Row], float]:
    """Rows of all tasks and of the means over them, and the seconds that the tasks took, when they were run."""
    rows: list[Row] = []
    gaps: list[Row] = []
    seconds, began, run = 0.0, time.monotonic(), 0
    for number, task in enumerate(tasks):
        path = out and out / f"{task.name}.json"
        kept = _kept(subject, task, path, console)
        if kept is None:
            start = time.monotonic()
            try:
                outcome = task.run(subject, _shown(console, wanted.name, task.name, number, len(tasks), began, run))
            except InputError as error:
                console.say(f"{wanted.name}, {task.name}: left out: {error}")
                gaps.append(Row(wanted.name, task.name, "score", None, reason=str(error)))
                continue
            kept = Kept(_key(subject, task), round(time.monotonic() - start, 3), outcome.rows, outcome.predictions)
            run += 1
            if path is not None:
                path.parent.mkdir(parents=True, exist_ok=True)
                folder.write_json(path, to_dict(kept))
        rows += kept.rows
        seconds += kept.seconds
    return [*rows, *gaps, *_means(wanted, rows, gaps)], seconds


def _means(wanted: Suite, rows: list[Row], gaps: list[Row]) -> tuple[Row, ...]:
    """The rows over all tasks; without a value, and naming the gaps, if there are any."""
    if not gaps:
        return wanted.means(rows)
    reason = f"no value for {', '.join(gap.task for gap in gaps)}"
    means = wanted.means(rows) if rows else (Row(wanted.name, "all", "score", None, reason=reason),)
    return tuple(replace(row, value=None, stderr=None, reason=reason) for row in means)


def _key(subject: Subject, task: Task) -> dict[str, str]:
    return {"subject": subject.sha256, "protocol": subject.protocol, "task": task.sha256, "rules": str(RULES)}


def _kept(subject: Subject, task: Task, path: Path | None, console: Console) -> Kept | None:
    """What was kept of the task, if it is still what the task would come to."""
    if path is None or not path.exists():
        return None
    try:
        found = from_dict(Kept, read_file(path))
    except (InputError, AssertionError) as error:
        console.say(f"{path}: damaged, so it is scored again ({error})")
        return None
    return found if found.key == _key(subject, task) else None


def _shown(console: Console, suite: str, task: str, number: int, count: int, began: float, run: int) -> Progress:
    """A bar over the tasks of a suite, and the time left if the rest goes on as the tasks that were `run` did."""

    def progress(done: int, whole: int) -> None:
        part = done / max(1, whole)
        share = (number + part) / count
        left = (time.monotonic() - began) / max(run + part, 1e-9) * (count - number - part)
        bar = "█" * round(20 * share)
        console.progress(f"{suite} {bar:░<20} {share:4.0%}  {clock(left)} left  {number + 1} of {count}: {task}")

    return progress
