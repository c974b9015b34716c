"""Learning dynamics: any set of checkpoints on any suites, as one tidy table and a page.

FOLDER/table.jsonl                       a line for each number; the columns are in analysis/dynamics.py
FOLDER/table.parquet                     the same, where pyarrow is installed
FOLDER/report.html                       curves by words seen
FOLDER/checkpoints/RUN@1M/...            the evaluation of each checkpoint; what is finished is not run again
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from ritornello import folder, provenance
from ritornello.analysis.dynamics import HELD_OUT, TRAINING, Line, render
from ritornello.analysis.learning import read_log
from ritornello.analysis.phenomena import phenomenon
from ritornello.config import to_dict
from ritornello.errors import InputError
from ritornello.experiments.console import Console
from ritornello.experiments.machine import fast_reading, pick_device
from ritornello.experiments.subjects import at_words, open_subject
from ritornello.experiments.suites import data_folder, evaluate_sources, own_files, sources
from ritornello.mixers.layers import describe


@dataclass(frozen=True)
class Moment:
    """A run's weights at some moment of its training."""

    run: str
    mixer: str
    seed: int
    words: int
    step: int
    spec: str  # for open_subject: "RUN@1M", or "RUN" for the finished model


def dynamics(
    runs: Sequence[str | Path],
    suites: Sequence[str] = (),
    *,
    text: Sequence[str | Path] = (),
    data: str | Path | None = None,
    out: str | Path,
    limit: int | None = None,
    protocol: str = "ritornello",
    device: str = "auto",
    threshold: float | None = None,
    console: Console | None = None,
) -> list[Line]:
    """The table of all checkpoints on all suites, kept in `out` with its page.

    A run stands for all weights it kept by words and for its finished model; "RUN@1M" for one of them. The other names are those of
    `evaluate`; `threshold` is a score that "first to reach" asks for. Raises InputError.
    """
    console, out = console or Console(quiet=True), Path(out)
    chosen = [*(sources(suites, data_folder(data)) if suites else ()), *own_files(text=text)]
    if not chosen:
        raise InputError("nothing to evaluate: give --suite, or texts of your own with --text")
    asked, place = moments(runs), pick_device(device)
    table = [line for path in dict.fromkeys(at_words(str(run))[0] for run in runs) for line in losses(path)]
    out.mkdir(parents=True, exist_ok=True)
    data_sums: dict[str, str] = {}
    for number, moment in enumerate(asked, 1):
        console.say(f"checkpoint {number} of {len(asked)}: {moment.run} at {folder.words_name(moment.words)} words")
        kept = out / "checkpoints" / f"{moment.run}@{folder.words_name(moment.words)}"
        with fast_reading():
            report = evaluate_sources(open_subject(moment.spec, protocol, place), chosen, kept, console, limit)
        data_sums |= report.made_by.data
        table += [_line(moment, to_dict(row)) for row in report.rows if row.by == "model"]
    folder.write_bytes(out / "table.jsonl", "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in table).encode())
    _write_parquet(out / "table.parquet", table)
    folder.write_json(out / "provenance.json", to_dict(provenance.collect(data_sums)))
    folder.write_bytes(out / "report.html", render(out, threshold).encode())
    return table


def moments(runs: Sequence[str | Path]) -> list[Moment]:
    """The checkpoints that are meant, in the order of the runs and then of words. InputError if a run has none, or two have one name."""
    found: dict[str, Moment] = {}
    paths: dict[str, Path] = {}
    for spec in map(str, runs):
        path, words = at_words(spec)
        config, log = folder.read_config(path), read_log(path / "log.jsonl")
        name = path.resolve().name
        if paths.setdefault(name, path.resolve()) != path.resolve():
            raise InputError(f"{paths[name]} and {path.resolve()} have the same name; rename one")
        about = (name, describe(config["model"]["layers"]), config["train"]["seed"])
        kept = [words] if words is not None else list(folder.word_checkpoints(path))
        reached = {each: next((record["step"] for record in log if record["words"] >= each), 0) for each in kept}
        for each in kept:
            moment = Moment(*about, each, reached[each], f"{path}@{folder.words_name(each)}")
            found.setdefault(moment.spec, moment)
        if words is None and log and (path / "model.safetensors").exists() and log[-1]["step"] not in reached.values():
            found.setdefault(str(path), Moment(*about, log[-1]["words"], log[-1]["step"], str(path)))
        if not any(moment.run == name for moment in found.values()):
            raise InputError(f"{path}: no checkpoints; train with --checkpoint-words, or finish it with: ritornello resume {path}")
    order = list(paths)
    return sorted(found.values(), key=lambda moment: (order.index(moment.run), moment.words))


def losses(path: Path) -> list[Line]:
    """What a run's log says at each of its checks: bits per byte of the held-out text, and of training, the mean since the check before."""
    config, log = folder.read_config(path), read_log(path / "log.jsonl")
    about = {"run": path.resolve().name, "mixer": describe(config["model"]["layers"]), "seed": config["train"]["seed"]}
    checks = [index for index, record in enumerate(log) if record.get("held_out_bits_per_byte") is not None]
    table = []
    for before, index in pairwise([-1, *checks]):
        since, record = log[before + 1 : index + 1], log[index]
        values = ((TRAINING, sum(each["bits_per_byte"] for each in since) / len(since)), (HELD_OUT, record["held_out_bits_per_byte"]))
        for suite, value in values:
            where = {"words": record["words"], "step": record["step"], "suite": suite, "task": "all", "phenomenon": None}
            rest = {"metric": "bits per byte", "value": value, "stderr": None, "n": None, "chance": None, "reason": None}
            table.append(about | where | rest)
    return table


def _line(moment: Moment, row: dict[str, Any]) -> Line:
    about = {"run": moment.run, "mixer": moment.mixer, "seed": moment.seed, "words": moment.words, "step": moment.step}
    named = {"suite": row["suite"], "task": row["task"], "phenomenon": phenomenon(row["suite"], row["task"])}
    return about | named | {name: row[name] for name in ("metric", "value", "stderr", "n", "chance", "reason")}


def _write_parquet(path: Path, table: Sequence[Line]) -> None:
    """The table as Parquet, where pyarrow is installed (extra: data); an older file that would not agree goes."""
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        path.unlink(missing_ok=True)
        return
    part = path.with_name(f".{path.name}.part")
    parquet.write_table(pyarrow.Table.from_pylist(list(table)), part)
    part.replace(path)
