"""Students of trained models, beside the control: what the same computation buys without a teacher.

    OUT/student              or student-alpha-0.25 ... for a grid, generation-1 ... for students of students
    OUT/control              the last student's config with teach.alpha 0 and more steps: its training costs what the students'
                             training and their teachers' reading or writing cost together, within a step
    OUT/written              the corpus, where a teacher writes it
    OUT/distill.json         what came of all of them, on the same held-out text
    OUT/results.jsonl        a line a run, as everywhere; its flop are those of the teachers too

Every run is an ordinary run folder. The same command goes on where it was stopped. Students of students: Furlanello et al. 2018,
arXiv:1805.04770 (born-again networks), each with the one before as its only teacher.
"""

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from rich.markup import escape
from rich.table import Table
from torch import nn

from ritornello import folder
from ritornello.analysis.numerals import score
from ritornello.config import differences, from_dict, override, to_dict
from ritornello.errors import InputError, unknown
from ritornello.evals.perplexity import difference, held_out
from ritornello.evals.scoring import Scored
from ritornello.experiments.console import Console
from ritornello.experiments.evaluation import score_sample
from ritornello.experiments.flops import forward_flop, training_flop
from ritornello.experiments.lessons import School, open_teacher
from ritornello.experiments.material import Material
from ritornello.experiments.record import record
from ritornello.experiments.run import begin, prepare, resume
from ritornello.experiments.settings import Request, RunConfig
from ritornello.experiments.subjects import at_words, is_run
from ritornello.experiments.summary import render
from ritornello.experiments.writing import write_corpus
from ritornello.folder import words_of
from ritornello.model import LM
from ritornello.train import PRESETS

SHAPE = ("mixer", "channel", "dim", "layers")  # any of them makes a student of its own shape
OF_SHAPE = ("lr", "carry")  # settings of training that another shape does not take over
STEP = ("steps", "batch", "length", "lr", "threads")  # settings of training that a request has by themselves


@dataclass(frozen=True, kw_only=True)
class Distillation:
    """What is asked for: the options of `ritornello distill`. None: the preset's, or as below."""

    teachers: tuple[str, ...]
    out: str = "distilled"
    preset: str | None = None
    alpha: tuple[float, ...] | None = None  # several: a student of each; a half, or 0 on a written corpus
    teach: dict[str, Any] = field(default_factory=dict)  # further fields of TeachConfig
    generations: int = 1
    written: str | None = None  # words of the corpus that the teacher writes, such as 1M; None: the corpus is read
    control: bool = True
    student: dict[str, Any] = field(default_factory=dict)  # fields of Request; None and what is not given: as the first teacher's run

    def __post_init__(self) -> None:
        if self.preset is not None and self.preset not in PRESETS:
            raise unknown("preset", self.preset, PRESETS)
        if self.generations < 1:
            raise InputError(f"--generations: {self.generations} is less than 1")
        if self.generations > 1 and (len(self.alphas) > 1 or self.written is not None):
            raise InputError("--generations goes with one --alpha and a corpus that is read; leave the grid or --written out")

    @property
    def alphas(self) -> tuple[float, ...]:
        """The shares of the teachers, one for each student."""
        if self.alpha is not None:
            return self.alpha
        if self.written is not None:
            return (0.0,)
        return PRESETS[self.preset]["alpha"] if self.preset else (0.5,)


class Pupil(NamedTuple):
    """A run that is to be made."""

    name: str
    path: Path
    config: RunConfig
    material: Material
    flop: float  # of its training, and of what its teachers did for it


def distill(asked: Distillation, console: Console | None = None) -> dict[str, Any]:
    """Train the students and the control, or what is missing of them; distill.json as plain values. InputError, and Stopped as `run`."""
    console, out = console or Console(quiet=True), Path(asked.out)
    out.mkdir(parents=True, exist_ok=True)
    done: list[Pupil] = []
    with folder.locked(out):
        for pupil in _pupils(asked, out, console):
            _train(pupil, console)
            done.append(pupil)
        if asked.control:
            control = _control(asked, done, out, console)
            for name, (was, now) in unlike(done[-1].config, control.config).items():
                console.say(f"the control differs from {done[-1].name} in {name}: {now} instead of {was}")
            _train(control, console)
            done.append(control)
        lines = [record(pupil.path, "distill", pupil.name, base=done[0].config) | {"flop": pupil.flop} for pupil in done]
        found = _results(asked, done, lines, console)
        folder.write_bytes(out / "results.jsonl", "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines).encode())
        folder.write_json(out / "distill.json", found)
    return found


def asked_of(options: dict[str, Any]) -> Distillation:
    """From the options of the command line, where None is not given. InputError for what cannot be."""
    overrides = options.pop("overrides")
    if options["corpus"] is not None and "=" in options["corpus"] and not Path(options["corpus"]).exists():
        overrides, options["corpus"] = [options["corpus"], *overrides], None
    own = ("teacher", "preset", "alpha", "temperature", "cache", "hints", "bytes", "written", "generations", "no_control", "out")
    given = {name: options.pop(name) for name in own}
    student = override({name: value for name, value in options.items() if value is not None}, overrides)
    teach = student.pop("teach", {})
    if not isinstance(teach, dict):
        raise InputError(f"teach: expected settings such as teach.temperature=2, found {teach!r}")
    named = {"temperature": given["temperature"], "top": given["cache"], "match": "bytes" if given["bytes"] else None}
    teach = {name: value for name, value in named.items() if value is not None} | teach
    if given["hints"] is not None:
        teach["hints"] = {"weight": given["hints"]} | teach.get("hints", {})
    return Distillation(
        teachers=tuple(given["teacher"]),
        out=given["out"],
        preset=given["preset"],
        alpha=_shares(given["alpha"]),
        teach=teach,
        generations=given["generations"],
        written=given["written"],
        control=not given["no_control"],
        student=student,
    )


def _shares(text: str | None) -> tuple[float, ...] | None:
    try:
        return None if text is None else tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise InputError(f"--alpha: {text!r} is no list of shares; write 0.5 or 0.25,0.5,0.75") from error


def table(found: dict[str, Any]) -> str:
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
        bits = score("bits per byte", row["bits_per_byte"], row["stderr"])
        shown.add_row(escape(row["name"]), *numbers, bits, apart, *("" if value is None else score("accuracy", value) for value in told))
    changed = [f"{name}: {was} in the student, {now} in the control" for name, (was, now) in found["differences"].items()]
    if any(row["name"] == "control" for row in found["rows"]):
        last = ["The control differs from the last student in nothing but this:", *changed]
    else:
        last = ["No control was run (--no-control)."]
    scope = (
        f"On the held-out text of {found['held_out']}. Intervals (95 %) are over its documents; one run each says nothing of other seeds."
    )
    return "\n".join([render(shown), scope, *last])


def _signed(value: float, stderr: float | None) -> str:
    return f"{value:+.4f}" + (f" ± {1.96 * stderr:.4f}" if stderr is not None else "")


def unlike(left: RunConfig, right: RunConfig) -> dict[str, list[Any]]:
    """The settings in which two runs differ, by dotted name; the plan's sentence says nothing more."""
    return differences(*(to_dict(replace(each, plan="")) for each in (left, right)))


def _pupils(asked: Distillation, out: Path, console: Console) -> Iterator[Pupil]:
    """The students in the order in which they are trained, each settled when the one before is done."""
    request, teachers = _request(asked, out), asked.teachers
    drawn = 0.0
    if asked.written is not None:
        request, drawn = _written(asked, request, out, console)
    for generation in range(asked.generations):
        preset = {name: value for name, value in (PRESETS[asked.preset] if asked.preset else {}).items() if name != "alpha"}
        table = preset | asked.teach | {"teachers": list(teachers), "alpha": max(asked.alphas)}
        config, material, _ = prepare(replace(request, teach=table, seed=request.seed + generation), console, time.monotonic())
        for alpha in asked.alphas:
            own = replace(config, teach=replace(config.teach, alpha=alpha))  # type: ignore[type-var]
            name = f"generation-{generation + 1}" if asked.generations > 1 else "student"
            name += f"-alpha-{alpha:g}" if len(asked.alphas) > 1 else ""
            yield Pupil(name, out / name, own, material, _training(own) + _teaching(own, material.school) + drawn)
        teachers = (str(out / name),)


def _request(asked: Distillation, out: Path) -> Request:
    """What the student is to be: what was asked for, over what the first teacher's run was."""
    own = {name: value for name, value in asked.student.items() if value is not None}
    spec, (path, _) = asked.teachers[0], at_words(asked.teachers[0])
    config = from_dict(RunConfig, folder.read_config(path)) if is_run(path) else None
    if (config is None or config.imported is not None) and not {"corpus", "steps"} <= own.keys():
        raise InputError(f"{spec}: it was not trained here, so it says no corpus and no steps; give CORPUS and --steps")
    table: dict[str, Any] = {"train": {}, "model": {}}
    if config is not None and config.imported is None:
        if "corpus" not in own:
            table |= _same_text(config)
        shaped = any(name in own for name in SHAPE)
        table["train"] = {name: value for name, value in to_dict(config.train).items() if not (shaped and name in OF_SHAPE)}
        table["seed"] = table["train"].pop("seed") + 1
        table["model"] = {} if shaped else {name: value for name, value in to_dict(config.model).items() if name != "vocab"}
    if "tokenizer" not in own and "vocab" not in own:
        table["tokenizer"] = _same_tokenizer(spec, out) if config is None else _own_tokenizer(config, path)
    for name in ("train", "model"):
        table[name] |= own.pop(name, {})
    table |= {name: table["train"].pop(name) for name in STEP if name in table["train"]}
    return from_dict(Request, table | own)


def _same_text(config: RunConfig) -> dict[str, Any]:
    text = config.corpus
    if text.spec == "-":
        raise InputError(f"the text of the teacher, {text.name}, came from standard input; give CORPUS")
    return {"corpus": text.spec, "documents": text.documents, "encoding": text.encoding, "column": text.column}


def _own_tokenizer(config: RunConfig, path: Path) -> str:
    return "bytes" if config.tokenizer.kind == "bytes" else str(path / "tokenizer.json")


def _same_tokenizer(spec: str, out: Path) -> str:
    open_teacher(spec).tokenizer.save(out / "tokenizer.json")
    return str(out / "tokenizer.json")


def _written(asked: Distillation, request: Request, out: Path, console: Console) -> tuple[Request, float]:
    """The request on the corpus that the teacher writes, and the FLOP of writing it."""
    if len(asked.teachers) > 1:
        raise InputError(f"--written: one teacher writes; found {len(asked.teachers)}")
    assert asked.written is not None, "asked for"
    subject = open_teacher(asked.teachers[0])
    tokens = write_corpus(subject, out / "written", words_of(asked.written), seed=request.seed, console=console)
    own = replace(request, corpus=str(out / "written"), documents="auto", encoding="utf-8", column="text")
    return own, tokens * _forward(subject.model, subject.window)


def _train(pupil: Pupil, console: Console) -> None:
    """Train what is not trained. InputError if something else lies there."""
    if (pupil.path / "config.json").exists():
        found = from_dict(RunConfig, folder.read_config(pupil.path))
        for name, (was, now) in unlike(found, pupil.config).items():
            raise InputError(f"{pupil.path}: made with {name} {was}, now it is {now}; choose another --out, or remove that run")
    else:
        begin(pupil.path, pupil.config, pupil.material)
    if not (pupil.path / "report.html").exists():
        console.say(f"{pupil.name}: {pupil.config.plan}")
        resume(pupil.path, console)


def _control(asked: Distillation, done: list[Pupil], out: Path, console: Console) -> Pupil:
    """The last student without its teachers, and steps for all that was computed for it: by each generation, but by one of a grid."""
    last = done[-1]
    config, material = last.config, last.material
    if asked.written is not None:
        assert config.teach is not None, "a student has teachers"
        request = replace(_request(asked, out), teach=to_dict(replace(config.teach, alpha=0.0, hints=None)))
        config, material, _ = prepare(request, console, time.monotonic())
    spent = sum(pupil.flop for pupil in done) if asked.generations > 1 else max(pupil.flop for pupil in done)
    steps = round(spent / _training(config) * config.train.steps)
    assert config.teach is not None, "a student has teachers"
    config = replace(
        config,
        plan=f"The control of {last.name}: the same model without a teacher, {steps:,} steps instead of {last.config.train.steps:,}.",
        teach=replace(config.teach, alpha=0.0, hints=None),
        train=replace(config.train, steps=steps),
    )
    return Pupil("control", out / "control", config, material, _training(config))


def _training(config: RunConfig) -> float:
    """FLOP of a run's training, teachers left out."""
    return training_flop(config.model, config.train.length) * _tokens(config)


def _teaching(config: RunConfig, school: School | None) -> float:
    """FLOP of the teachers' reading: of every batch, or of the text once."""
    if school is None or config.teach is None or not config.teach.listens:
        return 0.0
    return sum(
        _forward(subject.model, config.train.length) * _tokens(config)
        if school.read is None
        else _forward(subject.model, subject.window) * school.read
        for subject in school.subjects
    )


def _tokens(config: RunConfig) -> int:
    return config.train.steps * config.train.batch * config.train.length


def _forward(model: Any, length: int) -> float:
    """FLOP of a token; of a model that is not ours, two for each weight of its matrices but the embeddings of what it reads."""
    if isinstance(model, LM):
        return forward_flop(model.config, length)
    read = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    matrices = [weight for weight in model.parameters() if weight.dim() >= 2]
    free = sum(weight.numel() for weight in matrices if id(weight) in read)
    out = model.net.get_output_embeddings().weight
    return 2.0 * (sum(weight.numel() for weight in matrices) - free + (out.numel() if id(out) in read else 0))


def _results(asked: Distillation, done: list[Pupil], lines: list[dict[str, Any]], console: Console) -> dict[str, Any]:
    """All runs and the teachers on one held-out text, each beside the control."""
    last = done[-1]  # the control, on the text that was read, if there is one
    config, material = last.config, last.material
    if asked.written is not None and not asked.control:
        config, material, _ = prepare(_request(asked, Path(asked.out)), console, time.monotonic())
    assert last.material.school is not None, "a student has teachers"
    models: dict[str, Any] = {}
    if config.teach is None or config.teach.match == "tokens":
        named = zip(last.material.school.config.teachers, last.material.school.subjects, strict=True)
        models |= {f"teacher {spec}": subject.model for spec, subject in named}
    models |= {pupil.name: folder.load(pupil.path).model for pupil in done}
    sample = material.sample(config.evaluate.held_out_tokens)
    torch.set_num_threads(config.train.threads)
    scored: dict[str, Scored] = {}
    for name, model in models.items():
        console.progress(f"scoring {len(sample.ids):,} held-out tokens with {name}")
        scored[name] = score_sample(model, config, material, sample)[0]
    about = {pupil.name: _about(pupil, line) for pupil, line in zip(done, lines, strict=True)}
    rows = []
    for (name, each), model in zip(scored.items(), models.values(), strict=True):
        nbytes = material.nbytes(each.targets)
        bits = held_out(each.nats, each.documents, nbytes)[0]
        row: dict[str, Any] = {"name": name, "bits_per_byte": bits.value, "stderr": bits.stderr, "parameters": _size(model)}
        if "control" in scored and name != "control":
            apart = difference(each.nats, scored["control"].nats, each.documents, nbytes, than="control")
            row["minus_control"] = {"value": apart.value, "stderr": apart.stderr}
        rows.append(row | about.get(name, {}))
    changed = unlike(done[-2].config, last.config) if asked.control else {}
    return {"rows": rows, "differences": changed, "held_out": material.corpus.name}


def _size(model: nn.Module) -> int:
    return sum(weight.numel() for weight in model.parameters())


def _about(pupil: Pupil, line: dict[str, Any]) -> dict[str, Any]:
    """What a row tells of a run beside its bits per byte."""
    assert pupil.config.teach is not None, "a student has teachers"
    told = {name: line[name] for name in ("steps", "flop", "seconds")}
    scores = {suite: value for suite, value in line["scores"].items() if not suite.endswith("bits_per_byte")}
    return {"path": str(pupil.path), "alpha": pupil.config.teach.alpha, **told, "scores": scores}
