"""Planted overlaps are counted by hand, over document borders there are none, and protected items stay inside."""

import json

import pytest

from ritornello.data.corpus import read_corpus
from ritornello.errors import InputError
from ritornello.experiments import overlap as module
from ritornello.experiments.console import Console
from ritornello.experiments.items import READERS, read_items
from ritornello.experiments.overlap import overlap, there

TRAINING = [
    "Once the old king and his three daughters lived by the sea, in a house of white stone that the wind could not move.",
    "She sells shells. The keys to the cabinet are on the table",
    "in the kitchen every single day of the week, and nobody knows.",
    *(f"filler{number} stands here" for number in range(40)),
]
PAIRS = [  # good and bad; what each shares with the training text
    ("The old king and his three daughters lived by the river.", "The old king and his three daughters lives by."),  # 9 words in a row
    ("once the OLD king and his three daughters lived by the sea in a house", "sea"),  # 15 words: 13 in a row, in whole
    ("She sells shells!", "She sell shells."),  # in whole, and with a word that is not there: sell
    ("The keys to the cabinet are on the table in the kitchen", "keys table"),  # 9 in a row; 12 only across two documents
    ("Nobody knows zzz.", "nobody zzz knows"),  # an unseen word
]


@pytest.fixture
def corpus(tmp_path):
    (tmp_path / "text.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in TRAINING), encoding="utf-8")
    found = read_corpus(str(tmp_path / "text.jsonl"), cache=tmp_path / "cache")
    assert all(any(text in found.text(span) for span in found.train) for text in TRAINING[:3])  # not held out
    return found


@pytest.fixture
def data(tmp_path):
    place = tmp_path / "data" / "babylm_eval" / "blimp_fast"
    place.mkdir(parents=True)
    lines = [json.dumps({"sentence_good": good, "sentence_bad": bad}) for good, bad in PAIRS]
    (place / "one.jsonl").write_text("\n".join(lines[:2]), encoding="utf-8")
    (place / "two.jsonl").write_text("\n".join(lines[2:]), encoding="utf-8")
    return tmp_path / "data"


WANT = {
    "suite": "blimp-fast", "items": 5, "items_of_8_words": 3, "overlap_8": 3, "items_of_13_words": 1, "overlap_13": 1, "whole": 2,
    "unseen_word": 3, "overlap_8_share": 0.6, "overlap_13_share": 0.2, "whole_share": 0.4, "unseen_word_share": 0.6,
}  # fmt: skip


@pytest.mark.parametrize("block", [1 << 20, 20, 1])
def test_planted_overlaps(corpus, data, monkeypatch, block):
    """Whatever the size of the blocks the text is read in."""
    monkeypatch.setattr(module, "BLOCK", block)
    assert overlap(corpus, ["blimp-fast"], data) == [WANT]


def test_a_long_document_is_compared_across_its_pieces(tmp_path, data, monkeypatch):
    """Documents of two pieces with 13 words around the seam: 3 before it and 10 after, and so on to 12 and 1."""
    monkeypatch.setattr(module, "BLOCK", 1)
    phrases = [[f"p{document}q{word}" for word in range(13)] for document in range(24)]
    texts = []
    for number, phrase in enumerate(phrases):
        before = " ".join(phrase[: number % 12 + 1])
        texts.append(f"{'f' * 9} " * (((1 << 16) - len(before) - 20) // 10) + "g" * 10 + " " + " ".join(phrase) + " and more of it" * 9)
    (tmp_path / "long.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in texts), encoding="utf-8")
    corpus = read_corpus(str(tmp_path / "long.jsonl"), cache=tmp_path / "cache")
    trained = {corpus.text(span) for span in corpus.train}
    pairs = [json.dumps({"good": " ".join(phrase), "bad": "f"}) for text, phrase in zip(texts, phrases, strict=True) if text in trained]
    (data / "babylm_eval" / "blimp_fast" / "one.jsonl").write_text("\n".join(pairs), encoding="utf-8")
    (data / "babylm_eval" / "blimp_fast" / "two.jsonl").unlink()
    row = overlap(corpus, ["blimp-fast"], data)[0]
    assert row["overlap_13"] == row["items"] == len(pairs) > 20


def test_a_set_that_cannot_be_read_is_named_and_the_rest_counted(corpus, data):
    rows = overlap(corpus, ["ewok", "glue-2024", "blimp-fast"], data)
    assert [row["suite"] for row in rows] == ["ewok", "glue-2024", "blimp-fast"]
    assert "cannot be read" in rows[0]["reason"]
    assert rows[1]["reason"] == "the same items as glue's"
    assert rows[2] == WANT
    with pytest.raises(InputError, match="unknown suite 'blimpfast'"):
        overlap(corpus, ["blimpfast"], data)
    assert there(data) == ["blimp-fast", "wug"]  # which lie side by side


def test_protected_items_are_counted_and_never_told(corpus, real_data, monkeypatch, capsys):
    items = read_items("ewok", real_data / "ewok")
    monkeypatch.setattr(module, "read_items", lambda name, path: items)
    rows = overlap(corpus, ["ewok"], real_data, Console())
    assert rows[0]["items"] == len(items) > 3000
    assert rows[0]["unseen_word"] == len(items)  # of a training text of a few sentences
    told = json.dumps(rows) + "".join(capsys.readouterr())
    known = {word for item in items for text in item for word in text.split() if len(word) > 5}
    assert not known & set(told.replace('"', " ").split())


def test_the_sets_of_the_data_folder_can_be_read(real_data):
    counts = {"blimp-fast": 13_400, "bear": 7731, "wug": 250, "reading": 205, "entity": 9483, "supplement": 842 + 64 + 165 + 3867 + 280}
    assert {name: len(read_items(name, real_data / module.SUITES[name].path)) for name in counts} == counts
    assert len(read_items("glue", real_data / "glue")) > 10_000
    assert set(there(real_data)) == set(READERS) - {"bear-big"}
