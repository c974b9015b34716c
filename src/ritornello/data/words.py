"""Words as numbers: what a comparison of texts looks at, and the n-grams made of them.

A word is what stands between spaces and signs, in lower case; in scripts without spaces, such as Chinese or Thai, each letter is
one. Its number is 64 bits of its BLAKE2b, the same on every machine. An n-gram's is w_1 P^(n-1) + ... + w_n, modulo 2^64.
"""

import hashlib
import re
from functools import lru_cache

import numpy as np

from ritornello.data.documents import Table, count_words

UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
SIGNS = (
    r"\s!-/:-@\[-`{-~\u00a1-\u00a9\u00ab-\u00b4\u00b6-\u00b9\u00bb-\u00bf\u060c\u061b\u061f\u0964\u0965\u2000-\u206f\u3000-\u303f"
    r"\uff01-\uff0f\uff1a-\uff20"
)
WORD = re.compile(rf"[{UNSPACED}]|[^{SIGNS}{UNSPACED}]+")
BASE = np.uint64(0x9E3779B97F4A7C15)  # odd, so that no word of an n-gram is lost


def words(text: str) -> list[str]:
    """The words of a text, in order, by the rule at the top of this file."""
    return WORD.findall(text.lower())


def numbers(found: list[str]) -> np.ndarray:
    """The number of each word: (n,) uint64."""
    return np.frombuffer(b"".join(map(_number, found)), "<u8").astype(np.uint64, copy=False)


def ngrams(number: np.ndarray, n: int) -> np.ndarray:
    """The numbers of all n-grams of (m,) words: (m - n + 1,) uint64, none where there are fewer words."""
    count = max(0, len(number) - n + 1)
    found = np.zeros(count, np.uint64)
    for place in range(n if count else 0):
        found = found * BASE + number[place : place + count]
    return found


def count(text: str) -> int:
    """Words as budgets count them: whitespace tokens; every 3 letters in a script without spaces, as documents.py has it."""
    raw = text.encode("utf-8")
    sizes = (np.array([size]) for size in (0, len(raw), len(raw.split()), len(text)))
    return int(count_words(Table(*sizes))[0])


@lru_cache(maxsize=1 << 19)
def _number(word: str) -> bytes:
    return hashlib.blake2b(word.encode("utf-8", "surrogatepass"), digest_size=8).digest()
