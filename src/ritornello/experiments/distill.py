"""Students of trained models, beside the control: what the same computation buys without a teacher.

    OUT/student              or student-alpha-0.25 ... for a grid, generation-1 ... for students of students; with several seeds each
                             ends in its own, -seed-1 ..., so that machines can share a study: --seed 5 on the second
    OUT/control              the last student's config with teach.alpha 0 and more steps: its training costs what the students'
                             training and their teachers' reading or writing cost together, within a step; one for each seed
    OUT/written              the corpus, where a teacher writes it
    OUT/distill.json         what came of all of them, on the same held-out text; see gains.py
    OUT/report.html          the page that shows it
    OUT/results.jsonl        a line a run, as everywhere; its flop are those of the teachers too

Every run is an ordinary run folder, or holds failed.json: why there is no model. The same command goes on where it was stopped. Students
of students: Furlanello et al. 2018, arXiv:1805.04770 (born-again networks), each with the one before as its only teacher.
"""

import json
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import nn

from ritornello import folder, provenance
from ritornello.analysis.teaching import render
from ritornello.config import differences, from_dict, override, to_dict
from ritornello.errors import InputError, unknown
from ritornello.experiments import gains
from ritornello.experiments.cells import Job, expectations, finished, worker
from ritornello.experiments.console import Console
from ritornello.experiments.flops import forward_flop, training_flop
from ritornello.experiments.gains import Pupil
from ritornello.experiments.lessons import School, open_teacher
from ritornello.experiments.plan import THREADS
from ritornello.experiments.record import record
from ritornello.experiments.run import begin, prepare
from ritornello.experiments.settings import Request, RunConfig
from ritornello.experiments.subjects import at_words, is_run
from ritornello.experiments.suites import data_folder, sources
from ritornello.experiments.writing import write_corpus
from ritornello.folder import words_of
from ritornello.jobs import How, at_a_time, spread
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
    seeds: int = 1  # of students and control, from the student's seed on
    suites: tuple[str, ...] = ()  # benchmarks that all are scored on
    data: str | None = None  # where their files lie
    limit: int | None = None  # items of each task; None: all
    student: dict[str, Any] = field(default_factory=dict)  # fields of Request; None and what is not given: as the first teacher's run

    def __post_init__(self) -> None:
        if self.preset is not None and self.preset not in PRESETS:
            raise unknown("preset", self.preset, PRESETS)
        for name in ("generations", "seeds"):
            if getattr(self, name) < 1:
                raise InputError(f"--{name}: {getattr(self, name)} is less than 1")
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


def distill(asked: Distillation, console: Console | None = None, how: How = 1) -> dict[str, Any]:
    """Train the students and their controls, or what is missing of them; distill.json as plain values. `how`: so many runs at a time, or
    "ray". InputError, and Stopped or KeyboardInterrupt where it was stopped: the same call goes on.
    """
    console, out, jobs = console or Console(quiet=True), Path(asked.out), at_a_time(how)
    shelf = str(data_folder(asked.data).resolve()) if asked.suites else None
    out.mkdir(parents=True, exist_ok=True)
    with folder.locked(out):
        request, drawn = _request(asked, out, jobs), 0.0
        if asked.written is not None:
            request, drawn = _written(asked, request, out, console)
        done: list[Pupil] = []
        changed: dict[str, list[Any]] = {}
        for generation in range(asked.generations):
            wave: list[Pupil] = []
            for nth in range(asked.seeds):
                own = replace(request, seed=request.seed + nth * asked.generations + generation)
                before = [pupil for pupil in done if pupil.nth == nth]
                teachers = tuple(str(pupil.path) for pupil in before)[-1:] or asked.teachers
                tells = console if nth == 0 else Console(quiet=True)  # the text is the same for every seed
                students = list(_students(asked, own, teachers, nth, generation, drawn, tells))
                wave += students
                if asked.control and generation == asked.generations - 1:
                    wave.append(_control(asked, [*before, *students], jobs, console))
                    changed = unlike(students[-1].config, wave[-1].config)
            for name, (was, now) in changed.items():
                console.say(f"the control differs from {wave[-2].name} in {name}: {now} instead of {was}")
            _train(wave, done, asked, shelf, console, how)
            done += wave
        return _publish(asked, done, changed, jobs, console)


def _publish(asked: Distillation, done: list[Pupil], changed: dict[str, list[Any]], jobs: int, console: Console) -> dict[str, Any]:
    """Write what came of the runs."""
    out, config, material = Path(asked.out), done[-1].config, done[-1].material
    if asked.written is not None and not asked.control:  # the text that was read, which a control has
        config, material, _ = prepare(_request(asked, out, jobs), console, time.monotonic())
    found = gains.results(done, _note(out, done), config, material, console) | {"differences": changed}
    made_by = provenance.collect(config.corpus.sources)
    found |= {"command": made_by.command, "provenance": to_dict(made_by)}
    folder.write_json(out / "distill.json", found)
    folder.write_bytes(out / "report.html", render(out).encode())
    return found


def _note(out: Path, done: list[Pupil]) -> list[dict[str, Any]]:
    """Write the lines of these runs, so that a study that is stopped for good leaves what it has."""
    base = done[0].config
    lines = [record(pupil.path, "distill", pupil.system, base=base, failed=pupil.failed) | {"flop": pupil.flop} for pupil in done]
    folder.write_bytes(out / "results.jsonl", "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines).encode())
    return lines


def asked_of(options: dict[str, Any]) -> Distillation:
    """From the options of the command line, where None is not given. InputError for what cannot be."""
    overrides = options.pop("overrides")
    if options["corpus"] is not None and "=" in options["corpus"] and not Path(options["corpus"]).exists():
        overrides, options["corpus"] = [options["corpus"], *overrides], None
    teaching = ("teacher", "preset", "alpha", "temperature", "cache", "hints", "bytes", "written", "generations", "no_control")
    given = {name: options.pop(name) for name in (*teaching, "seeds", "suite", "data", "limit", "out")}
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
        seeds=given["seeds"],
        suites=tuple(name for names in given["suite"] for name in names.split(",") if name),
        data=given["data"],
        limit=given["limit"],
        student=student,
    )


def _shares(text: str | None) -> tuple[float, ...] | None:
    try:
        return None if text is None else tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise InputError(f"--alpha: {text!r} is no list of shares; write 0.5 or 0.25,0.5,0.75") from error


def unlike(left: RunConfig, right: RunConfig) -> dict[str, list[Any]]:
    """The settings in which two runs differ, by dotted name; the plan's sentence says nothing more."""
    return differences(*(to_dict(replace(each, plan="")) for each in (left, right)))


def _students(
    asked: Distillation, request: Request, teachers: tuple[str, ...], nth: int, generation: int, drawn: float, console: Console
) -> Iterator[Pupil]:
    """One for each share of the teachers. `drawn`: the FLOP that were spent on the corpus."""
    if lost := next((Path(teacher) for teacher in teachers if (Path(teacher) / "failed.json").exists()), None):
        raise InputError(f"{lost}: its training failed, so it cannot teach the next generation; try a smaller --lr and another --out")
    preset = {name: value for name, value in (PRESETS[asked.preset] if asked.preset else {}).items() if name != "alpha"}
    table = preset | asked.teach | {"teachers": list(teachers), "alpha": max(asked.alphas)}
    config, material, _ = prepare(replace(request, teach=table), console, time.monotonic())
    for alpha in asked.alphas:
        own = replace(config, teach=replace(config.teach, alpha=alpha))  # type: ignore[type-var]
        system = f"generation-{generation + 1}" if asked.generations > 1 else "student"
        system += f"-alpha-{alpha:g}" if len(asked.alphas) > 1 else ""
        yield Pupil(system, nth, _path(asked, system, own), own, material, _training(own) + _teaching(own, material.school) + drawn)


def _path(asked: Distillation, system: str, config: RunConfig) -> Path:
    return Path(asked.out) / (f"{system}-seed-{config.train.seed}" if asked.seeds > 1 else system)


def _request(asked: Distillation, out: Path, jobs: int) -> Request:
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
        del table["train"]["device"]  # the student's is whatever there is now
        table["model"] = {} if shaped else {name: value for name, value in to_dict(config.model).items() if name != "vocab"}
    if "tokenizer" not in own and "vocab" not in own:
        table["tokenizer"] = _same_tokenizer(spec, out) if config is None else _own_tokenizer(config, path)
    for name in ("train", "model"):
        table[name] |= own.pop(name, {})
    table |= {name: table["train"].pop(name) for name in STEP if name in table["train"]}
    if jobs > 1:
        table["threads"] = max(1, THREADS // jobs)
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


def _train(pupils: list[Pupil], before: list[Pupil], asked: Distillation, shelf: str | None, console: Console, how: How) -> None:
    """Train and score what is not trained and scored, and note each beside those `before`. InputError if something else lies there."""
    jobs = {Job(pupil.path.resolve(), asked.suites, (), shelf, asked.limit): pupil for pupil in pupils}
    chosen = sources(asked.suites, Path(shelf)) if shelf is not None else []
    expected = expectations(chosen, asked.limit)
    for pupil in pupils:
        if (pupil.path / "config.json").exists():
            found = from_dict(RunConfig, folder.read_config(pupil.path))
            for name, (was, now) in unlike(found, pupil.config).items():
                raise InputError(f"{pupil.path}: made with {name} {was}, now it is {now}; choose another --out, or remove that run")
        else:
            begin(pupil.path, pupil.config, pupil.material)
    left = [job for job in jobs if not finished(job, expected)]
    ready = set(jobs) - set(left)

    def told() -> Iterator[Job]:
        for job in left:
            if how == 1:
                console.say(f"{jobs[job].name}: {jobs[job].config.plan}")
            yield job

    threads = max((pupil.config.train.threads for pupil in pupils), default=1)
    with closing(spread(worker(how, console), told(), how, threads)) as results:
        for number, (job, _) in enumerate(results, 1):
            ready.add(job)
            _note(Path(asked.out), [*before, *(pupil for each, pupil in jobs.items() if each in ready)])
            if len(left) > 1:
                console.say(f"{number} of {len(left)}: {jobs[job].name}{f' failed: {jobs[job].failed}' if jobs[job].failed else ''}")


def _control(asked: Distillation, done: list[Pupil], jobs: int, console: Console) -> Pupil:
    """A seed's last student without its teachers, and steps for all that is computed for it: by each generation, but by one of a grid."""
    last = done[-1]
    config, material = last.config, last.material
    if asked.written is not None:
        assert config.teach is not None, "a student has teachers"
        request = _request(asked, Path(asked.out), jobs)
        request = replace(request, seed=config.train.seed, teach=to_dict(replace(config.teach, alpha=0.0, hints=None)))
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
    return Pupil("control", last.nth, _path(asked, "control", config), config, material, _training(config))


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
