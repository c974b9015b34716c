"""Scorers made by hand: a bigram model whose every score is known, one that gives everything the same, one that is blind to word order."""

import gzip
import json
import math
import re
import zlib
from collections import Counter

import pytest
import tokenizers
import torch
from tokenizers import models, pre_tokenizers
from told import Told, rows_of, uniform
from torch import nn

from ritornello.data.tokenizers import LibraryTokenizer
from ritornello.evals import bear, entity, ewok, files, wug
from ritornello.evals.blimp import FILTERED, pairs_suite
from ritornello.evals.pairs import read_pairs
from ritornello.evals.protected import write_protected
from ritornello.evals.subject import CausalSubject, Request
from ritornello.evals.suite import SUITES

OFFICIAL, SHARED, TIES = "accuracy (official)", "accuracy (half credit)", "ties"
FOLLOWS = {  # p(second | first) is 2 to the power of minus this; the rest of a row goes to <s>, which no text has
    "<s>": {"dogs": 1, "Dogs": 2, "cats": 3, "Cats": 4, "It": 5, "it": 6},
    "dogs": {"bark": 1, "barks": 2, "run": 2},
    "Dogs": {"bark": 2, "barks": 3, "run": 3},
    "cats": {"bark": 3, "barks": 3, "run": 1},
    "Cats": {"bark": 4, "barks": 2, "run": 3},
    "bark": {".": 1, "loud": 2, "cats": 4, "dogs": 5},
    "barks": {".": 1, "loud": 3, "cats": 5},
    "run": {".": 2, "loud": 1, "cats": 3, "dogs": 4},
    "loud": {".": 1, "cats": 3},
    "It": {"is": 1},
    "it": {"is": 2},
    "is": {"loud": 2, "cats": 3, "dogs": 1},
    ".": {"dogs": 1, "cats": 2, "Dogs": 4, "It": 3},
}
VOCABULARY = {word: index for index, word in enumerate(FOLLOWS)}


class Bigram(nn.Module):
    def __init__(self):
        super().__init__()
        chances = torch.zeros(len(VOCABULARY), len(VOCABULARY), dtype=torch.float64)
        for first, row in FOLLOWS.items():
            for second, bits in row.items():
                chances[VOCABULARY[first], VOCABULARY[second]] = 2.0**-bits
        chances[:, 0] = 1 - chances.sum(1)
        self.register_buffer("logits", chances.log())

    def init_state(self, batch):
        return ()

    def forward(self, tokens, state, reset=None):
        return self.logits[tokens], state


class Rounded(CausalSubject):
    """Sums to a millionth of a bit: those that are equal by hand are ties, whatever the order in which a machine adds."""

    def log_probs(self, requests, progress=None):
        return (super().log_probs(requests, progress) / math.log(2)).round(decimals=6) * math.log(2)


@pytest.fixture
def bigram() -> CausalSubject:
    raw = tokenizers.Tokenizer(models.WordLevel(VOCABULARY))
    raw.pre_tokenizer = pre_tokenizers.Whitespace()
    raw.add_special_tokens(["<s>"])
    return Rounded(Bigram(), LibraryTokenizer(raw, (0, 0)), "bigram", "0")


def write(path, *records):
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps(record) + "\n" for record in records))


def test_scores_in_bits(bigram):
    """dogs 1, bark 1, full stop 1; after "dogs" and "dogs bark" only the rest; cats 3, barks 3, loud 3, full stop 1."""
    texts = [("dogs bark.", 0), ("dogs bark.", 4), ("dogs bark.", 9), ("cats barks loud.", 0), ("dogs cats", 0)]
    found = bigram.log_probs([Request(*text) for text in texts])
    assert (found[:4] / -math.log(2)).tolist() == pytest.approx([3, 2, 1, 10])
    assert found[4].isnan()  # it cannot happen
    assert bigram.counts([Request(*text) for text in texts]).tolist() == [3, 2, 1, 4, 2]


def test_pairs(bigram, tmp_path):
    """3 bits against 4; 5 against 7; 10 against 6, which is wrong; 7 against 7, a tie."""
    pairs = [("dogs bark.", "dogs barks."), ("dogs run.", "Dogs run."), ("cats barks loud.", "cats run."), ("cats bark.", "cats barks.")]
    write(tmp_path / "agreement.jsonl", *({"good": good, "bad": bad} for good, bad in pairs))
    (task,) = pairs_suite("mine").tasks(tmp_path, None)
    outcome = task.run(bigram, None)
    assert {row.metric: row.value for row in outcome.rows} == {OFFICIAL: 3 / 4, SHARED: 2.5 / 4, TIES: 1 / 4}
    assert [each["pred"] for each in outcome.predictions] == [" dogs bark.", " dogs run.", " cats run.", " cats bark."]


def test_ewok(bigram, tmp_path, monkeypatch):
    """Bits of "dogs" and "cats": 1 and 2 after a full stop, whatever came before it; after "bark" 5 and 4, "run" 4 and 3, "is" 1 and 3.

    official: a row is right where target 1 is better after context 1, and the next row where target 2 is after context 2.
    two-sided: target 1 after context 1 against itself after context 2; target 2 the other way round; the mean of both.
    """
    items = [("it.", "It.", "dogs", "cats"), ("it bark", "it is", "cats", "dogs"), ("it run", "it is", "cats", "dogs")]
    lines = [f"d,{','.join(item)}" for item in items]
    content = "\n".join(["the mark", "Domain,Context1,Context2,Target1,Target2", *lines]).encode()
    write_protected(tmp_path / ewok.ARCHIVE, "a/x__vers=0/testsuite-d.csv", content, ewok.PASSWORD)
    monkeypatch.setattr(ewok, "checksums", lambda: {"ewok": {"d": ewok.hashlib.sha256(content).hexdigest()}})
    (task,) = ewok.FULL.tasks(tmp_path, None)
    outcome = task.run(bigram, None)
    assert rows_of(outcome, OFFICIAL).value == (1 + 0 + 1 + 1 + 1 + 1) / 6
    # two ties; cats 4 against 3 is wrong, dogs 1 against 5 right; cats 3 against 3 is a tie, dogs 1 against 4 right
    assert rows_of(outcome, ewok.TWO_SIDED).value == (0.5 + 0.5 + 0.75) / 3
    assert rows_of(outcome, TIES).value == 0
    assert [each["pred"] for each in outcome.predictions] == [1, 2, 1, 1, 1, 1]


def test_bear(bigram, tmp_path, monkeypatch):
    """[X] [Y].: Dogs bark. 2 + 2 + 1 bits, Dogs run loud. 2 + 3 + 1 + 1; Cats bark. 4 + 4 + 1, Cats run loud. 4 + 3 + 1 + 1: a tie.

    It is [X] [Y].: dogs bark. 1 + 1, dogs run loud. 2 + 1 + 1 after the same beginning; cats bark. 3 + 1, cats run loud. 1 + 1 + 1.
    """
    about = {"P1": {"templates": ["[X] [Y].", "It is [X] [Y]."], "answer_space_labels": ["bark", "run loud"]}}
    write(tmp_path / "metadata_relations.json", about)
    write(tmp_path / "P1.jsonl", {"sub_label": "dogs", "obj_label": "run loud"}, {"sub_label": "cats", "obj_label": "run loud"})
    known = {"bear": {"P1": None}, "files": {"BEAR/metadata_relations.json": None}}
    monkeypatch.setattr(bear, "checksums", lambda: known)
    monkeypatch.setattr(files, "checksums", lambda: known)
    (task,) = bear.SUITE.tasks(tmp_path, None)
    outcome = task.run(bigram, None)
    assert outcome.predictions == ({"id": "P1_0", "pred": ["bark", "bark"]}, {"id": "P1_1", "pred": ["bark", "run loud"]})
    assert rows_of(outcome, "accuracy (template 1)").value == 0
    assert rows_of(outcome, "accuracy (template 2)").value == 1 / 2
    assert rows_of(outcome, OFFICIAL).value == 1 / 4
    assert rows_of(outcome, SHARED).value == (0.5 + 1) / 4
    # a token: 5/3 against 7/4 and 9/3 against 9/4; It is: 9/5 against 11/6 and 13/5 against 12/6
    assert rows_of(outcome, bear.PER_TOKEN).value == (0 + 1 + 0 + 1) / 4


def test_entity(bigram, tmp_path, monkeypatch):
    """After "dogs": bark. 2 bits, run. 4; after "cats": run. 3, bark. 4, barks. 4. The story itself is not counted."""
    items = [("dogs", ["bark.", "run."], 0), ("cats", ["bark.", "run."], 0), ("cats", ["run.", "bark.", "barks."], 1)]
    write(tmp_path / "one.jsonl", *({"input_prefix": f"{start} ", "options": options, "numops": n} for start, options, n in items))
    monkeypatch.setattr(files, "checksums", lambda: {"entity": {"one": None}})
    rows = [row for task in entity.SUITE.tasks(tmp_path, None) for row in task.run(bigram, None).rows]
    found = {(row.task, row.metric): row.value for row in (*rows, *entity.SUITE.means(rows))}
    assert [found[name, OFFICIAL] for name in ("one_0_ops", "one_1_ops", "all")] == [0.5, 1, 0.75]


def test_wug(bigram, tmp_path, monkeypatch):
    """Bits of the first less those of the second: 3 - 4, 7 - 7, 6 - 5 and 10 - 6; the shares are 2/3, 1/2, 1/3 and 1/17.

    People's ranks, from the least, are 4 2 3 1 where the model's are 4 3 2 1: r = 1 - 6 (1 + 1) / (4 (16 - 1)) = 0.8.
    """
    items = [("dogs bark.", "dogs barks.", 0.9), ("cats bark.", "cats barks.", 0.3)]
    items += [("Dogs barks.", "dogs run.", 0.5), ("cats barks loud.", "cats run.", 0.1)]
    for name in ("wug_past_tense", "wug_adj_nominalization"):
        write(tmp_path / name / f"{name}.jsonl", *({"sentences": f"{one}\t{two}", "ratio": ratio} for one, two, ratio in items))
    monkeypatch.setattr(wug, "checksums", lambda: {"wug": {"wug_past_tense": None, "wug_adj_nominalization": None}})
    for task in wug.SUITE.tasks(tmp_path, None):
        outcome = task.run(bigram, None)
        assert outcome.rows[0].value == pytest.approx(0.8)
        assert [each["prob"] for each in outcome.predictions] == pytest.approx([2 / 3, 1 / 2, 1 / 3, 1 / 17])


@pytest.mark.parametrize(
    ("name", "official", "shared"),
    [("blimp", 1, 1 / 2), ("supplement", 1, 1 / 2), ("ewok", 1, 1 / 2), ("entity", 1, None), ("bear", None, None)],
)
def test_a_constant_scorer_on_the_real_items(name, official, shared, real_data):
    """By the official rule it is always right where the right one comes first. With credit shared it gets what chance gets."""
    entry = SUITES[name]
    outcomes = [task.run(Told(uniform), None) for task in entry.load().tasks(real_data / entry.path, 20)]
    for outcome in outcomes:
        row = rows_of(outcome, SHARED)
        assert row.value == pytest.approx(row.chance)
        assert shared in (None, row.value)
        assert rows_of(outcome, TIES).value == 1
        assert official in (None, rows_of(outcome, OFFICIAL).value)
    if name == "ewok":
        assert {rows_of(outcome, ewok.TWO_SIDED).value for outcome in outcomes} == {0.5}
    if name == "bear":
        with gzip.open(real_data / entry.path / "metadata_relations.json.gz", "rt") as file:
            firsts = {relation: about["answer_space_labels"][0] for relation, about in json.load(file).items()}
        for outcome in outcomes:
            assert all(set(each["pred"]) == {firsts[each["id"].split("_")[0]]} for each in outcome.predictions)


def test_a_scorer_blind_to_word_order_ties_where_the_words_are_the_same(real_data):
    """A fifth of filtered BLiMP, in 16 subtasks."""

    def words(text: str) -> list[str]:
        return re.sub(r"[^\w\s]", "", text.lower()).split()

    def score(request: Request) -> float:
        return -float(sum(zlib.crc32(word.encode()) for word in words(request.text)))

    path = real_data / SUITES["blimp"].path
    rows = [rows_of(task.run(Told(score), None), TIES) for task in FILTERED.tasks(path, None)]
    same = {
        name: sum(Counter(words(pair.good)) == Counter(words(pair.bad)) for pair in pairs) / len(pairs)
        for name, pairs in read_pairs(path).items()
    }
    assert {row.task: row.value for row in rows} == same
    assert round(sum(row.n * row.value for row in rows)) == 11954
    assert sum(row.n for row in rows) == 59875
    assert sum(row.value > 0 for row in rows) == 16
