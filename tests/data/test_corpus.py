"""Documents and held-out text by the rules, in a cache that survives whatever happens to the process that fills it."""

import errno
import io
import json
import os
import signal
import subprocess
import sys
import tracemalloc
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ritornello.data import build, corpus
from ritornello.data.corpus import Corpus, cached, read_corpus, verify_sources
from ritornello.errors import InputError


@pytest.fixture
def read(tmp_path):
    """Writes files and reads them as a corpus."""

    def read(files: dict[str, str] | str | bytes, spec: str = "", **options) -> Corpus:
        folder = tmp_path / "in"
        for name, text in (files if isinstance(files, dict) else {"a.txt": files}).items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(text if isinstance(text, bytes) else text.encode())
        where = folder / spec if isinstance(files, dict) else folder / "a.txt"
        return read_corpus(str(where), cache=tmp_path / "cache", **options)

    return read


def documents(found: Corpus) -> list[str]:
    """All documents in the order of the text; those that were cut are whole again."""
    spans = sorted([*found.train.tolist(), *found.held_out.tolist()])
    texts: list[str] = []
    for index, span in enumerate(spans):
        follows = index and spans[index - 1][1] == span[0]
        texts[len(texts) - 1 if follows else len(texts) :] = [(texts[-1] if follows else "") + found.text(span)]
    return texts


def text_of(found: Corpus, split: str) -> str:
    return "".join(text for _, text in found.pieces(split))


WORDS = "word " * 199 + "word"


def test_auto_parts_at_blank_lines_if_the_median_block_has_200_words(read):
    long = read(f"\n{WORDS}\n\n \n{WORDS} more\nlines\n\nshort\n")
    assert (long.documents, documents(long)) == ("blank", [WORDS, f"{WORDS} more\nlines", "short"])
    assert long.words == 200 + 202 + 1
    short = read(f"{WORDS}\n\nshort\n\nshort\n")
    assert (short.documents, documents(short)) == ("file", [f"{WORDS}\n\nshort\n\nshort"])


def test_the_median_of_an_even_number_of_blocks(read):
    assert read(f"{WORDS} {WORDS}\n\nshort\n").documents == "blank"  # (400 + 1) / 2
    assert read(f"{WORDS}\n\nshort\n").documents == "file"


def test_files_without_blank_lines_are_documents(read):
    found = read({"b/x.txt": WORDS, "a.txt": WORDS + "\n", "c.txt": "", "d.txt": "\n \n"})
    assert (found.documents, documents(found), found.name) == ("file", [WORDS, WORDS], "in")
    assert list(found.sources) == ["a.txt", "b/x.txt", "c.txt", "d.txt"]


def test_rows_are_documents_and_mix_with_files(read):
    rows = "\n".join(json.dumps({"text": text}) for text in ("one", "", "two\n\nthree", "four"))
    alone = read({"a.jsonl": rows}, "a.jsonl")
    assert (alone.documents, documents(alone)) == ("record", ["one", "two\n\nthree", "four"])
    both = read({"a.jsonl": rows, "b.txt": "five\n\nsix"})
    assert (both.documents, documents(both)) == ("file", ["one", "two\n\nthree", "four", "five\n\nsix"])


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("line", ["one", "two", "three", "four", "  five", "six"]),
        ("blank", ["one", "two", "three", "four", "  five\nsix"]),
        ("file", ["one\n\ntwo\n\nthree", "four\n\n  five\nsix"]),
    ],
)
def test_an_explicit_kind_wins(read, kind, expected):
    rows = "\n".join(json.dumps({"text": text}) for text in ("one", "two\n\nthree"))
    found = read({"a.jsonl": rows, "b.txt": "\nfour\n\n  five\nsix\n"}, documents=kind)
    assert (found.documents, documents(found)) == (kind, expected)


@given(
    texts=st.lists(st.text("ab \n\u05d0\U0001f600", max_size=40), min_size=1, max_size=45), kind=st.sampled_from(["blank", "file", "line"])
)
@settings(max_examples=60)
def test_splits_part_the_documents(tmp_path_factory, texts, kind):
    folder = tmp_path_factory.mktemp("in")
    for index, text in enumerate([*texts, "two words"]):
        (folder / f"{index:02}.txt").write_bytes(text.encode())
    found = read_corpus(str(folder), documents=kind, cache=folder.parent / "cache")
    expected = []
    for text in [*texts, "two words"]:
        lines = text.split("\n")
        blocks = "\n".join(line if line.strip() else "" for line in lines).strip("\n").split("\n\n")
        expected += {
            "line": [line for line in lines if line.strip()],
            "blank": [block.strip("\n") for block in blocks if block.strip()],
            "file": ["\n".join(lines[_first(lines) : _last(lines)])] if text.strip() else [],
        }[kind]
    assert [text.replace(" ", "") for text in documents(found)] == [text.replace(" ", "") for text in expected]
    assert found.nbytes == sum(len(text.encode()) for text in documents(found))
    assert found.words == sum(len(text.split()) for text in texts) + 2
    if len(expected) >= 20:
        assert len(found.held_out) == round(len(expected) / 20)
        assert len(found.train) + len(found.held_out) == len(expected)
    else:
        assert len(found.train) == len(expected)


def _first(lines: list[str]) -> int:
    return next(index for index, line in enumerate(lines) if line.strip())


def _last(lines: list[str]) -> int:
    return len(lines) - next(index for index, line in enumerate(reversed(lines)) if line.strip())


def test_few_documents_give_their_last_twentieth_cut_at_a_line(read):
    found = read("".join(f"line {index:03}\n" for index in range(1000)))
    assert text_of(found, "held_out").startswith("line 9")
    assert text_of(found, "train").endswith("\n")
    assert abs((found.held_out[:, 1] - found.held_out[:, 0]).sum() / found.nbytes - 0.05) < 0.002


def test_few_documents_are_cut_at_a_word_if_there_is_no_line(read):
    assert text_of(read("word " * 5000), "held_out").startswith("word")
    assert len(text_of(read("א" * 10_000), "held_out")) in (500, 501)


def test_a_cut_is_never_far_from_its_place(read):
    assert len(text_of(read("line\n" + "x" * 1000), "held_out")) in (50, 51)
    assert len(text_of(read("x" * 200_000 + "\n" + "x" * 7000), "held_out")) == 10_350


def test_two_characters_are_enough_and_one_is_not(read):
    found = read("€é")
    assert (text_of(found, "train"), text_of(found, "held_out")) == ("€", "é")
    with pytest.raises(InputError, match=r"a.txt: a single character is too little"):
        read("€\n\n")


@pytest.mark.parametrize(
    ("content", "message"), [("", "a.txt: empty"), ("\n \n\t\n", "nothing but blank lines"), ('{"text": "\\ud800"}', "surrogate")]
)
def test_unusable(read, tmp_path, content, message):
    with pytest.raises(InputError, match=message):
        read({"a.txt" if "{" not in content else "a.jsonl": content}, "a.txt" if "{" not in content else "a.jsonl")
    assert list((tmp_path / "cache" / "corpora").iterdir()) == []


def test_a_lone_surrogate_is_told_with_its_line(read):
    with pytest.raises(InputError, match=r"^a.jsonl:2: holds the lone surrogate U\+DFFF at character 1"):
        read({"a.jsonl": '{"text": "a"}\n{"text": "b\\udfff"}'}, "a.jsonl")


def test_unknown_kind():
    with pytest.raises(InputError, match="Did you mean 'line'"):
        read_corpus("x", documents="lines")


def test_pieces_are_bounded_whole_and_in_order(read):
    found = read({f"{index:02}.txt": f"{index} " + "some words € " * 50 for index in range(30)})
    pieces = list(found.pieces("train", 100))
    assert max(len(text.encode()) for _, text in pieces) <= 100
    rows = [row for row, _ in pieces]
    assert sorted(set(rows)) == list(range(len(found.train)))
    assert rows == sorted(rows)
    for row, span in enumerate(found.train):
        assert "".join(text for at, text in pieces if at == row) == found.text(span)


def test_standard_input(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(b"some words to read")))
    found = read_corpus("-", cache=tmp_path)
    assert (found.name, list(found.sources), documents(found)) == ("stdin", ["stdin"], ["some words to read"])
    assert [path.name for path in (tmp_path / "corpora").iterdir()] == [found.key]
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO()))
    with pytest.raises(InputError, match="stdin: empty"):
        read_corpus("-", cache=tmp_path)


def test_the_default_corpus(tmp_path, monkeypatch):
    modules = corpus.builtin._modules()[:40]
    monkeypatch.setattr(corpus.builtin, "_modules", lambda: modules)
    found = read_corpus(None, cache=tmp_path)
    assert (found.name, found.documents) == ("python-documentation", "file")
    assert len(found.train) + len(found.held_out) > 80
    assert "Boolean operations" in text_of(found, "train") + text_of(found, "held_out")


# the cache


def test_the_second_time_nothing_is_built(read, monkeypatch):
    first = read("some words", documents="line")
    monkeypatch.setattr(corpus, "build", None)
    again = read("some words", documents="line")
    assert (again.key, again.words, again.sources) == (first.key, first.words, first.sources)
    assert np.array_equal(again.train, first.train)


def test_the_key_follows_content_and_options(read):
    keys = {
        read("some words").key,
        read("other words").key,
        read("other words", documents="line").key,
        read("other words", encoding="latin-1").key,
        read("other words", column="body").key,
    }
    assert len(keys) == 5


def test_cached(read, tmp_path):
    found = read("some words")
    assert cached("0" * 32, tmp_path / "cache") is None
    assert cached(found.key, tmp_path / "cache").sources == found.sources


@pytest.mark.parametrize("name", ["text", "train", "held_out", "corpus.json"])
def test_a_damaged_cache_is_built_again(read, tmp_path, name):
    found = read("some words and more" * 9)
    file = tmp_path / "cache" / "corpora" / found.key / name
    os.truncate(file, file.stat().st_size // 2 // 16 * 16)
    assert cached(found.key, tmp_path / "cache") is None
    assert documents(read("some words and more" * 9)) == ["some words and more" * 9]


KILLED = """
import os, sys
from pathlib import Path
from ritornello.data import build, corpus
write = build._write_splits
build._write_splits = lambda folder: (write(folder), os.kill(os.getpid(), 9))
corpus.read_corpus(sys.argv[1], cache=Path(sys.argv[2]))
"""


def test_kill_9_while_building_leaves_nothing_that_is_taken_for_a_corpus(read, tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.txt").write_text("some words")
    command = [sys.executable, "-c", KILLED, str(tmp_path / "in" / "a.txt"), str(tmp_path / "cache")]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    left = list((tmp_path / "cache" / "corpora").iterdir())
    assert left
    assert all(folder.name.startswith(".tmp-") for folder in left)
    assert documents(read("some words")) == ["some words"]
    for folder in left:
        os.utime(folder, (0, 0))
    read("other words")
    assert not any(folder.exists() for folder in left)


def test_two_processes_at_once(read, monkeypatch):
    build_once = corpus.build

    def while_another_builds(*arguments):
        monkeypatch.setattr(corpus, "build", build_once)
        read("some words")
        return build_once(*arguments)

    monkeypatch.setattr(corpus, "build", while_another_builds)
    assert documents(read("some words")) == ["some words"]


def test_a_cache_that_cannot_be_written(tmp_path, monkeypatch):
    (tmp_path / "a.txt").write_text("some words")
    with pytest.raises(InputError, match=r"cache cannot be written: .*; set XDG_CACHE_HOME"):
        read_corpus(str(tmp_path / "a.txt"), cache=tmp_path / "a.txt")

    def full(folder):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(build, "_write_splits", full)
    with pytest.raises(InputError, match="No space left on device; free some space"):
        read_corpus(str(tmp_path / "a.txt"), cache=tmp_path / "cache")
    assert list((tmp_path / "cache" / "corpora").iterdir()) == []


def test_the_default_place(tmp_path, monkeypatch):
    (tmp_path / "a.txt").write_text("some words")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert read_corpus(str(tmp_path / "a.txt")).folder.parent == tmp_path / "cache" / "ritornello" / "corpora"


def test_verify_sources(read, tmp_path):
    found = read({"a.txt": "some words", "b.txt": "other words"})
    folder, cache = tmp_path / "in", tmp_path / "cache"

    def verify(cache: Path) -> None:
        verify_sources(str(folder), found.sources, key=found.key, cache=cache)

    empty = tmp_path / "empty"
    verify(empty)
    (folder / "c.txt").write_text("new words")
    verify(cache)
    with pytest.raises(InputError, match=r"corpus changed since the run began: .*c.txt is new; remove it"):
        verify(empty)
    (folder / "c.txt").unlink()
    (folder / "b.txt").write_text("changed words")
    for place in (cache, empty):
        with pytest.raises(InputError, match=r"began: .*b.txt; restore it, or start anew with --from RUN"):
            verify(place)
    (folder / "b.txt").unlink()
    verify(cache)
    with pytest.raises(InputError, match=r"began: b.txt is gone; restore it"):
        verify(empty)


def test_verify_sources_that_are_no_files(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(b"some words to read")))
    found = read_corpus("-", cache=tmp_path)
    verify_sources("-", found.sources, key=found.key, cache=tmp_path)
    with pytest.raises(InputError, match="stdin is gone"):
        verify_sources("-", found.sources, key=found.key, cache=tmp_path / "empty")
    verify_sources(None, corpus.builtin.sources(), key=found.key, cache=tmp_path / "empty")
    with pytest.raises(InputError, match=r"Python 3\.0 is gone"):
        verify_sources(None, {"Python 3.0": "0"}, key=found.key, cache=tmp_path / "empty")


def test_memory_does_not_grow_with_a_line_or_a_document(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"word " * 6_000_000)
    tracemalloc.start()
    try:
        found = read_corpus(str(tmp_path / "a.txt"), cache=tmp_path / "cache")
        assert sum(len(text) for _, text in found.pieces("train")) > 28_000_000
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert found.words == 6_000_000
    assert peak < 16e6


# real text


@pytest.mark.parametrize(
    ("spec", "count", "words"),
    [
        ("char_lm/tinyshakespeare.txt.gz", 1, 202_651),
        ("char_lm/*.gz", 2, 202_651 + 562_959),
        ("babymix/dev", 8, 690_086),
        ("hebrew_diacritized/modern_wiki.tar.xz", 37, 59_000),
        ("hebrew_diacritized", 330, 192_506),
    ],
)
def test_real_text(real_data, tmp_path, spec, count, words):
    found = read_corpus(str(real_data / spec), cache=tmp_path)
    assert len(documents(found)) == count
    assert abs(found.words / words - 1) < 2e-3
