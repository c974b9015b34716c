"""How much of the evaluation stands in the training text, and how much of it holds words that the training text does not.

An item overlaps by n words if n words of one of its texts, in their order, occur in a training document; it is there in whole if one of
its texts is: all its words in a row, or for a text of more than 13 words every 13 of them. It has an unseen word if one of its words
occurs nowhere. Words are those of data/words.py: case and signs do not count.

Only counts leave this file, never an item: some sets are protected. Memory grows with the evaluation, not with the training text.

13 words in a row: Brown et al. 2020, arXiv:2005.14165, appendix C; 8: Chowdhery et al. 2022, arXiv:2204.02311, section 8.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ritornello.analysis.scores import title
from ritornello.data.corpus import Corpus
from ritornello.data.words import BASE, ngrams, numbers, words
from ritornello.errors import InputError
from ritornello.evals.suite import SUITES, suite
from ritornello.experiments.console import Console
from ritornello.experiments.items import READERS, Item, read_items

SHORT, LONG = 8, 13  # words in a row
BLOCK = 1 << 20  # words of training text looked up at a time
BETWEEN = np.zeros(1, np.uint64)  # stands between documents: no word's number, so nothing reaches across


class Grams(NamedTuple):
    """n-grams of a set of items."""

    numbers: np.ndarray  # (g,) uint64
    texts: np.ndarray  # (g,) int64, the text that each is from


class Held(NamedTuple):
    """A set of items, as n-grams."""

    items: np.ndarray  # (t,) int64, the item that each text is from
    grams: dict[int, Grams]  # 1, SHORT and LONG -> the n-grams of all texts that have as many words
    whole: dict[int, Grams]  # n -> those that a text of n words is, or that one of more than LONG words consists of


def overlap(corpus: Corpus, names: Sequence[str], data: Path, console: Console | None = None) -> list[dict[str, Any]]:
    """A row for each suite of the data folder: items, and how many of them overlap with the corpus's training text, and how.

    A set that cannot be read has a row with the reason. InputError for a name that is no suite's.
    """
    console = console or Console(quiet=True)
    held: dict[str, Held | str] = {}
    for name in names:
        console.progress(f"reading {name}")
        try:
            held[name] = _held(read_items(name, data / suite(name).path))
        except InputError as error:
            suite(name)
            held[name] = str(error)
    seen = _seen([each for each in held.values() if isinstance(each, Held)], corpus, console)
    return [{"suite": name} | ({"reason": each} if isinstance(each, str) else _row(each, seen)) for name, each in held.items()]


def there(data: Path) -> list[str]:
    """The suites whose items can be read here, each set of items once, less those of hours."""
    return [name for name, entry in SUITES.items() if name in READERS and not entry.hours and (data / entry.path).exists()]


def unseen(rows: Sequence[dict[str, Any]], words: int) -> str:
    """How many items hold a word that the training text, of so many words, lacks, in a sentence; "" where none was counted."""
    counted = [row for row in rows if row.get("items")]
    shares = [f"{100 * row['unseen_word_share']:.1f} % of {row['items']:,} in {title(row['suite'])}" for row in counted]
    return f"Items with a word that the training text ({words:,} words) lacks: {'; '.join(shares)}." if shares else ""


def training_words(corpus: Corpus) -> Iterator[np.ndarray]:
    """The numbers of all words of the training text, in blocks that share LONG - 1 words, something between any two documents."""
    parts, size, last = [BETWEEN], 0, 0
    for row, text in corpus.pieces("train"):
        if row != last:
            parts.append(BETWEEN)
        last = row
        parts.append(numbers(words(text)))
        size += len(parts[-1])
        if size >= BLOCK:
            block = np.concatenate(parts)
            yield block
            parts, size = [block[-LONG + 1 :]], 0
    yield np.concatenate(parts)


def _held(items: Sequence[Item]) -> Held:
    found = [(item, numbers(words(text))) for item, texts in enumerate(items) for text in texts]
    grams = {n: _grams([(place, own) for place, (_, own) in enumerate(found)], n) for n in (1, SHORT, LONG)}
    lengths = sorted({min(len(own), LONG) for _, own in found} - {0})
    whole = {n: _grams([(place, own) for place, (_, own) in enumerate(found) if min(len(own), LONG) == n], n) for n in lengths}
    return Held(np.array([item for item, _ in found]), grams, whole)


def _grams(texts: Sequence[tuple[int, np.ndarray]], n: int) -> Grams:
    found = [(place, ngrams(own, n)) for place, own in texts]
    places = np.repeat([place for place, _ in found], [len(own) for _, own in found])
    return Grams(np.concatenate([own for _, own in found] or [BETWEEN[:0]]), places.astype(np.int64))


def _seen(held: Sequence[Held], corpus: Corpus, console: Console) -> dict[int, np.ndarray]:
    """For each n the numbers of wanted n-grams that the training text has, rising."""
    kinds = [kind for each in held for kind in (each.grams, each.whole)]
    wanted = {n: np.unique(np.concatenate([kind[n].numbers for kind in kinds if n in kind])) for n in {n for kind in kinds for n in kind}}
    found = {n: np.zeros(len(table), bool) for n, table in wanted.items()}
    done = 0
    for block in training_words(corpus) if wanted else ():
        grams = block
        for n in range(1, max(wanted) + 1):
            if n > 1:
                grams = grams[:-1] * BASE + block[n - 1 :]
            if n in wanted and len(wanted[n]):
                table = wanted[n]
                places = np.minimum(np.searchsorted(table, grams), len(table) - 1)
                found[n][places[table[places] == grams]] = True
        done += len(block)
        console.progress(f"{done:,} words of training text compared")
    return {n: wanted[n][found[n]] for n in wanted}


def _row(held: Held, seen: dict[int, np.ndarray]) -> dict[str, Any]:
    """Counts of items, and shares of them."""
    count = int(held.items.max(initial=-1)) + 1

    def items(texts: np.ndarray) -> int:
        return len(np.unique(held.items[texts]))

    row: dict[str, Any] = {"items": count}
    for n in (SHORT, LONG):
        grams = held.grams[n]
        row |= {f"items_of_{n}_words": items(grams.texts), f"overlap_{n}": items(grams.texts[np.isin(grams.numbers, seen[n])])}
    row["whole"] = items(np.concatenate([_whole(grams, seen[n]) for n, grams in held.whole.items()] or [held.items[:0]]))
    row["unseen_word"] = items(held.grams[1].texts[~np.isin(held.grams[1].numbers, seen[1])])
    shares = {f"{name}_share": row[name] / max(1, count) for name in (f"overlap_{SHORT}", f"overlap_{LONG}", "whole", "unseen_word")}
    return row | shares


def _whole(grams: Grams, seen: np.ndarray) -> np.ndarray:
    """The texts whose n-grams were all seen."""
    texts = np.unique(grams.texts)
    return texts[~np.isin(texts, grams.texts[~np.isin(grams.numbers, seen)])]
