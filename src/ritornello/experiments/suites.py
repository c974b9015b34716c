"""An evaluation as a whole: suites of tasks, one after the other, what is finished kept.

    FOLDER/blimp/adjunct_island.json      rows and predictions of a task, and the key they belong to: subject, data, protocol
    FOLDER/results.json                   all rows, and where they come from

A task whose key has not changed is not run again, so a killed evaluation goes on where it was. A suite or task that cannot be read or
scored is a gap: a row without a value that says why, and the rest still runs.
"""

from pathlib import Path

from ritornello import provenance
from ritornello.config import from_dict, read_file, to_dict
from ritornello.errors import InputError
from ritornello.evals.report import Report, Row
from ritornello.evals.subject import Subject
from ritornello.evals.suite import Outcome, Task, suite
from ritornello.experiments.console import Console
from ritornello.folder import write_json


def evaluate_suites(subject: Subject, names: list[str], data: Path, out: Path, console: Console) -> Report:
    """Rows of all suites; everything is kept in `out`."""
    rows: list[Row] = []
    for name in names:
        entry = suite(name)
        try:
            loaded = entry.load()
            tasks = loaded.tasks(data / entry.path)
        except InputError as error:
            console.say(f"{name}: left out: {error}")
            rows.append(Row(name, "all", "score", None, reason=str(error)))
            continue
        found = [
            row for number, task in enumerate(tasks, 1) for row in _rows(subject, name, task, out, console, f"{number} of {len(tasks)}")
        ]
        rows += [*found, *loaded.means(found)]
    report = Report(tuple(rows), provenance.collect())
    write_json(out / "results.json", to_dict(report))
    return report


def _rows(subject: Subject, suite: str, task: Task, out: Path, console: Console, where: str) -> tuple[Row, ...]:
    key = {"subject": subject.sha256, "protocol": subject.protocol, "task": task.sha256}
    path = out / suite / f"{task.name}.json"
    if path.exists() and (kept := read_file(path)).get("key") == key:
        return tuple(from_dict(Row, row) for row in kept["rows"])
    try:
        outcome = task.run(subject, lambda done, whole: console.progress(f"{suite}, {where}: {task.name} {done / whole:.0%}"))
    except InputError as error:
        console.say(f"{suite}, {task.name}: left out: {error}")
        outcome = Outcome((Row(suite, task.name, "score", None, reason=str(error)),))
        return outcome.rows
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, {"key": key, "rows": [to_dict(row) for row in outcome.rows], "predictions": list(outcome.predictions)})
    return outcome.rows
