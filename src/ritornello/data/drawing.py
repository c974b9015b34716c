"""Drawing one source's share of a mixture: its documents in order, cleaned, counted, without copies, written one a line."""

import json
import re
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO

import numpy as np

from ritornello.data.cleaning import STEPS
from ritornello.data.corpus import Corpus
from ritornello.data.documents import count_words, lines
from ritornello.data.duplicates import Duplicates
from ritornello.data.resampling import Weight, bag, drawn_order, log_weights
from ritornello.data.words import count

ENDS = re.compile(r"\n|(?<=[.!?])\s|(?<=[。！？।])")


class Draw:
    """One source of a mixture while it is drawn from."""

    def __init__(self, name: str, corpora: Sequence[Corpus], file: BinaryIO, *, asked: float, clean: Sequence[str], longest: int | None):
        self.name, self.corpora, self.file, self.clean = name, corpora, file, clean
        self.asked = self.goal = asked  # words: of the plan, and with what other sources lack
        self.spans = [_parted(corpus, longest) for corpus in corpora]
        self.begins = np.cumsum([0, *map(len, self.spans)])
        self.order = np.arange(self.begins[-1])
        self.looked_at = 0
        self.pending: str | None = None  # the last document taken, which may yet be cut
        self.words = self.documents = 0
        self.removed: dict[str, dict[str, int]] = {}
        self.changed = {step: {"documents": 0, "characters": 0} for step in clean}
        self.cut: dict[str, int] | None = None

    def arrange(self, seed: int, target: np.ndarray | None, weight: Weight) -> None:
        """Settle the order in which documents are drawn: by chance, or by their likeness to a target's bag."""
        weights = np.zeros(len(self.order))
        if target is not None:
            weights = log_weights(self._texts(), target, bag(self._texts()), weight)
        self.order = drawn_order(weights, seed, self.name)

    def take(self, copies: "Copies | None") -> None:
        """Documents until the words asked for are reached or nothing is left."""
        while self.words < self.goal and not self.is_used_up:
            row = int(self.order[self.looked_at])
            self.looked_at += 1
            text = self._cleaned(row)
            words = count(text)
            if not words:
                self._leave_out("empty", words)
            elif copies is not None and copies.holds(self, row, text):
                self._leave_out("near-duplicate", words)
            else:
                self._write()
                self.pending = text
                self.words += words
                self.documents += 1

    def finish(self) -> None:
        """Cut the last document so that there are no more words than asked for, and write it."""
        if self.pending is not None and self.words > self.goal:
            whole = count(self.pending)
            self.pending = beginning(self.pending, int(self.goal) - self.words + whole)
            left = count(self.pending)
            self.cut = {"document": self.documents, "words": whole, "kept": left}
            self.words -= whole - left
            self.documents -= not left
        self._write()

    @property
    def is_used_up(self) -> bool:
        return self.looked_at == len(self.order)

    @property
    def lacking(self) -> float:
        """Words of the goal that are not there."""
        return max(0.0, self.goal - self.words)

    def text(self, row: int) -> str:
        """A document, cleaned."""
        text = self._raw(row)
        for step in self.clean:
            text = STEPS[step](text)
        return text

    def facts(self) -> dict[str, Any]:
        """What the manifest says of the source."""
        return {
            "asked": round(self.asked),
            "words": self.words,
            "documents": self.documents,
            "cut": self.cut,
            "removed": self.removed,
            "cleaned": self.changed,
            "not_drawn": {"documents": len(self.order) - self.looked_at},
        }

    def _texts(self) -> Iterator[str]:
        return (self.text(row) for row in range(len(self.order)))

    def _raw(self, row: int) -> str:
        which = int(np.searchsorted(self.begins, row, side="right")) - 1
        return self.corpora[which].text(self.spans[which][row - self.begins[which]])

    def _cleaned(self, row: int) -> str:
        """As `text`, with a note of what each step changed."""
        text = self._raw(row)
        for step in self.clean:
            before, text = text, STEPS[step](text)
            self.changed[step]["documents"] += text != before
            self.changed[step]["characters"] += len(before) - len(text)
        return text

    def _leave_out(self, reason: str, words: int) -> None:
        found = self.removed.setdefault(reason, {"documents": 0, "words": 0})
        found["documents"] += 1
        found["words"] += words

    def _write(self) -> None:
        if self.pending:
            self.file.write(json.dumps({"text": self.pending}, ensure_ascii=False).encode() + b"\n")
        self.pending = None


class Copies:
    """Which documents have been taken, from all sources together."""

    def __init__(self, similarity: float):
        self.taken: list[tuple[Draw, int]] = []
        self.duplicates = Duplicates(lambda number: self.taken[number][0].text(self.taken[number][1]), similarity)

    def holds(self, draw: Draw, row: int, text: str) -> bool:
        """Whether a document copies one that was taken; if not, it is taken now."""
        if self.duplicates.copy_of(len(self.taken), text) is not None:
            return True
        self.taken.append((draw, row))
        return False


def beginning(text: str, words: int) -> str:
    """The longest beginning with at most so many words that ends where a line or sentence does; "" if there is none."""
    ends = [match.end() for match in ENDS.finditer(text)]
    place = bisect_right(ends, words, key=lambda end: count(text[:end]))
    return text[: ends[place - 1]].rstrip() if place else ""


def _parted(corpus: Corpus, longest: int | None) -> np.ndarray:
    """Spans (n, 2) of the documents; those of more than `longest` words as stretches of whole lines with about so many."""
    spans = corpus.whole()
    if longest is None:
        return spans
    found = []
    with open(corpus.folder / "text", "rb") as file:
        for start, end in spans.tolist():
            starts, ends = np.array([start]), np.array([end])
            if end - start >= 2 * longest:  # a word is a letter and a space at least
                starts, ends = _stretches(file, start, end, longest)
            found.append(np.stack([starts, ends], 1))
    return np.concatenate(found)


def _stretches(file: BinaryIO, start: int, end: int, longest: int) -> tuple[np.ndarray, np.ndarray]:
    tables = list(lines(file, start, end + 1))  # the newline belongs to the last line
    words = np.concatenate([count_words(table) for table in tables])
    which = (np.cumsum(words) - words) // longest
    first = np.flatnonzero(np.diff(which, prepend=-1))
    starts, ends = (np.concatenate([getattr(table, name) for table in tables]) for name in ("start", "end"))
    return starts[first], ends[np.append(first[1:], len(words)) - 1]
