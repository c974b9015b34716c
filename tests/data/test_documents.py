"""The vectorised scan against plain Python, at every way of cutting the text into chunks."""

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ritornello.data import documents
from ritornello.data.documents import Table, blocks, count_words, cut_near, held_out_rows, lines, mix, parted, utf8
from ritornello.errors import InputError

TEXT = st.lists(st.sampled_from(["a", "b c", "\n", "\n\n", " \t", "\u20ac", "\f"]), max_size=30).map(lambda words: "".join(words) + "\n")
SPACES = " \t\n\v\f\r"


def chunked(function, text: str, chunk: int) -> list[tuple[int, ...]]:
    data = text.encode()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(documents, "CHUNK", chunk)
        tables = list(function(io.BytesIO(data), 0, len(data)))
    return [tuple(map(int, row)) for table in tables for row in zip(*table, strict=True)]


def plain_lines(text: str) -> list[tuple[int, ...]]:
    rows, start = [], 0
    for line in text.split("\n")[:-1]:
        end = start + len(line.encode())
        rows.append((start, end, len(line.encode().split()), len(line)))
        start = end + 1
    return rows


def plain_blocks(text: str) -> list[tuple[int, ...]]:
    found: list[list[int]] = []
    after_blank = True
    for start, end, words, chars in plain_lines(text):
        if words and after_blank:
            found.append([start, end, words, chars])
        elif words:
            found[-1] = [found[-1][0], end, found[-1][2] + words, found[-1][3] + chars]
        after_blank = not words
    return [tuple(row) for row in found]


@given(text=TEXT, chunk=st.integers(1, 20))
@settings(max_examples=150)
def test_lines(text, chunk):
    assert chunked(lines, text, chunk) == plain_lines(text)


@given(text=TEXT, chunk=st.integers(1, 20))
@settings(max_examples=150)
def test_blocks(text, chunk):
    assert chunked(blocks, text, chunk) == plain_blocks(text)


def words_of(text: str) -> int:
    (row,) = chunked(blocks, text + "\n", 1 << 20)
    return int(count_words(Table(*(np.array([value]) for value in row)))[0])


def test_words_are_whitespace_tokens_where_there_are_spaces():
    for text in ("one two three", "שָׁלוֹם עוֹלָם", "x" * 500, "Donaudampfschifffahrtsgesellschaft", "नमस्ते दुनिया"):
        assert words_of(text) == len(text.split())


def test_a_script_without_spaces_has_words_too():
    assert words_of("天" * 600) == 200
    assert words_of("ภาษาไทย" * 60) == 140


@given(count=st.integers(20, 5000))
def test_one_document_in_twenty_is_held_out(count):
    rows = held_out_rows(count)
    assert len(rows) == round(count / 20)
    assert (np.diff(rows) > 0).all()
    assert 0 <= rows[0] <= rows[-1] < count


def test_held_out_documents_are_spread_and_not_at_fixed_distances():
    rows = held_out_rows(20_000)
    assert abs(rows.mean() / 10_000 - 1) < 0.02
    assert len(set((rows % 20).tolist())) == 20


def test_mix_is_the_published_splitmix64():
    state = np.uint64(1234567) + np.uint64(0x9E3779B97F4A7C15) * np.arange(3, dtype=np.uint64)
    assert mix(state).tolist() == [6457827717110365317, 3203168211198807973, 9817491932198370423]


@given(text=st.text("ab \n\u05d0\u20ac\U0001f600", min_size=1, max_size=30), at=st.integers(0, 100))
def test_cut_near(text, at):
    data = text.encode()
    cut = cut_near(data, at)
    if len(text) == 1:
        assert cut == 0
        return
    assert 0 < cut < len(data)
    assert data[:cut].decode() + data[cut:].decode() == text
    if "\n" in text[:-1]:
        assert data[cut - 1 : cut] == b"\n"
    elif " " in text[:-1]:
        assert data[cut - 1 : cut] == b" "


@given(text=st.text("ab  \n\u05d0\u20ac\U0001f600"), size=st.integers(4, 40))
def test_parted_is_the_whole_in_bounded_pieces_of_whole_characters(text, size):
    data = text.encode()
    spans = list(parted(data, 0, len(data), size))
    assert "".join(data[start:end].decode() for start, end in spans) == text
    assert all(end - start <= size for start, end in spans)
    assert all(end > start for start, end in spans) or not text


def test_parted_before_the_space_after_a_word():
    data = b"one two. three four,\nfive" * 3
    cuts = [end for _, end in parted(data, 0, len(data), 20)][:-1]
    assert cuts
    assert all(data[cut : cut + 1] == b" " and data[cut - 1 : cut].isalnum() for cut in cuts)


def test_lone_surrogate():
    with pytest.raises(InputError, match=r"^here: holds the lone surrogate U\+D800 at character 2, which UTF-8 cannot"):
        utf8("ab\ud800", "here")
