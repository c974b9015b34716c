"""GLUE by fine-tuning: a copy of the model learns each task, and is asked about the task's validation file.

GLUE: Wang et al. 2019, arXiv:1804.07461; SuperGLUE: Wang et al. 2019, arXiv:1905.00537, in the filtered files of the BabyLM challenge, and
CoLA and SST-2 (by sentence) from their own. Three setups, a suite each:

glue        ours: the best epoch is chosen on a tenth of the training file, mean of three seeds; rate 1e-3, for small models
glue-2024   BabyLM 2024: 11 tasks, rate 5e-5, batch 64, 10 epochs, patience 3, 128 tokens; WSC: 1e-5, 20 epochs, patience 6
glue-2025   BabyLM 2025: 7 tasks, rate 3e-5, batch 32, 10 epochs, 512 tokens, a head of two layers; WSC: 30 epochs

Both challenges choose the best epoch on the very items they report, as there is no other file: too high for everybody. Their rows say so.
A causal model is read at its last token; 2025's script reads the first by default, which under a causal model has seen nothing.

A task that has no training file learns from one half of its validation file and is asked about the other; no passage is in both, and its
name says so. Chance is the score of always giving the commonest class of the training file. Headline metrics: MCC for CoLA, F1 for MRPC
and QQP, else accuracy; the mean over tasks takes these, as published ones do.
"""

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Literal

from ritornello.errors import InputError
from ritornello.evals.encoder import encoder_of
from ritornello.evals.files import Record, checksums, read_text, records
from ritornello.evals.finetune import Example, Recipe, Split, finetune
from ritornello.evals.means import macro
from ritornello.evals.metrics import measure
from ritornello.evals.report import Row
from ritornello.evals.scoring import Progress
from ritornello.evals.subject import Subject
from ritornello.evals.suite import SEED, Outcome, Suite, Task, digest, spread
from ritornello.train.loop import Diverged

HELD_OUT = 0.1  # share of the training examples on which the best epoch is chosen
HALVED = " (half of its validation file)"
ABSENT = "not in the data folder"
SEEN = " (epoch chosen on these items)"
MEAN = "accuracy, F1 or MCC"


@dataclass(frozen=True)
class Benchmark:
    """A task: what a text is made of, out of a record's fields, and in which files the records are."""

    parts: tuple[str, ...]
    train: str
    report: tuple[str, ...]
    classes: int = 2
    metric: str = "accuracy"
    document: int = 0  # the part that other records may share, so that it stays on one side of a split

    @property
    def metrics(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys((self.metric, "accuracy")))


def _jsonl(name: str, *parts: str, report: str | None = None, **about: int | str) -> Benchmark:
    return Benchmark(parts, f"filtered/{name}.train.jsonl", (f"filtered/{report or name}.valid.jsonl",), **about)  # type: ignore[arg-type]


NLI = ("{premise}", "{hypothesis}")
PAIR = ("{sentence1}", "{sentence2}")
BENCHMARKS = {
    "cola": Benchmark(("{sentence}",), "cola/in_domain_train.tsv", ("cola/in_domain_dev.tsv", "cola/out_of_domain_dev.tsv"), metric="MCC"),
    "sst2": Benchmark(("{sentence}",), "sst2/train.tsv", ("sst2/dev.tsv",)),
    "mrpc": _jsonl("mrpc", *PAIR, metric="F1"),
    "qqp": _jsonl("qqp", "{question1}", "{question2}", metric="F1"),
    "mnli": _jsonl("mnli", *NLI, classes=3),
    "mnli-mm": _jsonl("mnli", *NLI, classes=3, report="mnli-mm"),
    "qnli": _jsonl("qnli", "{question}", "{sentence}", document=1),
    "rte": _jsonl("rte", *PAIR),
    "boolq": _jsonl("boolq", "{question}", "{passage}", document=1),
    "multirc": _jsonl("multirc", "Question: {question} Answer: {answer}", "{paragraph}", document=1),
    "wsc": _jsonl("wsc", 'Does "{span2_text}" refer to "{span1_text}" in this passage?', "{text}", document=1),
}


@dataclass(frozen=True, kw_only=True)
class Setup:
    suite: str
    recipe: Recipe
    own: Mapping[str, Recipe] = field(default_factory=dict)  # of tasks that have another
    tasks: tuple[str, ...] = tuple(BENCHMARKS)
    seeds: tuple[int, ...]
    select: Literal["held out", "reported"]  # where the best epoch is chosen
    judge: Callable[[str], str] = lambda name: BENCHMARKS[name].metric  # by which metric, of a task's name


@dataclass(frozen=True)
class _Job:
    """One task of one setup, read."""

    name: str
    label: str  # the name in rows
    setup: Setup
    split: Split
    baseline: dict[str, float]  # what the commonest class gets, by metric

    @property
    def suffix(self) -> str:
        return SEEN if self.setup.select == "reported" else ""

    def row(self, metric: str, value: float | None, stderr: float | None, by: str, reason: str | None = None) -> Row:
        chance = self.baseline[metric]
        return Row(self.setup.suite, self.label, metric + self.suffix, value, stderr, len(self.split.report), chance, by, reason)


def glue_suite(setup: Setup) -> Suite:
    """A suite of fine-tuned tasks. Raises InputError for a task that there is not, or no seed."""
    if unfit := sorted(set(setup.tasks) - set(BENCHMARKS)):
        raise InputError(f"{setup.suite}: no task {unfit[0]}; there are {', '.join(BENCHMARKS)}")
    if not setup.seeds or not setup.tasks:
        raise InputError(f"{setup.suite}: give at least one task and one seed")
    return Suite(setup.suite, partial(_tasks, setup), _means, lambda seeds: glue_suite(replace(setup, seeds=seeds)))


def _tasks(setup: Setup, path: Path, limit: int | None) -> list[Task]:
    """A task for each seed; the first carries the task's bare name."""
    if not any(_place(path, name) for task in setup.tasks for name in BENCHMARKS[task].report):
        raise InputError(f"{path}: holds none of GLUE's validation files, such as {BENCHMARKS[setup.tasks[0]].report[0]}")
    found = []
    for name in setup.tasks:
        try:
            job = _read(setup, name, path, limit)
        except InputError as error:
            found.append(_unread(setup, name, str(error)))
            continue
        for seed in setup.seeds:
            first = seed == setup.seeds[0]
            recipe = setup.own.get(name, setup.recipe)
            key = digest([name, seed, first, setup.suite, setup.select, setup.judge(name), asdict(recipe), job.split])
            found.append(Task(name if first else f"{name}{SEED}{seed}", key, partial(_run, job, recipe, seed)))
    return found


def _unread(setup: Setup, name: str, reason: str) -> Task:
    """A task whose files are missing or damaged: a row that says so. A damaged one leaves the mean without a value."""
    row = Row(setup.suite, name, BENCHMARKS[name].metric, None, reason=reason)
    return Task(name, digest([setup.suite, name, reason]), lambda subject, progress: Outcome((row,)))


def _run(job: _Job, recipe: Recipe, seed: int, subject: Subject, progress: Progress | None) -> Outcome:
    benchmark, by, first = BENCHMARKS[job.name], f"seed {seed}", seed == job.setup.seeds[0]
    judge = job.setup.judge(job.name)

    def score(labels: list[int], choices: list[int]) -> float:
        return measure(judge, labels, choices, benchmark.classes)[0]

    rows = [job.row(metric, job.baseline[metric], None, "majority") for metric in benchmark.metrics] if first else []
    try:
        tuned = finetune(encoder_of(subject), job.split, benchmark.classes, recipe, score, seed, progress)
    except Diverged as error:
        return Outcome((*rows, *(job.row(metric, None, None, by, str(error)) for metric in benchmark.metrics)))
    labels = [example.label for example in job.split.report]
    rows += [job.row(metric, *measure(metric, labels, tuned.choices, benchmark.classes), by) for metric in benchmark.metrics]
    rows.append(Row(job.setup.suite, job.label, "best epoch", tuned.epoch, n=tuned.epochs, by=by))
    decided = first and not job.label.endswith(HALVED)
    return Outcome(tuple(rows), tuple({"id": f"{job.name}_{index}", "pred": each} for index, each in enumerate(tuned.choices * decided)))


def _means(rows: Sequence[Row]) -> tuple[Row, ...]:
    """The mean over the tasks that were read, that over all of the setup, and each task's over its seeds."""
    absent = [row for row in rows if row.reason and row.reason.startswith(ABSENT)]
    tasks: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        if row not in absent and row.by != "majority" and row.metric != "best epoch":
            tasks.setdefault((row.task, row.metric), []).append(row)
    over_seeds = [_over_seeds(seeds) for seeds in tasks.values()]
    found = [row for seeds in over_seeds for row in seeds if row not in rows]  # a damaged file's row is there already
    main = list({seeds[0].task: seeds[0] for seeds in reversed(over_seeds)}.values())[::-1]  # a task's first metric
    if not main:
        return ()
    over = macro([replace(row, metric=MEAN + (SEEN if row.metric.endswith(SEEN) else "")) for row in main], f"all {len(main)} tasks here")
    if not absent:
        return (replace(over, task="all"), *found)
    lost = f"{', '.join(row.task for row in absent)}: {ABSENT}"
    return (over, replace(over, task=f"all {len(main) + len(absent)} tasks", value=None, stderr=None, chance=None, reason=lost), *found)


def _over_seeds(rows: Sequence[Row]) -> list[Row]:
    """The mean of runs from several seeds, and their standard deviation.

    All runs are asked about the same items, so the mean's error is that of the items and that of the seeds: sqrt(se^2 + sd^2 / seeds).
    """
    first, values = rows[0], [row.value for row in rows if row.value is not None]
    if len(values) < len(rows):
        return [replace(first, value=None, stderr=None, by="model", reason=next(row.reason for row in rows if row.value is None))]
    mean = sum(values) / len(values)
    items = sum((row.stderr or 0) ** 2 for row in rows) / len(rows)
    if len(rows) == 1:
        return [replace(first, by="model")]
    variance = sum((value - mean) ** 2 for value in values) / (len(values) - 1)
    whole = replace(first, value=mean, stderr=(items + variance / len(values)) ** 0.5, by="model")
    return [whole, replace(whole, metric=f"{first.metric}, sd over seeds", value=variance**0.5, stderr=None, n=len(values), chance=None)]


def _read(setup: Setup, name: str, path: Path, limit: int | None) -> _Job:
    """The examples of a task, parted as the setup says. InputError where a file is missing, damaged or changed."""
    benchmark, label = BENCHMARKS[name], name
    if missing := [file for file in benchmark.report if _place(path, file) is None]:
        raise InputError(f"{ABSENT}: {', '.join(missing)}")
    report = [example for file in benchmark.report for example in _examples(benchmark, path, file)]
    if _place(path, benchmark.train):
        train = _examples(benchmark, path, benchmark.train)
    else:
        label, (train, report) = name + HALVED, parted(report, 0.5)
    train, report = list(spread(train, limit)), list(spread(report, limit))
    commonest = min(Counter(example.label for example in train).most_common(), key=lambda pair: (-pair[1], pair[0]))[0]
    labels = [example.label for example in report]
    baseline = {metric: measure(metric, labels, [commonest] * len(labels), benchmark.classes)[0] for metric in benchmark.metrics}
    if setup.select == "reported":
        return _Job(name, label, setup, Split(train, report, report), baseline)
    return _Job(name, label, setup, Split(*parted(train, HELD_OUT), report), baseline)


def parted(examples: Sequence[Example], share: float) -> tuple[list[Example], list[Example]]:
    """The examples in two, about `share` of them in the second; no document is in both. Which is where depends on the documents alone."""
    sizes = Counter(example.document for example in examples)
    second: set[str] = set()
    count = 0
    for document in sorted(sizes, key=lambda document: hashlib.sha256(document.encode("utf-8", "surrogatepass")).digest()):
        if count >= share * len(examples):
            break
        second.add(document)
        count += sizes[document]
    return [each for each in examples if each.document not in second], [each for each in examples if each.document in second]


def _examples(benchmark: Benchmark, path: Path, name: str) -> list[Example]:
    file = _place(path, name)
    assert file is not None, "its caller has looked"
    published = checksums()["glue"].get(name)
    found = []
    for record in _table(file, published) if name.endswith(".tsv") else records(file, published):
        texts = {key: record.text(key, empty=True) for key in re.findall(r"{(\w+)}", " ".join(benchmark.parts))}
        parts = tuple(part.format(**texts) for part in benchmark.parts)
        found.append(Example(parts, record.index("label", benchmark.classes), parts[benchmark.document]))
    return found


def _table(file: Path, published: str | None) -> list[Record]:
    """CoLA's lines (source, label, author's mark, sentence) and SST-2's (sentence, label)."""
    found = []
    lines = read_text(file, published).split("\n")
    for number, line in ((number, line) for number, line in enumerate(lines, 1) if line.strip()):
        cells = line.split("\t")
        if len(cells) not in (2, 4) or not cells[1].isdecimal():
            raise InputError(f"{file}:{number}: expected sentence and label, or source, label, mark and sentence, with tabs between")
        found.append(Record(f"{file}:{number}", {"sentence": cells[0 if len(cells) == 2 else 3], "label": int(cells[1])}))
    if not found:
        raise InputError(f"{file}: is empty")
    return found


def _place(path: Path, name: str) -> Path | None:
    return next((place for place in (path / f"{name}.gz", path / name) if place.is_file()), None)


_2024 = Recipe(lr=5e-5, batch=64, epochs=10, patience=3, threshold=0.001)
_2025 = Recipe(lr=3e-5, batch=32, epochs=10, length=512, schedule="cosine", warmup=0.06, floor=0.1, weight_decay=0.01, head="mlp")
_OURS = Recipe(lr=1e-3, batch=32, epochs=6, patience=2, schedule="cosine", warmup=0.06, weight_decay=0.01)
OURS = Setup(suite="glue", recipe=_OURS, seeds=(1, 2, 3), select="held out")
BABYLM_2024 = Setup(
    suite="glue-2024",
    recipe=_2024,
    own={"wsc": replace(_2024, lr=1e-5, epochs=20, patience=6)},
    seeds=(12,),
    select="reported",
    judge=lambda name: "accuracy" if name.startswith("mnli") else "F1",
)
BABYLM_2025 = Setup(
    suite="glue-2025",
    recipe=_2025,
    own={"wsc": replace(_2025, epochs=30), "boolq": replace(_2025, batch=16), "multirc": replace(_2025, batch=16)},
    tasks=("boolq", "mnli", "mrpc", "multirc", "qqp", "rte", "wsc"),
    seeds=(42,),
    select="reported",
)
GLUE, GLUE_2024, GLUE_2025 = map(glue_suite, (OURS, BABYLM_2024, BABYLM_2025))
