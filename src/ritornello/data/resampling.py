"""DSIR: draw the documents of a large text that resemble a small one.

A document is a bag of features: its words and its pairs of neighbouring words, hashed into 10,000 buckets. Two bag models, p of the
target and q of the raw text, give each document z the weight w(z) = prod_features p(f) / q(f), and Gumbel top-k draws k documents without
replacement with probability proportional to it: the k largest of log w(z) + G, where G = -log(-log U) for a uniform U.

The weight is a product over all features, so a long document's is extreme: made for pieces of equal length. Weighed by "word" it is the
geometric mean instead, which draws a mixed target's domains side by side. Counts are smoothed by one; words: data/words.py.

Source: Xie, Santurkar, Ma and Liang 2023, arXiv:2302.03169; Gumbel top-k: Kool, van Hoof and Welling 2019, arXiv:1903.06059.
"""

import hashlib
from collections.abc import Iterable, Sequence
from typing import Literal

import numpy as np

from ritornello.data.documents import mix
from ritornello.data.words import ngrams, numbers, words

BUCKETS = 10_000

Weight = Literal["document", "word"]


def features(text: str) -> np.ndarray:
    """The buckets of a text's words and pairs of words: (n,) int64."""
    found = numbers(words(text))
    return (mix(np.concatenate([found, ngrams(found, 2)])) % np.uint64(BUCKETS)).astype(np.int64)


def bag(texts: Iterable[str]) -> np.ndarray:
    """How often each bucket occurs, and once more: (BUCKETS,) float64."""
    counts = np.ones(BUCKETS)
    for text in texts:
        counts += np.bincount(features(text), minlength=BUCKETS)
    return counts


def log_weights(texts: Iterable[str], target: np.ndarray, raw: np.ndarray, weight: Weight) -> np.ndarray:
    """log w of each text, in nats, given the two bags: (n,) float64. A text without words has -inf: it is drawn last."""
    ratio = np.log(target / target.sum()) - np.log(raw / raw.sum())
    found = []
    for text in texts:
        own = ratio[features(text)]
        found.append(-np.inf if not len(own) else own.sum() if weight == "document" else own.mean())
    return np.array(found, np.float64)


def drawn_order(weights: np.ndarray, seed: int, name: str = "") -> np.ndarray:
    """All places in the order in which Gumbel top-k draws them: (n,) int64, a function of the weights, the seed and the name."""
    uniform = (_noise(len(weights), seed, name) >> np.uint64(11)).astype(np.float64) + 0.5
    return np.argsort(-(weights - np.log(-np.log(uniform * 2.0**-53))), kind="stable")


def resample(texts: Sequence[str], target: Iterable[str], size: int, *, seed: int = 0, weight: Weight = "document") -> np.ndarray:
    """The places of `size` texts that resemble the target: (size,) int64, rising."""
    return np.sort(drawn_order(log_weights(texts, bag(target), bag(texts), weight), seed)[:size])


def _noise(size: int, seed: int, name: str) -> np.ndarray:
    salt = hashlib.blake2b(f"{seed} {name}".encode(), digest_size=8).digest()
    return mix(mix(np.arange(size, dtype=np.uint64)) ^ np.frombuffer(salt, "<u8").astype(np.uint64))
