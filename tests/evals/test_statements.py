"""Ranked statements and last words from a user's files, by hand."""

import json
import math

import pytest
import torch
from told import Told, rows_of, uniform
from torch import nn

from ritornello.errors import InputError
from ritornello.evals.lastword import KNOWN, PERPLEXITY, last_words_suite, read_texts
from ritornello.evals.statements import statements_suite
from ritornello.evals.subject import CausalSubject, Request


def write(path, *records):
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def test_ranked_statements_by_hand(tmp_path):
    """By the sum the short statement wins, by the mean the one with the better letters."""
    path = write(
        tmp_path / "facts.jsonl", {"statements": ["aaaa", "b"], "answer": 0}, {"statements": ["b", "b", "a"], "answer": 1, "note": "left"}
    )
    (task,) = statements_suite("own").tasks(path, None)
    outcome = task.run(Told(lambda request: sum({"a": -1.0, "b": -2.0}[letter] for letter in request.text)), None)
    rows = {row.metric: row for row in outcome.rows}
    assert [each["pred"] for each in outcome.predictions] == [1, 2]
    assert rows["accuracy (official)"].value == 0
    assert rows["accuracy (mean per token)"].value == 0.5
    assert rows["accuracy (official)"].chance == pytest.approx((1 / 2 + 1 / 3) / 2)
    assert {(row.suite, row.task, row.n) for row in outcome.rows} == {("own", "facts", 2)}
    assert len(rows) == 4
    (one,) = statements_suite("own").tasks(path, 1)
    assert rows_of(one.run(Told(uniform), None), "accuracy (official)").n == 1
    assert one.sha256 != task.sha256


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"statements": ["a"], "answer": 0}, "statements must be a list of two texts or more, found"),
        ({"statements": ["a", ""], "answer": 0}, "statements must be a list of two texts or more, found"),
        ({"statements": ["a", "b"], "answer": 2}, "answer must be a whole number from 0 to 1, found 2$"),
        ({"statements": ["a", "b"], "answer": True}, "answer must be a whole number from 0 to 1, found True$"),
        ({"statements": ["a", "b"]}, "answer missing; found statements$"),
    ],
)
def test_broken_statements(tmp_path, record, message):
    (task,) = statements_suite("own").tasks(write(tmp_path / "x.jsonl", record), None)
    with pytest.raises(InputError, match=r"x.jsonl:1: " + message):
        task.run(Told(uniform), None)


def test_last_words_by_hand(tmp_path):
    path = write(tmp_path / "x.jsonl", {"text": "the cat sat "}, {"text": "a  dog"})
    assert read_texts(path) == [Request("the cat sat", 7), Request("a  dog", 1)]
    (task,) = last_words_suite("own").tasks(path, None)
    outcome = task.run(Told(lambda request: {" sat": 0.0, "  dog": -3.0}[request.text[request.start :]]), None)
    known, perplexity = rows_of(outcome, KNOWN), rows_of(outcome, PERPLEXITY)
    assert (known.value, known.n, known.stderr) == (0.5, 2, pytest.approx(0.5 / math.sqrt(2)))
    assert perplexity.value == pytest.approx(math.exp(1.5))
    assert perplexity.stderr == pytest.approx(math.exp(1.5) * 1.5 / math.sqrt(2))
    assert [each["pred"] for each in outcome.predictions] == [True, False]
    means = last_words_suite("own").means(outcome.rows)
    assert [(row.task, row.value) for row in means] == [("all", known.value), ("all", perplexity.value)]


def test_plain_text_is_a_text_a_line(tmp_path):
    path = tmp_path / "x.txt"
    path.write_text("one two\n\n three four five\n")
    assert read_texts(path) == [Request("one two", 3), Request(" three four five", 11)]
    path.write_text("one two\nalone\n")
    with pytest.raises(InputError, match=r"x.txt:2: a text needs a word before its last one, found 'alone'$"):
        read_texts(path)
    path.write_text("\n")
    with pytest.raises(InputError, match="is empty"):
        read_texts(path)


def test_last_words_without_a_number(tmp_path):
    (task,) = last_words_suite("own").tasks(write(tmp_path / "x.jsonl", {"text": "a b"}, {"text": "a c"}), None)
    outcome = task.run(Told(lambda request: math.nan if request.text == "a c" else -1.0), None)
    assert {row.reason for row in outcome.rows} == {"1 of 2 last words have no finite probability"}

    outcome = task.run(Told(lambda request: -800.0), None)
    assert rows_of(outcome, PERPLEXITY).reason == "800 nats a last word: do the texts have spaces?"

    class Masked(Told):
        def greedy(self, requests):
            raise InputError("a masked model has no next token")

    outcome = task.run(Masked(uniform), None)
    assert rows_of(outcome, KNOWN).reason == "a masked model has no next token"
    assert rows_of(outcome, PERPLEXITY).value == pytest.approx(math.e)


class Alphabet:
    """a 1, b 2, c 3; BOS 0."""

    bos, size = 0, 4

    def encode_from(self, texts, starts):
        return [(torch.tensor([ord(letter) - 96 for letter in text]).numpy(), start) for text, start in zip(texts, starts, strict=True)]


class Next(nn.Module):
    """After each letter the next one is the most probable, and a after BOS."""

    def init_state(self, batch):
        return ()

    def forward(self, tokens, state, reset=None):
        return torch.eye(5)[tokens + 1][..., :4], state


@pytest.mark.parametrize("room", [1, 2**27])
def test_a_model_is_greedy_where_each_token_is_the_best(monkeypatch, room):
    monkeypatch.setattr("ritornello.evals.subject.LOGITS_BYTES", room)
    subject = CausalSubject(Next(), Alphabet(), "next", "0")
    requests = [Request("abc"), Request("abb", 2), Request("bbc", 2), Request("ba"), Request("a")]
    assert subject.greedy(requests).tolist() == [True, False, True, False, True]
    assert subject.counts(requests).tolist() == [3, 1, 1, 2, 1]
    assert CausalSubject(Next(), Alphabet(), "next", "0", "official-2025").counts(requests[:4]).tolist() == [2, 1, 1, 1]
