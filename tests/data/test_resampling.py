"""What resembles the target is drawn, the shares of a mixed target come back, and the draw follows from the seed."""

import numpy as np
import pytest

from ritornello.data.resampling import BUCKETS, bag, drawn_order, features, log_weights, resample

RNG = np.random.default_rng(1)


def documents(domain: str, count: int, least: int = 20, most: int = 60) -> list[str]:
    """Texts of a domain's own 80 words and 20 that all share."""
    lexicon = np.array([f"{domain}{number}" for number in range(80)] + [f"all{number}" for number in range(20)])
    return [" ".join(RNG.choice(lexicon, RNG.integers(least, most))) for _ in range(count)]


def test_the_domain_of_the_target_is_drawn():
    raw = documents("sea", 450) + documents("sky", 50)
    found = resample(raw, documents("sky", 30), 50)
    assert (found >= 450).mean() > 0.97
    assert (np.diff(found) > 0).all()


def test_the_shares_of_a_mixed_target_are_approached_when_words_are_weighed():
    raw = documents("sea", 540) + documents("sky", 60)
    target = documents("sea", 60) + documents("sky", 60)
    weights = log_weights(raw, bag(target), bag(raw), "word")
    drawn = [(drawn_order(weights, seed)[:60] >= 540).mean() for seed in range(20)]
    assert 0.15 < np.mean(drawn) < 0.5  # 0.1 in the raw text, 0.5 in the target; words that both domains have pull back
    assert (resample(raw, target, 60, weight="word") == np.sort(drawn_order(weights, 0)[:60])).all()
    assert (resample(raw, target, 60) >= 540).mean() > 0.9  # the paper's weight takes all of what there is too little of


def test_weights_by_hand():
    texts = ["a b", "c", ""]
    target, raw = bag(["a a b"]), bag(texts)
    p, q = target / target.sum(), raw / raw.sum()
    found = features("a b")
    assert len(found) == 3
    assert len({*found.tolist(), *features("b a").tolist()}) == 4
    want = np.log(p[found] / q[found])
    assert log_weights(texts, target, raw, "document")[0] == pytest.approx(want.sum())
    assert log_weights(texts, target, raw, "word")[0] == pytest.approx(want.mean())
    assert log_weights(texts, target, raw, "word")[2] == -np.inf
    assert target.sum() == BUCKETS + 5


def test_draws_have_the_probability_of_their_weights():
    """First places of Gumbel top-k are draws from softmax(log w): Yellott 1977."""
    weights = np.log([0.1, 0.2, 0.7])
    first = np.bincount([drawn_order(weights, seed)[0] for seed in range(4000)], minlength=3) / 4000
    assert np.abs(first - [0.1, 0.2, 0.7]).max() < 0.025


def test_the_order_follows_from_the_seed_and_the_name():
    weights = np.zeros(50)
    one = drawn_order(weights, 3, "childes")
    assert sorted(one.tolist()) == list(range(50))
    assert (one == drawn_order(weights, 3, "childes")).all()
    assert (one != drawn_order(weights, 4, "childes")).any()
    assert (one != drawn_order(weights, 3, "wikipedia")).any()
    assert drawn_order(np.array([-np.inf, 0.0, 0.0]), 0)[-1] == 0
