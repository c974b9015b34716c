"""An evaluation as a whole: suites of tasks, one after the other, what is finished kept.

    FOLDER/blimp/adjunct_island.json      rows and predictions of a task, and the key they belong to: subject, protocol, items, rules
    FOLDER/blimp@100/...                  the same of at most 100 items a task
    FOLDER/results.json                   all rows, and where they come from
    FOLDER/report.html                    the page made of them

A task whose key has not changed is not run again, so a killed evaluation goes on where it was. A suite or task that cannot be read or
scored is a gap: a row without a value that says why; the rest still runs, and a mean over a gap has no value either.
"""

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from glob import has_magic
from pathlib import Path
from typing import Any, NamedTuple

from ritornello import folder, provenance
from ritornello.analysis.evaluation_page import render
from ritornello.config import from_dict, read_file, to_dict
from ritornello.errors import InputError
from ritornello.evals.blimp import pairs_suite
from ritornello.evals.files import bare_name
from ritornello.evals.lastword import last_words_suite
from ritornello.evals.published import CAVEAT, PUBLISHED
from ritornello.evals.report import Report, Row
from ritornello.evals.scoring import Progress
from ritornello.evals.statements import statements_suite
from ritornello.evals.subject import Subject
from ritornello.evals.suite import RULES, SUITES, Suite, Task, digest, only, suite
from ritornello.evals.text import text_suite
from ritornello.experiments.console import Console, clock
from ritornello.experiments.machine import fast_reading, pick_device
from ritornello.experiments.predictions import write_predictions
from ritornello.experiments.subjects import of_run, open_subject
from ritornello.folder import Loaded

OWN: dict[str, Callable[[str], Suite]] = {
    "pairs": pairs_suite,
    "text": text_suite,
    "statements": statements_suite,
    "last_words": last_words_suite,
}
DATA = "RITORNELLO_DATA"  # names the data folder where no other is given


class Source(NamedTuple):
    """A suite, and where its files lie."""

    suite: Suite
    path: Path
    only: tuple[str, ...] = ()  # the names of tasks, where not all were asked for

    def label(self, limit: int | None) -> str:
        """The suite's name, and what there is to know of a part of it."""
        parts = [f"only {', '.join(self.only)}"] if self.only else []
        parts += [f"at most {limit:,} item{'s' * (limit > 1)} a task"] if limit is not None else []
        return self.suite.name + (f" ({'; '.join(parts)})" if parts else "")


@dataclass(frozen=True)
class Kept:
    """What a task came to, as it lies on the disk."""

    key: dict[str, str]
    seconds: float
    rows: tuple[Row, ...]
    predictions: tuple[dict[str, Any], ...]


def evaluate(
    model: Loaded | str | Path,
    suites: Sequence[str] = (),
    *,
    pairs: Sequence[str | Path] = (),
    text: Sequence[str | Path] = (),
    statements: Sequence[str | Path] = (),
    last_words: Sequence[str | Path] = (),
    data: str | Path | None = None,
    out: str | Path | None = None,
    limit: int | None = None,
    tasks: Sequence[str] = (),
    seeds: Sequence[int] = (),
    protocol: str = "ritornello",
    device: str = "auto",
    predictions: str | Path | None = None,
    console: Console | None = None,
) -> Report:
    """Scores of a model on suites of benchmarks and on files of your own; the names are those of the options of `ritornello evaluate`.

    `model` is what `load` gave, a run folder, or a Hugging Face model; `suites` are names out of SUITES, or "all"; `data` is the folder
    their files lie in, RITORNELLO_DATA if not given; of the suites only `tasks` are run, if any are named, and fine-tuning once for each of
    `seeds`, the suite's own if none are given. `device` is where to compute ("auto": on a GPU if there is one); a model that `load` gave
    stays where it is. With `out` every finished task is kept there, and not run again; `predictions` is a
    file for its decisions, see experiments/predictions.py. Raises InputError.
    """
    if limit is not None and limit < 1:
        raise InputError(f"--limit: {limit} is less than 1")
    own = own_files(pairs=pairs, text=text, statements=statements, last_words=last_words)
    chosen = [*(sources(suites, data_folder(data), tasks, seeds) if suites else ()), *own]
    if (tasks or seeds) and not suites:
        raise InputError("--tasks and --seeds are of suites; name one with --suite")
    if not chosen:
        raise InputError(f"nothing to evaluate: give --suite, or files of your own with --{', --'.join(OWN).replace('_', '-')}")
    if predictions is not None and out is None:
        raise InputError("predictions: they are made of what an evaluation keeps; give it a folder with out")
    place = pick_device(device)
    subject = of_run(model, protocol) if isinstance(model, Loaded) else open_subject(str(model), protocol, place)
    console = console or Console(quiet=True)
    with fast_reading():
        report = evaluate_sources(subject, chosen, None if out is None else Path(out), console, limit)
    if predictions is not None and out is not None:
        for lacking in write_predictions(Path(out), Path(predictions), data_folder(data)):
            console.say(f"{predictions}: {lacking}")
    return report


def evaluate_suites(subject: Subject, names: Sequence[str], data: Path, out: Path, console: Console, limit: int | None = None) -> Report:
    """Rows of the named suites of a data folder; everything is kept in `out`."""
    return evaluate_sources(subject, sources(names, data), out, console, limit)


def data_folder(given: str | Path | None) -> Path:
    """The folder of the benchmarks' files. InputError if none is named, or there is none of that name."""
    named = given or os.environ.get(DATA)
    if not named:
        raise InputError(f"where do the benchmarks' files lie? give --data FOLDER, or set {DATA}")
    if not Path(named).is_dir():
        raise InputError(f"{named}: no such folder, so there are no benchmarks in it; give another with --data or {DATA}")
    return Path(named)


def shelf(data: str | Path | None) -> list[dict[str, Any]]:
    """The suites there are, where their files should lie, and whether they do; None where no data folder is named."""
    folder = data_folder(data) if data or os.environ.get(DATA) else None
    return [
        {"suite": name, "path": str((folder or Path(DATA)) / entry.path), "there": folder and (folder / entry.path).exists()}
        for name, entry in SUITES.items()
    ]


def sources(names: Sequence[str], data: Path, tasks: Sequence[str] = (), seeds: Sequence[int] = ()) -> list[Source]:
    """The named suites of a data folder, of each these tasks only, trained from these seeds, if any are given. "all" is every suite whose
    files are there, less those of hours. InputError for other names, and for seeds where nothing is trained.
    """
    if "all" in names:
        there = [name for name, entry in SUITES.items() if not entry.hours and (data / entry.path).exists()]
        names = [each for name in names for each in (there if name == "all" else [name])]
        if not names:
            raise InputError(f"{data}: holds none of the benchmarks; `ritornello evaluate` lists what they are and where they should lie")
    chosen = {name: (suite(name).load(), data / suite(name).path) for name in names}
    if seeds:
        if not any(wanted.seeded for wanted, _ in chosen.values()):
            raise InputError(f"--seeds: nothing is trained in {', '.join(chosen)}, so no seed changes it; leave it out")
        chosen = {name: (wanted.seeded(tuple(seeds)) if wanted.seeded else wanted, path) for name, (wanted, path) in chosen.items()}
    return [Source(only(wanted, tasks) if tasks else wanted, path, tuple(tasks)) for wanted, path in chosen.values()]


def own_files(**files: Sequence[str | Path]) -> list[Source]:
    """Suites of a user's own files, by kind. InputError for a file that is not there."""
    found = []
    for kind, paths in files.items():
        for path in map(Path, paths):
            if not path.exists() and str(path) != "-" and not has_magic(str(path)):
                raise InputError(f"{path}: no such file or folder")
            found.append(Source(OWN[kind](bare_name(path) or path.name), path))
    return found


def evaluate_sources(subject: Subject, chosen: Sequence[Source], out: Path | None, console: Console, limit: int | None = None) -> Report:
    """Rows of all suites, each of at most `limit` items a task; kept in `out` unless that is None."""
    names = [source.suite.name for source in chosen]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise InputError(f"two suites are called {twice[0]}; rename a file, or leave one out")
    if out is None:
        return _report(subject, chosen, None, console, limit)
    out.mkdir(parents=True, exist_ok=True)
    with folder.locked(out):
        report = _report(subject, chosen, out, console, limit)
        folder.write_json(out / "results.json", to_dict(report))
        folder.write_bytes(out / "report.html", render(out, to_dict(PUBLISHED), CAVEAT).encode())
    return report


def _report(subject: Subject, chosen: Sequence[Source], out: Path | None, console: Console, limit: int | None) -> Report:
    rows: list[Row] = []
    data, seconds = {}, {}
    for source in chosen:
        wanted, path, _ = source
        name = source.label(limit)
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
    if not rows:  # a task that stands for the whole suite is called "all" itself
        return () if gaps[0].task == "all" else (Row(wanted.name, "all", "score", None, reason=reason),)
    return tuple(replace(row, value=None, stderr=None, reason=reason) for row in wanted.means(rows))


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
