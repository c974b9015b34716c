"""Lessons: what teachers make of a text is kept on disk, token for token or as spans of bytes, and is what they say."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from schooling import QUIET, config, material

import ritornello
from ritornello.data.corpus import read_corpus
from ritornello.data.tokenizers import load_tokenizer, train_bpe
from ritornello.data.tokens import encode_corpus
from ritornello.errors import InputError
from ritornello.evals.scoring import stream_nats
from ritornello.experiments import lessons
from ritornello.experiments.lessons import enrol, open_teacher
from ritornello.model import LM
from ritornello.train.distill import Live, TeachConfig
from ritornello.train.hints import HintConfig
from ritornello.train.loop import Trainer
from ritornello.train.teachers import Teachers

pytestmark = pytest.mark.usefixtures("there")


@pytest.fixture
def small_files(monkeypatch):
    monkeypatch.setattr(lessons, "PLACES", 2000)


@pytest.fixture
def lively(monkeypatch):
    """A teacher to whom every token it has read matters."""
    subject = replace(open_teacher("teacher"), sha256="lively")
    for weight in subject.model.parameters():
        weight.data *= 3
    monkeypatch.setattr(lessons, "open_teacher", lambda spec, device: subject)
    return subject


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_kept_opinions_of_every_token_are_those_of_the_teachers(small_files, lively, temperature):
    """Where a document began in the row both have read the same; a kept number is a float16."""
    one = material()
    teach = TeachConfig(teachers=("teacher",), top=257, temperature=temperature)
    school = enrol(teach, one.corpus, one.tokenizer, one.train, QUIET)
    assert school.read == one.unique
    batch = one.batches(replace(config("teacher").train, batch=2, length=600))(1, 0)
    begun = batch.reset.long().cumsum(1) > 1
    assert begun.sum() > 600
    batch = batch._replace(targets=batch.targets.where(begun, -100))
    live = Live(Teachers([lively.model], 257, temperature))
    logits = torch.randn(2, 600, 257, generator=torch.Generator().manual_seed(0))
    found, wanted = (lesson(batch, logits, lesson.init_state(2))[0] for lesson in (school.lesson, live))
    assert float(found) == pytest.approx(float(wanted), rel=2e-3)
    log_p = live.teachers(batch.tokens, live.init_state(2), batch.reset)[0]
    assert float(school.lesson(batch, log_p * temperature, ())[0]) < 1e-4 * float(wanted)  # of a student that agrees with its teacher
    few = enrol(replace(teach, top=5), one.corpus, one.tokenizer, one.train, QUIET).lesson
    assert 0.05 * float(wanted) < float(few(batch, logits, ())[0]) < float(wanted)


def test_a_stopped_pass_goes_on_and_a_damaged_file_is_refused(small_files, monkeypatch):
    one, calls, stream = material(), [], lessons.stream
    for old in one.corpus.folder.glob("lesson-*"):
        shutil.rmtree(old)
    teach = TeachConfig(teachers=("teacher",), top=3)

    def stop(*given, **named):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return stream(*given, **named)

    monkeypatch.setattr(lessons, "stream", stop)
    with pytest.raises(KeyboardInterrupt):
        enrol(teach, one.corpus, one.tokenizer, one.train, QUIET)
    enrol(teach, one.corpus, one.tokenizer, one.train, QUIET)
    made = len(calls)
    (files,) = one.corpus.folder.glob("lesson-*")
    assert made == 4
    enrol(teach, one.corpus, one.tokenizer, one.train, QUIET)
    assert len(calls) == made
    spoiled = sorted(files.iterdir())[2]
    data = bytearray(spoiled.read_bytes())
    data[-5] ^= 1
    spoiled.write_bytes(data)
    with pytest.raises(InputError, match=rf"{spoiled.name}: damaged: .*; delete it, and it is made anew"):
        enrol(teach, one.corpus, one.tokenizer, one.train, QUIET)
    spoiled.unlink()
    enrol(teach, one.corpus, one.tokenizer, one.train, QUIET)
    assert len(calls) == made + 1


def test_spans_have_the_teachers_probabilities(ground, small_files):
    """Of every document the spans' nats make the teacher's whole, and a span ends just where a token of both does."""
    corpus = read_corpus("text.txt", documents="blank")
    own, theirs = train_bpe(["the cat sat on the mat and the dog saw its old home"] * 3, 280), load_tokenizer(Path("words/tokenizer.json"))
    tokens, words = (encode_corpus(corpus, "train", tokenizer) for tokenizer in (own, theirs))
    lesson = enrol(TeachConfig(teachers=("words",), match="bytes"), corpus, own, tokens, QUIET).lesson
    model = ritornello.load("words").model
    scored = stream_nats(model, words.ids, words.ends, bos=theirs.bos, eos=theirs.eos, length=32, carry=True)
    starts = np.concatenate([[0], tokens.ends])
    for document in (0, 3, len(tokens.ends) - 1):
        places = slice(starts[document] + document, starts[document + 1] + document + 1)
        nats = scored.nats[scored.documents == document].double()
        assert lesson.nats[places].sum() == pytest.approx(float(nats.sum()), rel=1e-5)
        pieces = [own.token_bytes[index] for index in tokens.ids[starts[document] : starts[document + 1]]]
        first = next(end for end in range(1, len(pieces)) if lesson.ends[places][end - 1])
        head = b"".join(pieces[:first])
        others = np.cumsum([len(theirs.token_bytes[index]) for index in words.ids[([0, *words.ends])[document] : words.ends[document]]])
        assert len(head) in others
        assert lesson.nats[places][first - 1] == pytest.approx(float(nats[: int((others <= len(head)).sum())].sum()), rel=1e-5)


def test_equal_tokenizers_make_a_span_of_every_token(small_files):
    one = material("words")
    lesson = enrol(TeachConfig(teachers=("words",), match="bytes", temperature=3.0), one.corpus, one.tokenizer, one.train, QUIET).lesson
    assert lesson.ends.all()
    batch = one.batches(config("words").train)(0, 1)
    logits = torch.randn(4, 32, 300, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    q = logits.log_softmax(-1).gather(-1, batch.targets[..., None])[..., 0] / 3
    p = -torch.from_numpy(lesson.nats)[batch.places] / 3
    wanted = 3 * (p.exp() * (p - q) + (1 - p.exp()) * torch.log((1 - p.exp()) / (1 - q.exp()))).sum()
    assert float(lesson(batch, logits, ())[0]) == pytest.approx(float(wanted), rel=1e-6)


def test_a_span_that_began_before_the_piece_is_left_out(small_files):
    one = material()
    lesson = enrol(TeachConfig(teachers=("words",), match="bytes"), one.corpus, one.tokenizer, one.train, QUIET).lesson
    batch = one.batches(config("teacher").train)(0, 3)
    logits = torch.randn(4, 32, 257, generator=torch.Generator().manual_seed(0), requires_grad=True)
    lesson(batch, logits, ())[0].backward()
    heard = logits.grad.abs().sum(-1) > 0
    for row in range(4):
        ends = lesson.ends[batch.places[row]]
        first = 0 if lesson.ends[batch.places[row, 0] - 1] else int(ends.argmax()) + 1
        last = 32 - int(ends[::-1].argmax())
        assert heard[row].tolist() == [first <= place < last for place in range(32)]


WAYS = {
    "asked at each step": {"teachers": ("teacher",)},
    "kept": {"teachers": ("teacher",), "top": 8},
    "hints": {"teachers": ("teacher",), "hints": HintConfig()},
    "bytes": {"teachers": ("words",), "match": "bytes"},
}


@pytest.mark.parametrize("name", WAYS)
def test_every_way_of_teaching_takes_bfloat16_products(name):
    """The loss of one batch is, but for rounding, that of float32, and so is its gradient."""
    one, found = material(), {}
    school = enrol(TeachConfig(**WAYS[name]), one.corpus, one.tokenizer, one.train, QUIET)
    for precision in ("float32", "bfloat16"):
        torch.manual_seed(0)
        train = replace(config("teacher").train, precision=precision, batch=2, length=16)
        told = next(Trainer(school.loss(LM(config("teacher").model), train), one.batches(train), train).steps())
        found[precision] = [told[each] for each in ("loss", "taught", "grad_norm")]
    assert found["bfloat16"] != found["float32"]
    assert found["bfloat16"] == pytest.approx(found["float32"], rel=0.05)
