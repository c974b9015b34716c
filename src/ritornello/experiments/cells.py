"""The cells of a comparison: from what a study asks for to configs that are equal in all but the architecture, and one run of them.

A cell is a run folder, known by its content: what its weights and scores are a function of. So a study that has grown, or has been
changed, finds among the runs what still fits.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch

from ritornello import folder
from ritornello.config import from_dict, read_file, to_dict
from ritornello.data.corpus import read_corpus
from ritornello.errors import InputError
from ritornello.evals.suite import digest
from ritornello.experiments import scaling
from ritornello.experiments.console import Console, Within
from ritornello.experiments.flops import training_flop
from ritornello.experiments.machine import matrix_products, pick_device
from ritornello.experiments.match import match
from ritornello.experiments.material import Material, gather
from ritornello.experiments.plan import FIRST_GUESS, THREADS, plan, time_steps
from ritornello.experiments.run import begin, resume
from ritornello.experiments.settings import EvaluateConfig, Request, RunConfig
from ritornello.experiments.study import Study
from ritornello.experiments.subjects import of_run
from ritornello.experiments.suites import Source, data_folder, evaluate_sources, own_files, sources
from ritornello.experiments.training import Stopped
from ritornello.jobs import How
from ritornello.mixers.layers import expand
from ritornello.model import parameters
from ritornello.train.loop import Diverged

PROBE = 5.0  # seconds a step is timed for, where minutes are the budget
HOW = ("threads", "keep_memory", "device")  # settings of training that say how it is computed, not what


class Contestant(NamedTuple):
    """A system on a corpus, as it is trained from the first seed at the planned rate."""

    corpus: str
    system: str
    config: RunConfig
    material: Material


@dataclass(frozen=True)
class Cell:
    """One run of a contestant: a seed and a rate."""

    corpus: str
    system: str
    config: RunConfig
    path: Path

    def __str__(self) -> str:
        return f"{self.system} on {self.corpus}, seed {self.config.train.seed}, rate {self.config.train.lr:g}"

    @property
    def trained(self) -> bool:
        return (self.path / "report.html").exists()

    @property
    def failed(self) -> str | None:
        """Why there are no weights to score, if there are none."""
        file = self.path / "failed.json"
        return str(read_file(file)["reason"]) if file.exists() else None


class Job(NamedTuple):
    """A cell to be trained and scored, in values that can be sent to another process."""

    path: Path
    suites: tuple[str, ...] = ()
    text: tuple[str, ...] = ()
    data: str | None = None
    limit: int | None = None


def work(job: Job, console: Console) -> None:
    """Train what is not trained, score what is not scored; numbers that run out are written down. Raises Stopped between two steps."""
    try:
        if not (job.path / "report.html").exists():
            resume(job.path, console)
    except InputError as error:
        if not isinstance(error.__cause__, Diverged):
            raise
        folder.write_json(job.path / "failed.json", {"reason": str(error.__cause__)})
        return
    chosen = [*(sources(job.suites, data_folder(job.data)) if job.suites else ()), *own_files(text=job.text)]
    if chosen:
        config = from_dict(RunConfig, folder.read_config(job.path))
        torch.set_num_threads(config.train.threads)
        with matrix_products(config.train.gemm):
            subject = of_run(folder.load(job.path), config.evaluate.protocol, pick_device(config.train.device))
            evaluate_sources(subject, chosen, job.path / "evaluation", console, job.limit)


def worker(how: How, console: Console) -> Callable[[Job], None]:
    """What does a job, for jobs.spread: here, where it may tell of its progress, or in another process."""
    return partial(_here, console=console) if how == 1 else _elsewhere


def _here(job: Job, console: Console) -> None:
    work(job, Within(console, job.path.name))


def _elsewhere(job: Job) -> None:
    """A job in a process of its own, which a request to stop ends between two steps."""
    try:
        work(job, Console(quiet=True))
    except Stopped as stop:
        raise KeyboardInterrupt from stop


def identity(config: RunConfig) -> str:
    """A hash of what a run's weights and scores are a function of. Where it runs, and on how many threads, does not count."""
    table = to_dict(config)
    for name in ("format", "plan", "minutes", "imported", "checkpoint_every", "licence"):
        del table[name]
    table["corpus"], table["tokenizer"] = config.corpus.key, config.tokenizer.sha256
    table["train"] = {name: value for name, value in table["train"].items() if name not in HOW}
    return digest(table)


def known(out: Path) -> dict[str, Path]:
    """The runs below a comparison's folder, by identity."""
    paths = sorted(file.parent for file in (out / "runs").glob("*/config.json"))
    return {identity(from_dict(RunConfig, folder.read_config(path))): path for path in paths}


def cell(contestant: Contestant, seed: int, rate: float, out: Path, runs: dict[str, Path]) -> Cell:
    """The cell of that seed and rate: where it lies among `runs`, or where it will."""
    config = replace(contestant.config, train=replace(contestant.config.train, seed=seed, lr=rate))
    name = identity(config)
    slug = re.sub(r"[^a-z0-9]+", "-", contestant.system.lower()).strip("-")
    return Cell(contestant.corpus, contestant.system, config, runs.get(name, out / "runs" / f"{slug}-seed{seed}-rate{rate:g}-{name[:8]}"))


def prepare(cell: Cell, material: Material) -> None:
    """Settle a cell that has not begun, or whose beginning a kill cut short."""
    if not (cell.path / "config.json").exists():
        begin(cell.path, cell.config, material)


def contestants(asked: Study, out: Path, jobs: int, console: Console) -> list[Contestant]:
    """Every system on every corpus, of one size, one batch shape and one budget. InputError for what cannot be made equal."""
    found: list[Contestant] = []
    for spec in asked.corpora:
        material = ground(asked, spec, out, console)
        if any(each.corpus == material.corpus.name for each in found):
            raise InputError(f"two corpora are called {material.corpus.name}; rename one")
        shape = _shape(asked, material, spec)
        target = asked.target
        for system in asked.systems:
            request = _request(asked, system, spec, shape, jobs)
            config = plan(request, material, _checks(request), 0, lambda: 0.0)
            if target is None:
                target = parameters(config.model, embedding=asked.embedding)
            if asked.only and system not in asked.only:
                continue
            try:
                model = match(config.model, target, embedding=asked.embedding)
            except InputError as error:
                raise InputError(f"{system}: {error}") from error
            config = replace(config, model=model)
            request = replace(request, steps=_steps(asked, config, material, out, console), model=to_dict(model))
            config = plan(request, material, config.evaluate, 0, lambda: 0.0)
            found.append(Contestant(material.corpus.name, system, config, material))
    return found


def ground(asked: Study, spec: str, out: Path, console: Console) -> Material:
    """A corpus, and the tokenizer of all systems: made once, and kept as long as the corpus is what it was."""
    request = asked.request(asked.systems[0], spec)
    if request.tokenizer not in (None, "bpe"):
        return gather(request, console)
    corpus = read_corpus(spec, documents=request.documents, encoding=request.encoding, column=request.column, progress=console.progress)
    kept = out / "tokenizers" / f"{corpus.name}-{digest([corpus.key, request.tokenizer, request.vocab])[:8]}.json"
    if kept.exists():
        return replace(gather(replace(request, tokenizer=str(kept), vocab=None), console), kind="bpe")
    material = gather(request, console)
    if material.kind == "bpe":
        kept.parent.mkdir(parents=True, exist_ok=True)
        material.tokenizer.save(kept)
    return material


def _checks(request: Request) -> EvaluateConfig:
    return from_dict(EvaluateConfig, {"pairs": request.pairs, "protocol": request.protocol} | request.evaluate, "evaluate")


def _shape(asked: Study, material: Material, spec: str) -> scaling.Shape:
    """Width, depth and batch to begin with: the width whose first system comes nearest to the wanted size, or what the scaling rule picks
    for the budget.
    """
    request, (kind, amount) = asked.request(asked.systems[0], spec), asked.spending
    if kind == "words":
        tokens = amount / material.words_per_target
        flop = scaling.flop_per_token(1) * tokens * max(tokens / 20, 1.0)
    else:
        flop = amount if kind == "flop" else FIRST_GUESS * (request.threads or THREADS) * 60 * amount
    pattern, vocab = request.mixer or asked.systems[0], material.tokenizer.size
    width = request.model.get("dim", request.dim)
    if asked.target is not None and width is None:

        def size(width: int) -> int:
            alone = len(expand(pattern)) == 1
            stack = expand(pattern, request.layers or (scaling.depth(width) if alone else None))
            return parameters(scaling.model_config(vocab, width, stack, channel=request.channel_name), embedding=asked.embedding)

        wanted = asked.target
        width = min(scaling.WIDTHS, key=lambda each: abs(size(each) - wanted))
    batch, length = request.train.get("batch", request.batch), request.train.get("length", request.length)
    shape = scaling.choose(
        flop,
        material.unique,
        vocab,
        pattern=pattern,
        channel=request.channel_name,
        dim=width,
        layers=request.layers,
        batch=batch,
        length=length,
    )
    if kind == "words":
        rows, pieces = scaling.batch_shape(tokens, material.unique, batch, length)
        shape = replace(shape, tokens=tokens, batch=rows, length=pieces, dropout=scaling.dropout(tokens / material.unique))
    return shape


def _request(asked: Study, system: str, spec: str, shape: scaling.Shape, jobs: int) -> Request:
    """The system's settings, what is the same for all put in."""
    request = asked.request(system, spec)
    alone = len(expand(request.mixer or system)) == 1
    return replace(
        request,
        steps=1,
        dim=request.dim or shape.dim,
        layers=request.layers or (len(shape.layers) if alone else None),
        batch=request.batch or shape.batch,
        length=request.length or shape.length,
        threads=request.threads or max(1, THREADS // jobs),
        model={"dropout": shape.dropout} | request.model,
    )


def _steps(asked: Study, config: RunConfig, material: Material, out: Path, console: Console) -> int:
    """The steps that the budget pays for."""
    (kind, amount), train = asked.spending, config.train
    tokens = train.batch * train.length
    if kind == "words":
        cost = tokens * material.words_per_target
    elif kind == "flop":
        cost = training_flop(config.model, train.length) * tokens
    else:
        cost = _seconds(config, material, out, console) / 60
    return max(1, round(amount / cost))


def _seconds(config: RunConfig, material: Material, out: Path, console: Console) -> float:
    """What a step takes here; measured once, so that a study that goes on has the steps it began with."""
    file, key = out / "speed.json", digest([to_dict(config.model), to_dict(config.train)])
    measured: dict[str, Any] = read_file(file) if file.exists() else {}
    if key not in measured:
        console.progress("measuring this machine's speed")
        measured[key] = time_steps(config.model, config.train, material, PROBE)
        folder.write_json(file, measured)
    return float(measured[key])


def finished(job: Job, expected: dict[str, str]) -> bool:
    """Whether a job's cell is trained and scored on what is expected: the data's checksum by suite."""
    if (job.path / "failed.json").exists():
        return True
    results = job.path / "evaluation" / "results.json"
    if not (job.path / "report.html").exists() or (expected and not results.exists()):
        return False
    return not expected or expected.items() <= read_file(results)["made_by"]["data"].items()


def expectations(suites: Sequence[Source], limit: int | None) -> dict[str, str]:
    """The checksums of the items of all suites, by their names in a report; a suite that cannot be read has none."""
    found = {}
    for source in suites:
        try:
            found[source.label(limit)] = digest([task.sha256 for task in source.suite.tasks(source.path, limit)])
        except InputError:
            continue
    return found
