"""What teachers gain: students and controls on one held-out text and on the benchmarks, and what their seeds allow to say."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from rich.markup import escape
from rich.table import Table
from torch import nn

from ritornello import folder
from ritornello.analysis.learning import read_log
from ritornello.analysis.numerals import score
from ritornello.analysis.scores import title
from ritornello.config import read_file
from ritornello.evals.perplexity import difference, held_out
from ritornello.evals.scoring import Scored
from ritornello.experiments import statistics
from ritornello.experiments.console import Console
from ritornello.experiments.evaluation import score_sample
from ritornello.experiments.machine import pick_device
from ritornello.experiments.material import Material
from ritornello.experiments.record import scores
from ritornello.experiments.settings import RunConfig
from ritornello.experiments.summary import render

CONTROL, BITS = "control", "bits_per_byte"


class Pupil(NamedTuple):
    """A run that is to be made."""

    system: str  # student, control, ...
    nth: int  # of the seeds
    path: Path
    config: RunConfig
    material: Material
    flop: float  # of its training, and of what its teachers did for it

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def failed(self) -> str | None:
        """Why there is no model, if there is none."""
        file = self.path / "failed.json"
        return str(read_file(file)["reason"]) if file.exists() else None


def results(
    done: Sequence[Pupil], lines: Sequence[dict[str, Any]], config: RunConfig, material: Material, console: Console
) -> dict[str, Any]:
    """All runs and the teachers on the held-out text of `material`, each run beside its seed's control; and the means over seeds.

    `lines`: of the runs, as experiments/record.py makes them. Where a run failed there is a row with the reason, and no mean.
    """
    torch.set_num_threads(config.train.threads)
    sample = material.sample(config.evaluate.held_out_tokens)
    scored: dict[str, Scored] = {}
    rows: dict[str, dict[str, Any]] = {}

    def ask(name: str, model: Any) -> None:
        console.progress(f"scoring {len(sample.ids):,} held-out tokens with {name}")
        scored[name] = each = score_sample(model, config, material, sample)[0]
        bits = held_out(each.nats, each.documents, material.nbytes(each.targets))[0]
        rows[name] = {"name": name, BITS: bits.value, "stderr": bits.stderr, "parameters": _size(model)}

    school = done[-1].material.school
    assert school is not None, "a student has teachers"
    if config.teach is None or config.teach.match == "tokens":
        for spec, subject in zip(school.config.teachers, school.subjects, strict=True):
            ask(f"teacher {spec}", subject.model)
    controls = {pupil.nth: pupil for pupil in done if pupil.system == CONTROL and not pupil.failed}
    for pupil, line in zip(done, lines, strict=True):
        if pupil.failed:
            rows[pupil.name] = {"name": pupil.name, "failed": pupil.failed}
        else:
            ask(pupil.name, folder.load(pupil.path).model.to(pick_device(config.train.device)))
        rows[pupil.name] |= _about(pupil, line)
    for pupil in done:
        control = controls.get(pupil.nth)
        if control and pupil.system != CONTROL and not pupil.failed:
            own, other = scored[pupil.name], scored[control.name]
            apart = difference(own.nats, other.nats, own.documents, material.nbytes(own.targets), than=CONTROL)
            rows[pupil.name]["minus_control"] = {"value": apart.value, "stderr": apart.stderr}
    measured = [line | {"scores": _benchmarks(line) | {BITS: rows[line["name"]].get(BITS)}} for line in lines]
    return {"rows": list(rows.values()), "systems": _systems(measured, done), "gains": _gains(measured), "held_out": material.corpus.name}


def table(found: dict[str, Any], out: Path) -> str:
    """What `distill` found, for a terminal."""
    shown = Table(box=None, pad_edge=False)
    suites = list(dict.fromkeys(suite for row in found["rows"] for suite in row.get("scores", {})))
    for name in ("run", "alpha", "steps", "FLOP", "seconds", "bits per byte", "minus the control", *suites):
        shown.add_column(name, justify="left" if name == "run" else "right")
    for row in found["rows"]:
        numbers = ("",) * 4
        if "alpha" in row:
            numbers = f"{row['alpha']:g}", f"{row['steps']:,}", f"{row['flop']:.3g}", f"{row['seconds']:,.0f}"
        apart = _signed(**row["minus_control"]) if "minus_control" in row else ""
        told = [row.get("scores", {}).get(suite) for suite in suites]
        bits = "failed" if "failed" in row else score("bits per byte", row[BITS], row["stderr"])
        shown.add_row(escape(row["name"]), *numbers, bits, apart, *(_value(row, value) for value in told))
    scope = f"On the held-out text of {found['held_out']}. Intervals (95 %) are over its documents"
    lost = [f"failed: {row['name']}: {row['failed']}" for row in found["rows"] if "failed" in row]
    several = any(gain["low"] is not None for gain in found["gains"])
    scope += ", below over seeds and subtasks." if several else "; one run each says nothing of other seeds."
    said = [gain["sentence"] for gain in found["gains"]] if several else []
    changed = [f"{name}: {was} in the student, {now} in the control" for name, (was, now) in found["differences"].items()]
    if any("alpha" in row and row["system"] == CONTROL for row in found["rows"]):
        last = ["The control differs from the last student in nothing but this:", *changed]
    else:
        last = ["No control was run (--no-control)."]
    return "\n".join([render(shown), scope, *said, *lost, *last, f"page: {out / 'report.html'}"])


def _systems(lines: Sequence[dict[str, Any]], done: Sequence[Pupil]) -> list[dict[str, Any]]:
    """Each kind of student, and the control: means over seeds, and what a run cost."""
    names = list(dict.fromkeys(name for line in lines for name in line["scores"]))
    found = []
    for system in dict.fromkeys(line["system"] for line in lines):
        own = [line for line in lines if line["system"] == system]
        failed = sum(line["failed"] is not None for line in own)
        means = {name: scores(own, name).get(system) for name in names if not failed}
        told = {name: statistics.estimate(each) for name, each in means.items() if each}
        config = next(pupil.config for pupil in done if pupil.system == system)
        found.append(
            {
                "system": system,
                "seeds": len(own) - failed,
                "failed": failed,
                "alpha": config.teach.alpha if config.teach else 0.0,
                "steps": config.train.steps,
                **{name: own[0][name] for name in ("parameters", "flop")},
                "scores": {name: {key: getattr(each, key) for key in ("value", "sd", "low", "high")} for name, each in told.items()},
            }
        )
    return found


def _gains(lines: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """For each kind of student and each score how far its mean over seeds lies from the control's."""
    systems, failed = list(dict.fromkeys(line["system"] for line in lines)), {line["system"] for line in lines if line["failed"]}
    if CONTROL not in systems or CONTROL in failed:
        return []
    found = []
    for name in dict.fromkeys(name for line in lines for name in line["scores"]):
        own = scores(lines, name)
        for system in systems:
            if system != CONTROL and system not in failed and {system, CONTROL} <= own.keys():
                gain = statistics.difference(own[system], own[CONTROL])
                what, metric = ("held-out text", "bits per byte") if name == BITS else (title(name), "accuracy")
                about = {"system": system, "score": name, "value": gain.value, "low": gain.low, "high": gain.high}
                found.append(about | {"sentence": statistics.conclude(system, CONTROL, gain, what, metric)})
    return found


def _benchmarks(line: dict[str, Any]) -> dict[str, float | None]:
    return {suite: value for suite, value in line["scores"].items() if not suite.endswith(BITS)}


def _about(pupil: Pupil, line: dict[str, Any]) -> dict[str, Any]:
    """What a row tells of a run beside its bits per byte."""
    assert pupil.config.teach is not None, "a student has teachers"
    told = {name: line[name] for name in ("system", "seed", "steps", "flop", "seconds")}
    held = [(each["step"], each.get("held_out_bits_per_byte")) for each in read_log(pupil.path / "log.jsonl")]
    curve = [[pupil.flop * step / pupil.config.train.steps, bits] for step, bits in held if bits is not None]
    return {"path": str(pupil.path), "alpha": pupil.config.teach.alpha, **told, "scores": _benchmarks(line), "curve": curve}


def _value(row: dict[str, Any], value: float | None) -> str:
    """A score in the table; teachers have none, a run's may be missing."""
    return score("accuracy", value) if value is not None else "no value" if "scores" in row else ""


def _signed(value: float, stderr: float | None) -> str:
    return f"{value:+.4f}" + (f" ± {1.96 * stderr:.4f}" if stderr is not None else "")


def _size(model: nn.Module) -> int:
    return sum(weight.numel() for weight in model.parameters())
