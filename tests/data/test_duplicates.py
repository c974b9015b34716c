"""Planted copies are found, what only looks alike is not, and the estimate behind it is that of Broder."""

import random

import numpy as np
import pytest

from ritornello.data.duplicates import Duplicates, jaccard, near_duplicates, shingles
from ritornello.errors import InputError


def text(rng: random.Random, words: int) -> list[str]:
    return [f"w{min(int(rng.expovariate(0.02)), 400)}" for _ in range(words)]


def changed(rng: random.Random, words: list[str], share: float) -> list[str]:
    """The words, a share of them replaced."""
    return [f"x{rng.random()}" if rng.random() < share else word for word in words]


def planted(share: float, copies: int = 150) -> tuple[list[str], np.ndarray]:
    """Documents of 30 to 300 words, some of them altered copies of earlier ones; and of which, or -1."""
    rng = random.Random(share)
    documents = [text(rng, rng.randint(30, 300)) for _ in range(400)]
    truth = [-1] * len(documents)
    for _ in range(copies):
        of = rng.randrange(400)
        documents.append(changed(rng, documents[of], share))
        truth.append(of)
    return [" ".join(words) for words in documents], np.array(truth)


def test_recall_and_precision_on_planted_copies():
    texts, truth = planted(0.01)
    found = near_duplicates(texts)
    alike = np.array([jaccard(shingles(texts[i]), shingles(texts[of])) if of >= 0 else 0 for i, of in enumerate(truth)])
    wanted = alike >= 0.8
    assert wanted.sum() > 100
    assert ((found >= 0) & wanted).sum() >= 0.98 * wanted.sum()
    taken = found >= 0
    assert all(jaccard(shingles(texts[i]), shingles(texts[found[i]])) >= 0.8 for i in np.flatnonzero(taken))
    assert not (taken & (truth < 0)).any()


@pytest.mark.parametrize("similarity", [0.5, 0.8])
def test_pairs_at_the_threshold_become_candidates_as_often_as_promised(similarity):
    """The candidates of random sets whose similarity is known, without the comparison that follows."""
    rng, caught = np.random.default_rng(0), 0
    shared = round(200 * 2 * similarity / (1 + similarity))  # of 200 shingles each
    for _ in range(300):
        pool = rng.integers(2**63, size=400 - shared, dtype=np.uint64)
        seen = Duplicates(lambda number: "", similarity)
        one, other = (set(seen._bands(part).tolist()) for part in (pool[:200], pool[-200:]))
        caught += bool(one & other)
    assert caught >= 0.98 * 300


def test_case_and_signs_do_not_make_a_difference_and_the_first_stays():
    one = "The cat sat on the mat, and then it slept until the evening came."
    assert near_duplicates(["other words that are not it at all", one, "x", one.upper().replace(",", " -"), one]).tolist() == [
        -1,
        -1,
        -1,
        1,
        1,
    ]


def test_a_document_of_few_words_is_no_copy():
    assert near_duplicates(["no no no no"] * 2).tolist() == [-1, -1]
    assert near_duplicates(["no no no no no"] * 2).tolist() == [-1, 0]


def test_scripts_without_spaces():
    one = "我们今天去公园看花然后回家吃饭休息"
    assert near_duplicates([one, "他昨天在学校里读书写字画画唱歌", one + "。"]).tolist() == [-1, -1, 0]


def test_the_same_on_every_machine():
    assert Duplicates(lambda number: "")._bands(shingles("one two three four five six seven"))[:2].tolist() == [
        8445587093794530774,
        2272192257850064857,
    ]


def test_a_similarity_out_of_range_is_refused():
    with pytest.raises(InputError, match=r"similarity: 1\.5 is out of range"):
        Duplicates(lambda number: "", 1.5)
