"""Near-duplicate documents: MinHash finds candidates, their shingles decide.

Two documents are near-duplicates if the sets of their runs of five words (shingles) have a Jaccard similarity of at least a threshold t.
The smallest value of a random hash function over a document's shingles agrees between two documents with that very probability J.
Five such values make a band; documents that agree in any of b bands are candidates, with probability 1 - (1 - J^5)^b, and b is the
smallest that finds a pair at the threshold 99.5 times in 100. Every candidate is then compared shingle by shingle, so that nothing is
taken for a copy that is none. A document of fewer than five words is never one.

Sources: Broder 1997, "On the resemblance and containment of documents"; Indyk and Motwani 1998 (locality-sensitive hashing); Lee et al.
2021, arXiv:2107.06499, on why a language model wants it.
"""

import math
from collections.abc import Callable, Iterable

import numpy as np

from ritornello.data.documents import mix
from ritornello.data.words import ngrams, numbers, words
from ritornello.errors import InputError

SHINGLE = 5  # words
ROWS = 5  # of a band
FOUND = 0.995  # of the pairs at the threshold
BLOCK = 512  # shingles hashed at a time, so that they stay in the processor's cache


class Duplicates:
    """The documents so far, and which new one is a copy of an earlier one. `text_of` gives the text of an earlier document again."""

    def __init__(self, text_of: Callable[[int], str], similarity: float = 0.8):
        if not 0.3 <= similarity <= 1:
            raise InputError(f"similarity: {similarity:g} is out of range; 0.3 to 1, where 1 finds only documents of the same words")
        self.text_of, self.similarity = text_of, similarity
        bands = math.ceil(math.log(1 - FOUND) / math.log1p(-(min(similarity, 0.99) ** ROWS)))
        self.salts = mix(np.arange(bands * ROWS, dtype=np.uint64)) | np.uint64(1)
        self.first: dict[int, int] = {}  # band -> the first document that had it

    def copy_of(self, number: int, text: str) -> int | None:
        """The earliest document found that `text` nearly copies; None if there is none, and then `text` is kept under `number`."""
        own = shingles(text)
        if not len(own):
            return None
        bands = self._bands(own).tolist()
        for candidate in sorted({self.first[band] for band in bands if band in self.first}):
            if jaccard(own, shingles(self.text_of(candidate))) >= self.similarity:
                return candidate
        for band in bands:
            self.first.setdefault(band, number)
        return None

    def _bands(self, own: np.ndarray) -> np.ndarray:
        """A number for each band of a document's shingles: (b,) uint64."""
        least = np.full(len(self.salts), ~np.uint64(0))
        for at in range(0, len(own), BLOCK):
            least = np.minimum(least, (own[at : at + BLOCK, None] * self.salts).min(0))
        rows = least.reshape(-1, ROWS)
        band = np.arange(len(rows), dtype=np.uint64)
        for row in rows.T:
            band = mix(band ^ row)
        return band


def near_duplicates(texts: list[str], similarity: float = 0.8) -> np.ndarray:
    """For each text the place of the earlier one that it nearly copies, or -1: (n,) int64."""
    seen = Duplicates(texts.__getitem__, similarity)
    found: Iterable[int | None] = (seen.copy_of(number, text) for number, text in enumerate(texts))
    return np.array([-1 if number is None else number for number in found], np.int64)


def shingles(text: str) -> np.ndarray:
    """The different runs of five words, as well-spread numbers in rising order: (n,) uint64."""
    return np.unique(mix(ngrams(numbers(words(text)), SHINGLE)))


def jaccard(one: np.ndarray, other: np.ndarray) -> float:
    """Shared members over all members of two sets, each in rising order."""
    shared = len(np.intersect1d(one, other, assume_unique=True))
    return shared / (len(one) + len(other) - shared)
