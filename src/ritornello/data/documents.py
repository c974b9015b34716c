"""Where documents begin and end in a flat file of UTF-8 text: spans of bytes, found in one pass of numpy.

Rows of a span table are (start, end), int64, ascending. A line is blank if it holds nothing but ASCII whitespace; a block
is what stands between blank lines. Words are tokens between ASCII whitespace; but a block of more than 2 bytes a character
and 12 characters a token is in a script without spaces, such as Chinese or Thai: there every 3 characters count as a word.
"""

import mmap
import re
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from ritornello.errors import InputError

CHUNK = 1 << 18  # bytes of text scanned at a time
ROWS = 1 << 20  # rows of a table handled at a time
FEW = 20  # with fewer documents than this, each gives its own end as held-out text
SHARE = 20  # one part in 20 is held out
REACH = 2048  # bytes around the ideal place in which a good place to cut is looked for

Buffer = bytes | mmap.mmap

SPACE = np.zeros(256, bool)
SPACE[[ord(sign) for sign in " \t\n\v\f\r"]] = True


class Table(NamedTuple):
    """Consecutive lines or blocks: four arrays (n,) int64."""

    start: np.ndarray
    end: np.ndarray
    words: np.ndarray
    chars: np.ndarray


class Spans:
    """A span table that grows on disk; read it back with `spans` once it is closed."""

    def __init__(self, path: Path):
        self.file = open(path, "wb")  # noqa: SIM115
        self.waiting: list[tuple[int, int]] = []

    def append(self, start: int, end: int) -> None:
        self.waiting.append((start, end))
        if len(self.waiting) >= 1 << 16:
            self._flush()

    def add(self, start: np.ndarray, end: np.ndarray) -> None:
        self._flush()
        self.file.write(np.stack([start, end], 1).astype("<i8", copy=False).tobytes())

    def _flush(self) -> None:
        self.file.write(np.array(self.waiting, "<i8").tobytes())
        self.waiting = []

    def __enter__(self) -> "Spans":
        return self

    def __exit__(self, *error: object) -> None:
        self._flush()
        self.file.close()


def spans(path: Path) -> np.ndarray:
    """The table in a file, (n, 2) int64, memory-mapped."""
    if path.stat().st_size == 0:
        return np.zeros((0, 2), np.int64)
    return np.memmap(path, "<i8", "r").reshape(-1, 2)


def lines(file: BinaryIO, start: int, end: int) -> Iterator[Table]:
    """All lines of the bytes [start, end), which must end with a newline. A line's end is its newline."""
    file.seek(start)
    words = chars = 0  # of the line that is still open
    line, after_space = start, True
    for at in range(start, end, CHUNK):
        block = np.frombuffer(file.read(min(CHUNK, end - at)), np.uint8)
        blank = SPACE[block]
        begins = ~blank
        begins[1:] &= blank[:-1]
        begins[0] &= after_space
        after_space = bool(blank[-1])
        word_count, char_count = np.cumsum(begins), np.cumsum((block & 0xC0) != 0x80)
        breaks = np.flatnonzero(block == ord("\n"))
        if len(breaks):
            ends = breaks + at
            yield Table(
                np.concatenate(([line], ends[:-1] + 1)),
                ends,
                np.diff(word_count[breaks], prepend=-words),
                np.diff(char_count[breaks], prepend=-chars) - 1,
            )
            line = int(ends[-1]) + 1
            words, chars = -int(word_count[breaks[-1]]), -int(char_count[breaks[-1]])
        words, chars = words + int(word_count[-1]), chars + int(char_count[-1])


def blocks(file: BinaryIO, start: int, end: int) -> Iterator[Table]:
    """What stands between blank lines, each from the start of its first line to the end of its last."""
    carry: Table | None = None  # one row: the block that is still open
    for table in lines(file, start, end):
        full = np.flatnonzero(table.words > 0)
        joins = carry is not None and table.words[0] > 0
        if len(full):
            head = np.flatnonzero(np.diff(full, prepend=-2) > 1)
            tail = np.append(head[1:], len(full)) - 1
            found = Table(
                table.start[full[head]],
                table.end[full[tail]],
                np.add.reduceat(table.words[full], head),
                np.add.reduceat(table.chars[full], head),
            )
        else:
            found = Table(*(column[:0] for column in table))
        if carry is not None:
            found = _join(carry, found) if joins else Table(*(np.concatenate(pair) for pair in zip(carry, found, strict=True)))
        open_ended = bool(table.words[-1] > 0)
        carry = Table(*(column[-1:] for column in found)) if open_ended else None
        if len(found.start) > open_ended:
            yield Table(*(column[: len(column) - open_ended] for column in found))
    if carry is not None:
        yield carry


def _join(open_block: Table, found: Table) -> Table:
    start, end, words, chars = (column.copy() for column in found)
    start[0] = open_block.start[0]
    words[0] += open_block.words[0]
    chars[0] += open_block.chars[0]
    return Table(start, end, words, chars)


def count_words(table: Table) -> np.ndarray:
    """Words in each row, (n,) int64, by the rule at the top of this file."""
    unspaced = (table.end - table.start > 2 * table.chars) & (table.chars > 12 * table.words)
    return np.where(unspaced, table.chars // 3, table.words)


def trimmed(bounds: np.ndarray, inner: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(starts, ends) of `bounds` drawn in to the blocks `inner` that they hold; bounds without any are left out."""
    first, last = np.searchsorted(inner[:, 0], bounds.T)
    keep = last > first
    return inner[first[keep], 0], inner[last[keep] - 1, 1]


def held_out_rows(count: int) -> np.ndarray:
    """Which of `count` >= 20 documents are held out, ascending: one in each of count/20 equal stretches, by a fixed hash."""
    stretches = round(count / SHARE)
    edges = np.arange(stretches + 1) * count // stretches
    return edges[:-1] + (mix(np.arange(stretches, dtype=np.uint64)) % np.diff(edges).astype(np.uint64)).astype(np.int64)


def mix(x: np.ndarray) -> np.ndarray:
    """SplitMix64's finaliser (Steele, Lea and Flood 2014): uint64 to well-spread uint64, one to one, the same on every machine."""
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def cut_near(text: bytes, at: int) -> int:
    """The best place in 1 .. len(text) - 1 to part `text` in two, near `at`: after a newline, after whitespace, or between
    two code points, in this order. 0 if the text is a single code point."""
    for ends in (rb"\n", rb"[ \t]", rb"(?=[^\x80-\xbf])"):
        places = [match.end() for match in re.finditer(ends, text) if 0 < match.end() < len(text)]
        if places:
            return min(places, key=lambda place: abs(place - at))
    return 0


def seam(text: Buffer, start: int, end: int) -> int:
    """The last place in (start, end] to part the text so that tokenizers see no difference: before a space that follows a
    letter, or any sign, else before a newline, else between two code points. Spans at least 4 bytes.
    """
    low = max(start, end - 2 * REACH)
    tail = text[low:end]
    for begins in (rb"(?<=[A-Za-z0-9]) ", rb"(?<=[^ \t\n\v\f\r]) ", rb"(?<=[^ \t\n\v\f\r])\n"):
        places = [match.start() for match in re.finditer(begins, tail)]
        if places:
            return low + places[-1]
    while text[end] & 0xC0 == 0x80:
        end -= 1
    return end


def parted(text: Buffer, start: int, end: int, size: int) -> Iterator[tuple[int, int]]:
    """The span [start, end) as consecutive spans of at most `size` >= 4 bytes, parted at seams."""
    while end - start > size:
        cut = seam(text, start, start + size)
        yield start, cut
        start = cut
    yield start, end


def utf8(text: str, label: str) -> bytes:
    """The bytes of a text. Raises InputError, which begins with `label`, for a lone surrogate."""
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError as error:
        sign = f"U+{ord(text[error.start]):04X}"
        raise InputError(f"{label}: holds the lone surrogate {sign} at character {error.start}, which UTF-8 cannot; remove it") from error
