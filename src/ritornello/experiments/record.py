"""A line for every run: what it was, what it cost and what it scored, failures too. Tables and logs are rendered from such lines.

    {"study", "name", "system", "seed", "started", "words", "corpus", "data_sha256", "commit", "machine",
     "parameters", "parameters_without_embedding", "steps", "flop", "seconds", "config", "scores", "subtasks", "failed"}

`words` are those seen, each pass anew; `flop` and `seconds` are training's; `config` is what differs from the study's base, in dotted
keys; `scores` has the main figure of every suite, None where there is a gap, and `subtasks` those of its tasks.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ritornello import folder
from ritornello.analysis.numerals import is_fraction
from ritornello.config import differences, from_dict, read_file, to_dict
from ritornello.errors import InputError
from ritornello.experiments.flops import training_flop
from ritornello.experiments.settings import EvaluateConfig, RunConfig
from ritornello.experiments.statistics import Scores
from ritornello.mixers.layers import describe
from ritornello.model import LMConfig, parameters
from ritornello.train.loop import TrainConfig

TOLD = ("train.seed", "train.steps", "tokenizer.sha256", "train.threads", "train.keep_memory")  # elsewhere in the line, or not what it is
ABOUT = ("format", "plan", "minutes", "corpus", "licence", "imported", "checkpoint_every", "checkpoint_words", "evaluate")  # not what it is


def record(
    run: str | Path,
    study: str,
    system: str,
    *,
    name: str | None = None,
    base: RunConfig | Mapping[str, Any] | None = None,
    failed: str | None = None,
    also: Iterable[str | Path] = (),
) -> dict[str, Any]:
    """The line of a run folder; what was evaluated is read from its `evaluation` folder, if there is one.

    `also`: folders of further evaluations of the run, by other protocols, whose scores are called "blimp (official-2024)". `name` tells
    the runs of a system apart, and is the folder's if not given; `base` is the config that differences are told from, the package's
    defaults if not given; `failed` says why there is no result. InputError for a run that has neither results nor a reason.
    """
    path = Path(run)
    config = from_dict(RunConfig, folder.read_config(path))
    if failed is None and not (path / "results.json").exists():
        raise InputError(f"{path}: not finished, so there is nothing to record; go on with: ritornello resume {path}")
    made_by, results = _read(path / "provenance.json"), _read(path / "results.json")
    log = _last(path / "log.jsonl")
    steps = config.train.steps if results else int(log.get("step", 0))
    evaluation = _read(path / "evaluation" / "results.json")
    scores, subtasks = _scores(results.get("headline", {}), results.get("rows", []), evaluation)
    for each in also:
        more = read_file(Path(each) / "results.json")
        if more["subject"]["sha256"] != (evaluation or more)["subject"]["sha256"]:
            raise InputError(f"{each}: an evaluation of {more['subject']['name']} with other weights, not of {path}")
        for known, found in zip((scores, subtasks), _scores({}, [], more), strict=True):
            known |= {f"{name} ({more['subject']['protocol']})": value for name, value in found.items()}
    return {
        "study": study,
        "name": name or path.name,
        "system": system,
        "seed": config.train.seed,
        "started": made_by.get("started"),
        "words": results.get("words_seen", log.get("words", 0)),
        "corpus": config.corpus.name,
        "data_sha256": _combined(config.corpus.sources),
        "commit": made_by.get("commit"),
        "machine": _machine(made_by),
        "parameters": parameters(config.model),
        "parameters_without_embedding": parameters(config.model, embedding=False),
        "steps": steps,
        "flop": training_flop(config.model, config.train.length) * config.train.batch * config.train.length * steps,
        "seconds": results["cost"]["seconds"]["train"] if results else log.get("seconds", 0.0),
        "config": changes(base or _defaults(config), config),
        "scores": scores,
        "subtasks": subtasks,
        "failed": failed,
    }


def append(line: Mapping[str, Any], path: str | Path) -> None:
    """Add a line to a file of lines, durably, unless it is there already. Several processes may do so at once."""
    text = json.dumps(line, ensure_ascii=False, allow_nan=False).encode() + b"\n"
    with open(path, "a+b") as file:
        _lock(file)
        file.seek(0)
        data = file.read()
        if rest := data.rpartition(b"\n")[2]:  # a kill cut it short
            file.truncate(len(data) - len(rest))
        if text in data.splitlines(keepends=True):
            return
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def read(path: str | Path) -> list[dict[str, Any]]:
    """The lines of a file, oldest first, without one that a kill cut short. InputError for one that cannot be read."""
    if not Path(path).exists():
        return []
    lines = Path(path).read_bytes().rpartition(b"\n")[0].splitlines()
    found = []
    for number, line in enumerate(lines, 1):
        try:
            found.append(json.loads(line))
            _ = found[-1]["study"], found[-1]["scores"], found[-1]["failed"]
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"{path}: line {number} is no record of a run ({type(error).__name__}: {error}); restore or remove it"
            ) from error
    return found


def scores(lines: Iterable[Mapping[str, Any]], suite: str) -> dict[str, Scores]:
    """By system the scores by seed and subtask that experiments/statistics.py asks for; of two lines of a seed the later one.

    A suite without subtasks, such as "bits_per_byte", is one. Runs that failed or have a gap there are left out: say how many there are.
    """
    found: dict[str, dict[int, Mapping[str, float]]] = {}
    for line in lines:
        whole = line["scores"].get(suite)
        if line["failed"] is None and whole is not None:
            found.setdefault(line["system"], {})[line["seed"]] = line["subtasks"].get(suite) or {suite: whole}
    return dict(found)


def changes(base: RunConfig | Mapping[str, Any], other: RunConfig | Mapping[str, Any]) -> dict[str, Any]:
    """What `other` has otherwise, by dotted key, seed and steps apart; None for what it lacks. Layers are told as a pattern."""
    found = differences(*(_told(to_dict(config)) for config in (base, other)))
    return {name: values[1] for name, values in sorted(found.items()) if name not in TOLD}


def _defaults(config: RunConfig) -> dict[str, Any]:
    """What the package does if nothing is asked for, with this run's vocabulary."""
    named = {name: type(own)() for name, own in config.model.mixers.items()}
    model = LMConfig(vocab=config.model.vocab, mixers=named)
    return {"model": to_dict(model), "train": to_dict(TrainConfig(steps=1)), "evaluate": to_dict(EvaluateConfig())}


def _told(table: Mapping[str, Any]) -> dict[str, Any]:
    """What a run is, of its config: not where it ran or what it is called."""
    kept = {name: value for name, value in table.items() if name not in ABOUT}
    layers = {"layers": describe(table["model"]["layers"])} if "model" in table else {}
    return kept | {"model": table.get("model", {}) | layers, "evaluate": {"protocol": table.get("evaluate", {}).get("protocol")}}


def _scores(headline: Mapping[str, Any], own: list[dict[str, Any]], evaluation: Mapping[str, Any]) -> tuple[dict, dict]:
    """The main figure of every suite, and of its tasks: what is told first of them all."""
    whole: dict[str, float | None] = {}
    if headline:
        whole |= {"bits_per_byte": headline["bits_per_byte"], "ngram_bits_per_byte": headline["baseline_bits_per_byte"]}
    tasks: dict[str, dict[str, float | None]] = {}
    rows = [row for row in own if row["suite"] != "held-out"] + list(evaluation.get("rows", []))
    main: dict[str, str] = {}
    for row in rows:
        if row["task"] == "all" and row["by"] == "model" and row["suite"] not in main:
            main[row["suite"]] = row["metric"]
            name = row["suite"] if is_fraction(row["metric"]) or row["value"] is None else f"{row['suite']} {row['metric']}"
            whole[name] = row["value"]
        elif row["task"].startswith("all ") and row["task"].endswith(" here") and row["by"] == "model":
            whole[f"{row['suite']}, {row['task'].removeprefix('all ')}"] = row["value"]  # of some of a suite's tasks: no figure of it
    for row in rows:
        if row["metric"] == main.get(row["suite"]) and row["by"] == "model" and not row["task"].startswith("all"):
            tasks.setdefault(row["suite"], {})[row["task"]] = row["value"]
    return whole, tasks


def _machine(made_by: Mapping[str, Any]) -> str | None:
    """Where it ran, in a few words: one GPU, or some threads of a processor."""
    if not made_by:
        return None
    cores, threads = made_by["cores"], made_by["threads"]
    processor = f"{made_by['cpu']}, {threads} thread{'s' * (threads != 1)} of {cores} core{'s' * (cores != 1)}"
    return f"{made_by['gpu']}; {processor}" if made_by["gpu"] else processor


def _combined(sources: Mapping[str, str]) -> str:
    """One checksum of a corpus: that of its file, or of its files' checksums in order."""
    sums = sorted(sources.values())
    return sums[0] if len(sums) == 1 else hashlib.sha256("\n".join(sums).encode()).hexdigest()


def _read(path: Path) -> dict[str, Any]:
    return read_file(path) if path.exists() else {}


def _last(path: Path) -> dict[str, Any]:
    """The last whole line of a log."""
    lines = path.read_bytes().rpartition(b"\n")[0].splitlines() if path.exists() else []
    return json.loads(lines[-1]) if lines else {}


def _lock(file: Any) -> None:
    """Wait until no other process holds the file. Where there is no fcntl, one process writes at a time."""
    try:
        import fcntl
    except ImportError:
        return
    fcntl.flock(file, fcntl.LOCK_EX)
