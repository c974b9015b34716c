"""From the teachers that a run names to a lesson: they are opened, seen to fit, and read the corpus once where that is asked.

What they make of a corpus is kept beside it in the cache, in files for about a hundred thousand places each: a stopped pass goes on with
the next of them. It is known by the teachers, the corpus, both tokenizers and the settings that it depends on.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ritornello import folder
from ritornello.data.corpus import Corpus
from ritornello.data.tokenizers import Tokenizer
from ritornello.data.tokens import Tokens, encode_corpus
from ritornello.errors import InputError
from ritornello.evals.scoring import stream, token_nats
from ritornello.evals.subject import CausalSubject
from ritornello.experiments.console import Console
from ritornello.experiments.machine import fast_reading
from ritornello.experiments.subjects import open_subject
from ritornello.model import LM
from ritornello.train import kept
from ritornello.train.distill import Distill, Lesson, Live, TeachConfig
from ritornello.train.hints import Hints
from ritornello.train.loop import TrainConfig
from ritornello.train.losses import NextToken
from ritornello.train.spans import Aligned, spans
from ritornello.train.teachers import Teachers

FORMAT = 1  # of the kept files
PLACES = 2**17  # of a corpus in one file, and the most of one document that is read in one go
ROWS = 32  # documents that are read side by side


@dataclass(frozen=True)
class School:
    """Opened teachers and their lesson."""

    config: TeachConfig  # with the teachers' sums
    subjects: tuple[CausalSubject, ...]
    lesson: Lesson | None  # None: nobody is listened to
    read: int | None = None  # tokens that each teacher reads once for all runs; None: those of every batch

    def loss(self, model: LM, train: TrainConfig) -> nn.Module:
        """What trains a student. InputError for settings that do not go with teachers."""
        if self.lesson is None:
            return NextToken(model, train.loss_chunk, train.objective)
        if train.loss_chunk is not None:
            raise InputError("train.loss_chunk does not go with teach: the divergence needs all logits at once; leave it out")
        for spec, subject in zip(self.config.teachers, self.subjects, strict=True):
            if self.config.match == "tokens" and model.config.vocab != subject.tokenizer.size:
                raise InputError(f"model.vocab: {model.config.vocab:,} ids, and {spec} knows {subject.tokenizer.size:,}; leave it out")
            reads = getattr(subject.model, "length", train.length)
            if self.read is None and train.length > reads:
                raise InputError(f"{spec}: it reads {reads} tokens, a row has {train.length}; use a shorter --length")
        hints = None
        if self.config.hints is not None:
            teacher = self.subjects[0].model
            if not isinstance(teacher, LM):
                raise InputError(f"{self.config.teachers[0]}: hints are read from models of ours; take it over with: ritornello import")
            hints = Hints(model, teacher, self.config.hints)
        return Distill(model, self.lesson, self.config, hints, train.objective)


def enrol(asked: TeachConfig, corpus: Corpus, tokenizer: Tokenizer, tokens: Tokens, console: Console, device: str = "cpu") -> School:
    """Open the teachers of a run on its device and make its lesson. InputError for one that is not what it was, or does not fit."""
    subjects = tuple(open_teacher(spec, device) for spec in asked.teachers)
    sums = tuple(subject.sha256 for subject in subjects)
    for spec, was, found in zip(asked.teachers, asked.sha256, sums, strict=False):
        if was != found:
            raise InputError(f"{spec}: not the teacher this run began with; restore it")
    config = replace(asked, sha256=sums)
    if not config.listens:
        return School(config, subjects, None)
    if config.match == "bytes":
        return School(config, subjects, *_aligned(config, subjects, corpus, tokenizer, tokens, console))
    for spec, subject in zip(asked.teachers, subjects, strict=True):
        _expect_same(spec, subject.tokenizer, tokenizer)
    teachers = Teachers([subject.model for subject in subjects], tokenizer.size, config.temperature, config.average)
    if config.top is None:
        return School(config, subjects, Live(teachers))
    window = min(subject.window for subject in subjects)
    return School(config, subjects, *_kept(config, teachers, window, corpus, tokenizer, tokens, console))


def open_teacher(spec: str, device: str = "cpu") -> CausalSubject:
    """A causal model, of ours or any other. InputError for what is none."""
    subject = open_subject(spec, device=device)
    if not isinstance(subject, CausalSubject):
        raise InputError(f"{spec}: a masked model sees the tokens that a student is to predict; use a causal one")
    return subject


def _expect_same(spec: str, theirs: Tokenizer, own: Tokenizer) -> None:
    """InputError unless every id means the same to both."""
    if (theirs.bos, theirs.eos, theirs.token_bytes) == (own.bos, own.eos, own.token_bytes):
        return
    pairs = zip(theirs.token_bytes, own.token_bytes, strict=False)
    where = next((f"id {index} is {a!r}, the student's {b!r}" for index, (a, b) in enumerate(pairs) if a != b), "other ends of a text")
    if theirs.size != own.size:
        where = f"{theirs.size:,} ids, the student's {own.size:,}"
    raise InputError(
        f"{spec}: its tokenizer is another one ({where}); train the student with the teacher's (--tokenizer FILE), or let both give "
        "spans of bytes a probability: teach.match=bytes"
    )


def _kept(
    config: TeachConfig, teachers: Teachers, window: int, corpus: Corpus, tokenizer: Tokenizer, tokens: Tokens, console: Console
) -> tuple[kept.Kept, int]:
    """The teachers' likeliest tokens at every place of the training text, and the tokens that each read for it."""
    assert config.top is not None, "asked for"
    top, parts = config.top, list(_parts(tokens))
    firsts = np.cumsum([0, *(stop - start for _, start, stop in parts)])
    root = _folder(corpus, config, "tokens", config.average, config.temperature, top, window, tokenizer.sha256)

    def make(path: Path, chosen: range) -> None:
        texts = [_text(tokens, tokenizer, document)[start : stop + 1] for document, start, stop in (parts[row] for row in chosen)]
        found = stream(teachers, texts, lambda logits, _: kept.likeliest(logits, top), length=window, carry=not teachers.grows, rows=ROWS)
        kept.write(path, torch.cat(found), int(firsts[chosen.start]), tokenizer.size)

    paths = _files(root, [stop - start for _, start, stop in parts], make, console)
    total = int(firsts[-1])
    return kept.Kept(paths, total, config.temperature, root), total * (2 if teachers.grows else 1)  # windows overlap by half


def _aligned(
    config: TeachConfig, subjects: Sequence[CausalSubject], corpus: Corpus, tokenizer: Tokenizer, tokens: Tokens, console: Console
) -> tuple[Aligned, int]:
    """The teacher's probability of every span of the training text, and the tokens that it read for it."""
    if len(subjects) > 1:
        raise InputError(f"teach.teachers: {len(subjects)}; with teach.match=bytes one teaches, as each cuts spans of its own")
    subject = subjects[0]
    for name, each in (("student's", tokenizer), ("teacher's", subject.tokenizer)):
        if not each.lossless:
            raise InputError(f"teach.match=bytes: the {name} tokenizer loses text, so its tokens have no bytes; use one that keeps all")
    theirs = encode_corpus(corpus, "train", subject.tokenizer, console.progress)
    root = _folder(corpus, config, "bytes", subject.window, tokenizer.sha256, subject.tokenizer.sha256)

    def make(path: Path, chosen: range) -> None:
        texts = [_text(theirs, subject.tokenizer, document) for document in chosen]
        nats = _read(subject, texts)
        found = [
            spans(_offsets(tokens, tokenizer, document), _offsets(theirs, subject.tokenizer, document), each)
            for document, each in zip(chosen, nats, strict=True)
        ]
        ends, of_span = (torch.from_numpy(np.concatenate(each)) for each in zip(*found, strict=True))
        folder.write_tensors(path, {"ends": ends, "nats": of_span.float()}, {})

    sizes = np.diff(tokens.ends, prepend=0) + 1
    tables = [_read_spans(path) for path in _files(root, sizes.tolist(), make, console)]
    ends, of_span = (torch.cat([table[name] for table in tables]).numpy() for name in ("ends", "nats"))
    read = (len(theirs.ids) + len(theirs.ends)) * (2 if getattr(subject.model, "grows", True) else 1)
    return Aligned(ends, of_span, config.temperature), read


def _read(subject: CausalSubject, texts: list[Tensor]) -> list[np.ndarray]:
    """The nats of each text's targets, a very long one in parts that begin anew."""
    pieces = [text[start : start + PLACES + 1] for text in texts for start in range(0, len(text) - 1, PLACES)]
    carry = not getattr(subject.model, "grows", True)
    found = iter(stream(subject.model, pieces, token_nats, length=subject.window, carry=carry, rows=ROWS))
    return [np.concatenate([next(found).numpy() for _ in range(0, len(text) - 1, PLACES)]) for text in texts]


def _read_spans(path: Path) -> dict[str, Tensor]:
    try:
        return folder.read_tensors(path)[0]
    except InputError as error:
        raise InputError(f"{error}; delete it, and it is made anew") from error


def _folder(corpus: Corpus, config: TeachConfig, *about: object) -> Path:
    key = hashlib.sha256(json.dumps([FORMAT, PLACES, config.sha256, *about]).encode()).hexdigest()[:32]
    path = corpus.folder / f"lesson-{key}"
    path.mkdir(exist_ok=True)
    return path


def _files(root: Path, sizes: Sequence[int], make: Callable[[Path, range], None], console: Console) -> list[Path]:
    """The files of consecutive things of these sizes, in order; those that are missing are made."""
    groups, first, held = [], 0, 0
    for row, size in enumerate(sizes):
        held += size
        if held >= PLACES or row == len(sizes) - 1:
            groups.append(range(first, row + 1))
            first, held = row + 1, 0
    paths = [root / f"{group.start:09d}-{group.stop:09d}.safetensors" for group in groups]
    missing = [(path, group) for path, group in zip(paths, groups, strict=True) if not path.exists()]
    with fast_reading() if missing else nullcontext():
        for number, (path, group) in enumerate(missing):
            console.progress(f"the teachers read the training text: part {len(paths) - len(missing) + number + 1} of {len(paths)}")
            make(path, group)
    if missing:
        nbytes = sum(path.stat().st_size for path in paths)
        console.say(f"what the teachers make of the training text is kept: {nbytes / 1e6:,.1f} MB for {sum(sizes):,} places")
    return paths


def _parts(tokens: Tokens) -> Iterator[tuple[int, int, int]]:
    """(document, first target, end) of all documents, a very long one in parts."""
    for document, size in enumerate((np.diff(tokens.ends, prepend=0) + 1).tolist()):
        for start in range(0, size, PLACES):
            yield document, start, min(size, start + PLACES)


def _text(tokens: Tokens, tokenizer: Tokenizer, document: int) -> Tensor:
    """BOS t1 .. tn EOS."""
    ids = tokens.ids[_begin(tokens, document) : tokens.ends[document]].astype(np.int64)
    return torch.cat([torch.tensor([tokenizer.bos]), torch.from_numpy(ids), torch.tensor([tokenizer.eos])])


def _offsets(tokens: Tokens, tokenizer: Tokenizer, document: int) -> np.ndarray:
    """Bytes from a document's beginning to the end of each of its tokens."""
    return tokenizer.nbytes(_text(tokens, tokenizer, document)[1:-1]).cumsum(0).numpy()


def _begin(tokens: Tokens, document: int) -> int:
    return int(tokens.ends[document - 1]) if document else 0
