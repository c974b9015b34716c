"""Documents as ids: those of each document alone, kept beside the corpus."""

import numpy as np
import pytest

from ritornello.data import tokens
from ritornello.data.corpus import read_corpus
from ritornello.data.tokenizers import ByteTokenizer, train_bpe
from ritornello.data.tokens import encode_corpus
from ritornello.errors import InputError


@pytest.fixture
def corpus(tmp_path):
    lines = [f"line {index} of some text, {'and more ' * (index % 7)}" for index in range(60)]
    (tmp_path / "a.txt").write_text("\n".join(lines))
    return read_corpus(str(tmp_path / "a.txt"), documents="line", cache=tmp_path / "cache")


@pytest.mark.parametrize("group", [(1, 5), (100, 7), (1 << 20, 1 << 14)])
@pytest.mark.parametrize("kind", ["bytes", "bpe"])
@pytest.mark.parametrize("piece", [16, 1 << 16])
def test_documents_are_encoded_one_by_one(corpus, monkeypatch, group, kind, piece):
    tokenizer = ByteTokenizer() if kind == "bytes" else train_bpe([text for _, text in corpus.pieces("train")], 300)
    pieces = type(corpus).pieces
    monkeypatch.setattr(type(corpus), "pieces", lambda self, split: pieces(self, split, piece))
    monkeypatch.setattr(tokens, "GROUP", group[0])
    monkeypatch.setattr(tokens, "TEXTS", group[1])
    for split in ("train", "held_out"):
        found = encode_corpus(corpus, split, tokenizer)
        spans = getattr(corpus, split)
        assert (found.ids.dtype, found.ends.dtype) == (np.uint16, np.int64)
        assert len(found.ends) == len(spans)
        texts = [tokenizer.decode(ids.tolist()) for ids in np.split(found.ids, found.ends[:-1])]
        assert texts == [corpus.text(span) for span in spans]
        assert found.ends[-1] == len(found.ids)


def test_the_second_time_nothing_is_encoded(corpus, monkeypatch):
    said = []
    first = encode_corpus(corpus, "train", ByteTokenizer(), said.append)
    monkeypatch.setattr(ByteTokenizer, "encode_many", None)
    again = encode_corpus(corpus, "train", ByteTokenizer(), said.append)
    assert np.array_equal(first.ids, again.ids)
    assert said == ["encoding the train text of a"]


def test_a_large_vocabulary_takes_four_bytes(corpus, monkeypatch):
    monkeypatch.setattr(ByteTokenizer, "size", 70_000)
    assert encode_corpus(corpus, "train", ByteTokenizer()).ids.dtype == np.uint32


def test_a_tokenizer_that_finds_nothing(corpus, monkeypatch):
    monkeypatch.setattr(ByteTokenizer, "encode_many", lambda self, texts: [np.zeros(0, np.uint8) for _ in texts])
    with pytest.raises(InputError, match="a: the tokenizer makes no tokens of its held-out text"):
        encode_corpus(corpus, "held_out", ByteTokenizer())
