"""Parts of text, streamed into the files of a corpus folder: `text`, and the tables `train` and `held_out`."""

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from ritornello.data.documents import (
    FEW,
    REACH,
    ROWS,
    SHARE,
    Spans,
    blocks,
    count_words,
    cut_near,
    held_out_rows,
    lines,
    spans,
    trimmed,
    utf8,
)
from ritornello.data.sources import Part
from ritornello.errors import InputError

LONG = 200  # words: if the median block has as many, blocks are documents


class Region(NamedTuple):
    """Consecutive parts of one kind, as bytes of the flat file."""

    row: bool
    start: int
    end: int


class Facts(NamedTuple):
    """What the build found: the kind of documents, and sums over all of them."""

    documents: str
    words: int
    nbytes: int
    size: int  # bytes of the flat file


def build(folder: Path, parts: Iterator[Part], documents: str, label: str) -> Facts:
    """Fill `folder`. Raises InputError, which begins with `label`, if there is nothing to learn from or to hold out."""
    regions = _write_text(folder, parts)
    if not regions:
        raise InputError(f"{label}: empty; expected some text")
    words, mode = _write_blocks(folder, regions, documents)
    if not words:
        raise InputError(f"{label}: holds nothing but blank lines")
    _write_documents(folder, regions, documents, mode)
    nbytes = _write_splits(folder)
    if (folder / "held_out").stat().st_size == 0:
        raise InputError(f"{label}: a single character is too little: one half is to learn from, the other to be held out")
    for name in ("parts", "files", "blocks", "documents"):
        (folder / name).unlink()
    only_rows = documents == "auto" and all(region.row for region in regions)
    return Facts("record" if only_rows else mode, words, nbytes, regions[-1].end)


def _write_text(folder: Path, parts: Iterator[Part]) -> list[Region]:
    """The flat file, an empty line after each part; the tables of parts and of files; regions in order."""
    regions: list[Region] = []
    end, begin, current = 0, 0, None
    with open(folder / "text", "wb") as text, Spans(folder / "parts") as part_spans, Spans(folder / "files") as file_spans:
        for part in parts:
            start = end
            for piece in part.pieces:
                end += text.write(utf8(piece, part.name))
            if end == start:
                continue
            end += text.write(b"\n\n")
            part_spans.append(start, end)
            table = part.name.rpartition(":")[0] if part.row else None
            if begin < start and (table is None or table != current):
                file_spans.append(begin, start)
                begin = start
            current = table
            if regions and regions[-1].row == part.row:
                start = regions.pop().start
            regions.append(Region(part.row, start, end))
        file_spans.append(begin, end)
    return regions


def _write_blocks(folder: Path, regions: list[Region], documents: str) -> tuple[int, str]:
    """The table of blocks; returns the words in all, and the kind of documents for files of text."""
    total, files, histogram = 0, 0, np.zeros(2 * LONG + 1, np.int64)  # beyond twice LONG the median's side is decided
    starts = spans(folder / "parts")[:, 0]
    with open(folder / "text", "rb") as text, Spans(folder / "blocks") as found:
        for row, start, end in regions:
            for table in blocks(text, start, end):
                found.add(table.start, table.end)
                words = count_words(table)
                total += int(words.sum())
                if not row:
                    histogram += np.bincount(np.minimum(words, 2 * LONG), minlength=len(histogram))
            if not row:
                files += int(np.diff(np.searchsorted(starts, [start, end]))[0])
    if documents != "auto":
        return total, documents
    count = int(histogram.sum())
    below = np.cumsum(histogram)
    middle = np.searchsorted(below, [(count - 1) // 2, count // 2], side="right")
    return total, "blank" if count > files and middle.mean() >= LONG else "file"


def _write_documents(folder: Path, regions: list[Region], documents: str, mode: str) -> None:
    """The table of documents: rows of tables as they are if the kind is "auto", else all by the mode."""
    inner = spans(folder / "blocks")
    bounds = {"file": spans(folder / "files"), "record": spans(folder / "parts")}
    with open(folder / "text", "rb") as text, Spans(folder / "documents") as found:
        for row, start, end in regions:
            kind = "record" if row and documents == "auto" else mode
            if kind == "line":
                for table in lines(text, start, end):
                    full = table.words > 0
                    found.add(table.start[full], table.end[full])
            elif kind == "blank":
                for block in _within(inner, start, end):
                    found.add(*block.T)
            else:
                for few in _within(bounds[kind], start, end):
                    found.add(*trimmed(few, inner))


def _within(table: np.ndarray, start: int, end: int) -> Iterator[np.ndarray]:
    """The rows that begin in [start, end), so many at a time."""
    first, last = np.searchsorted(table[:, 0], [start, end])
    for at in range(first, last, ROWS):
        yield np.asarray(table[at : min(at + ROWS, last)])


def _write_splits(folder: Path) -> int:
    """The tables of training and held-out text; returns the bytes of both."""
    table = spans(folder / "documents")
    with Spans(folder / "train") as train, Spans(folder / "held_out") as held_out:
        if len(table) < FEW:
            with open(folder / "text", "rb") as text:
                for start, end in table.tolist():
                    cut = _cut(text, start, end)
                    train.append(start, cut)
                    if cut < end:
                        held_out.append(cut, end)
        else:
            chosen = held_out_rows(len(table))
            held_out.add(*table[chosen].T)
            for at in range(0, len(table), ROWS):
                few = np.asarray(table[at : at + ROWS])
                here = chosen[(chosen >= at) & (chosen < at + ROWS)] - at
                train.add(*np.delete(few, here, 0).T)
    return int(sum((few[:, 1] - few[:, 0]).sum() for few in _within(table, 0, np.iinfo(np.int64).max)))


def _cut(text: BinaryIO, start: int, end: int) -> int:
    """Where a document's held-out end begins: its last twentieth, or so; `end` if it has one code point only."""
    share = max(1, (end - start) // SHARE)
    reach = min(max(share, 8), REACH)
    low = max(start, end - share - reach)
    text.seek(low)
    cut = cut_near(text.read(min(end, end - share + reach) - low), end - share - low)
    return low + cut if cut else end
