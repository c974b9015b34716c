"""Every mixer on every task: a folder of finished cells, a table, a page.

    config.json      the mixers and tasks asked for, and how all are trained
    cells.jsonl      a line for each finished trial, written the moment it is finished
    report.html      the heat-map and the curves; provenance.json: where the numbers come from

What is finished is not run again, so stopping costs no more than the trials under way, and a folder grows with what is asked.
"""

import json
import os
from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import fields
from pathlib import Path
from typing import Any, Protocol

import torch
from rich.table import Table

from ritornello import provenance
from ritornello.analysis import diagnosis
from ritornello.config import to_dict
from ritornello.diagnostics.trial import Trial, run
from ritornello.errors import InputError
from ritornello.jobs import spread

EACH = ("mixer", "task", "seed")  # what differs between the trials of a diagnosis


class Console(Protocol):
    """Where lines for a person go: those that stay, and those that are overwritten."""

    def say(self, line: str) -> None: ...
    def progress(self, line: str) -> None: ...


def trials(mixers: Sequence[str], tasks: Sequence[str], seeds: int, **training: Any) -> list[Trial]:
    """All trials, the first seed of everything before the second of anything. InputError for an unknown name or impossible setting."""
    if not (mixers and tasks and seeds > 0):
        raise InputError(f"{len(mixers)} mixers, {len(tasks)} tasks and {seeds} seeds: at least one of each is needed")
    asked = [(mixer, task, seed) for seed in range(seeds) for task in dict.fromkeys(tasks) for mixer in dict.fromkeys(mixers)]
    return [Trial(mixer=mixer, task=task, seed=seed, **training) for mixer, task, seed in asked]


def diagnose(asked: Sequence[Trial], out: Path, console: Console, jobs: int = 1) -> list[dict[str, Any]]:
    """Run what is not finished, `jobs` trials at a time, write the folder, and return its summary (analysis.diagnosis.summarise)."""
    if jobs < 1:
        raise InputError(f"--jobs: {jobs} is less than 1")
    _prepare(out, asked)
    done = {_key(cell) for cell in diagnosis.read_cells(out / "cells.jsonl")}
    left = [trial for trial in asked if _key(to_dict(trial)) not in done]
    console.say(f"{len(asked)} trials" + (f", {len(asked) - len(left)} of them finished before" if len(left) < len(asked) else ""))
    with open(out / "cells.jsonl", "a", encoding="utf-8") as file, closing(_cells(left, jobs, console)) as cells:
        for number, (_, cell) in enumerate(cells, 1):
            file.write(json.dumps(cell) + "\n")
            file.flush()
            console.say(f"{number} of {len(left)}: {_told(cell)}")
    page = out / "report.html"
    page.write_text(diagnosis.render(out), encoding="utf-8")
    console.say(f"page: {page}")
    return diagnosis.summarise(*diagnosis.load(out))


def table(rows: Sequence[dict[str, Any]], length: int) -> Table:
    """Tasks down, mixers across: the normalised score at four times the training length, of the middle seed."""
    shown = Table(box=None, pad_edge=False)
    shown.add_column(f"score at {diagnosis.AT * length}: 0 chance, 1 all right")
    mixers = list(dict.fromkeys(row["mixer"] for row in rows))
    for mixer in mixers:
        shown.add_column(mixer, justify="right", overflow="fold")
    found = {(row["task"], row["mixer"]): row["normalised"] for row in rows}
    for task in dict.fromkeys(row["task"] for row in rows):
        scores = [found.get((task, mixer)) for mixer in mixers]
        shown.add_row(task, *("–" if score is None else f"{score['median']:.2f}" for score in scores))
    return shown


def _prepare(out: Path, asked: Sequence[Trial]) -> None:
    """Make the folder; drop a line of cells.jsonl that a kill cut short; write config.json and provenance.json."""
    out.mkdir(parents=True, exist_ok=True)
    path = out / "cells.jsonl"
    if path.exists() and not path.read_bytes().endswith(b"\n"):
        _write(path, "".join(json.dumps(cell) + "\n" for cell in diagnosis.read_cells(path)))
    config: dict[str, Any] = {f"{name}s": list(dict.fromkeys(getattr(trial, name) for trial in asked)) for name in ("mixer", "task")}
    config["training"] = {name: value for name, value in to_dict(asked[0]).items() if name not in EACH}
    _write(out / "config.json", json.dumps(config, indent=2) + "\n")
    _write(out / "provenance.json", json.dumps(to_dict(provenance.collect()), indent=2) + "\n")


def _write(path: Path, text: str) -> None:
    """The whole file or none of it."""
    draft = path.with_name(path.name + ".tmp")
    draft.write_text(text, encoding="utf-8")
    os.replace(draft, path)


def _key(cell: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(cell.get(field.name) for field in fields(Trial))


def _cells(left: Sequence[Trial], jobs: int, console: Console) -> Generator[tuple[Trial, dict[str, Any]]]:
    """The trials and their cells as they are finished, on one thread each; progress is told of what runs here."""
    if jobs == 1 or len(left) < 2:
        return spread(lambda trial: run(trial, _progress(trial, console)), left)
    return spread(_alone, left, min(jobs, len(left)))


def _alone(trial: Trial) -> dict[str, Any]:
    """A trial in a process of its own."""
    torch.set_num_threads(1)
    return run(trial)


def _progress(trial: Trial, console: Console) -> Any:
    def tell(step: int, loss: float) -> None:
        console.progress(f"{trial.mixer} on {trial.task}, seed {trial.seed}: step {step:,} of {trial.steps:,}, loss {loss:.3f}")

    return tell


def _told(cell: dict[str, Any]) -> str:
    scores = cell.get("reason") or ", ".join(f"{point['score']:.2f} at {point['length']}" for point in cell["points"])
    return f"{cell['mixer']} on {cell['task']}, seed {cell['seed']}: {scores} ({cell['seconds']:.0f} s)"
