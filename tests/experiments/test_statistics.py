"""Intervals over seeds and subtasks: exact where all resamples can be listed, right in 19 of 20 studies, silent about one seed."""

import itertools
import math

import numpy as np
import pytest

from ritornello.errors import InputError
from ritornello.experiments.statistics import Estimate, by_chance, conclude, difference, estimate, stretch, student


def table(scores: np.ndarray, first: int = 0) -> dict[int, dict[str, float]]:
    return {first + seed: {f"task {index}": float(value) for index, value in enumerate(row)} for seed, row in enumerate(scores)}


def made(random: np.random.Generator, seeds: int, tasks: int, of_seed: float, of_task: float, left: float, mean: float = 0.6) -> np.ndarray:
    """Scores whose seeds, subtasks and cells vary by so much about a mean."""
    rows, columns = random.normal(0, of_seed, (seeds, 1)), random.normal(0, of_task, (1, tasks))
    return mean + rows + columns + random.normal(0, left, (seeds, tasks))


def test_the_mean_and_the_deviation_over_seeds_by_hand():
    found = estimate(table(np.array([[0.5, 0.7], [0.6, 1.0], [0.1, 0.1]])))
    assert found.value == pytest.approx(0.5)
    assert found.sd == pytest.approx(math.sqrt((0.1**2 + 0.3**2 + 0.4**2) / 2))  # of 0.6, 0.8 and 0.1
    assert (found.seeds, found.subtasks) == ((3,), 2)


def test_the_interval_is_that_of_all_resamples_listed():
    scores = np.array([[0.1, 0.5, 0.6], [0.3, 0.2, 0.9]])
    listed = []
    for seeds in itertools.product(range(2), repeat=2):
        weights = np.bincount(seeds, minlength=2) / 2
        weights = 0.5 + stretch(2) * (weights - 0.5)
        for tasks in itertools.product(range(3), repeat=3):
            listed.append(float((weights @ scores)[list(tasks)].mean()))
    found = estimate(table(scores), resamples=100_000)
    assert found.low == pytest.approx(np.quantile(listed, 0.025, method="inverted_cdf"))
    assert found.high == pytest.approx(np.quantile(listed, 0.975, method="inverted_cdf"))


def test_students_points_are_those_of_the_tables():
    for freedom, point in ((1, 12.706), (2, 4.303), (4, 2.776), (7, 2.365), (30, 2.042)):
        assert student(freedom) == pytest.approx(point, abs=5e-4)


@pytest.mark.parametrize(("of_seed", "of_task", "left"), [(0.02, 0.0, 0.0), (0.005, 0.2, 0.02), (0.02, 0.1, 0.05)])
def test_nineteen_intervals_of_twenty_hold_the_truth(of_seed, of_task, left):
    """Whether seeds, subtasks or both vary: the truth is the mean over all seeds and all subtasks that there could be."""
    random, studies = np.random.default_rng(0), 200
    held = 0
    for _ in range(studies):
        found = estimate(table(made(random, 8, 40, of_seed, of_task, left)), resamples=400)
        held += found.low <= 0.6 <= found.high
    assert 0.92 <= held / studies <= 0.985


def test_a_difference_is_paired_over_subtasks_and_over_equal_seeds():
    random = np.random.default_rng(0)
    one = made(random, 6, 40, 0.02, 0.2, 0.01)
    two = one - 0.01 + random.normal(0, 0.002, one.shape)
    paired, other_seeds = difference(table(one), table(two)), difference(table(one), table(two, first=100))
    assert paired.value == pytest.approx(other_seeds.value) == pytest.approx(one.mean() - two.mean())
    width = [each.high - each.low for each in (paired, other_seeds, estimate(table(one)))]
    assert width[0] < width[1] / 10
    assert width[1] < width[2] / 1.5  # the subtasks' own differences, ten times the seeds', are gone in both
    assert paired.sd == pytest.approx((one - two).mean(1).std(ddof=1))
    assert (paired.low > 0, other_seeds.low < 0, other_seeds.sd) == (True, True, None)


def test_a_difference_is_minus_that_of_the_other_way_round():
    random = np.random.default_rng(1)
    one, two = table(random.random((3, 4))), table(random.random((5, 4)))
    there, back = difference(one, two, resamples=50_000), difference(two, one, resamples=50_000)
    assert there.value == pytest.approx(-back.value)
    assert there.low == pytest.approx(-back.high, abs=0.02)
    assert (there.seeds, back.seeds) == ((3, 5), (5, 3))


def test_of_one_seed_the_variation_is_unknown_and_not_zero():
    one, many = table(np.array([[0.5, 0.7]])), table(np.array([[0.4, 0.5], [0.3, 0.6]]))
    assert estimate(one) == Estimate(pytest.approx(0.6), None, None, None, (1,), 2)
    found = difference(one, many)
    assert (found.value, found.sd, found.low, found.high) == (pytest.approx(0.15), None, None, None)
    said = conclude("A", "B", found, "BLiMP")
    assert "by +15.0 points, with 1 seed and 2 seeds: how much another seed would change is unknown" in said


def test_the_same_numbers_give_the_same_interval_and_another_seed_nearly_the_same():
    scores = table(made(np.random.default_rng(2), 4, 10, 0.02, 0.1, 0.02))
    assert estimate(scores) == estimate(scores)
    one, two = estimate(scores, seed=0), estimate(scores, seed=1)
    assert one.low != two.low
    assert one.low == pytest.approx(two.low, abs=0.1 * (one.high - one.low))


def test_seeds_with_other_subtasks_are_refused():
    with pytest.raises(InputError, match="seed 1 lacks b; score all seeds on the same"):
        estimate({0: {"a": 0.5, "b": 0.5}, 1: {"a": 0.5}})
    with pytest.raises(InputError, match="seed 7 alone has b"):
        difference({0: {"a": 0.5}}, {7: {"a": 0.5, "b": 0.1}})
    for none in ({}, {0: {}}):
        with pytest.raises(InputError, match="there are no scores"):
            estimate(none)


def test_sentences():
    def found(value: float, low: float, high: float, seeds: tuple[int, int] = (8, 8)) -> Estimate:
        return Estimate(value, 0.01, low, high, seeds, 67)

    assert conclude("A", "B", found(0.013, 0.004, 0.022), "BLiMP") == "A above B on BLiMP: +1.3 points [+0.4, +2.2], 8 seeds each."
    assert conclude("A", "B", found(-0.013, -0.022, -0.004), "BLiMP") == "A below B on BLiMP: −1.3 points [−2.2, −0.4], 8 seeds each."
    said = "A and B cannot be told apart on BLiMP with 8 seeds and 7 seeds: the difference is +0.2 points [−0.9, +1.3]."
    assert conclude("A", "B", found(0.002, -0.009, 0.013, (8, 7)), "BLiMP") == said
    said = "A below B on held-out text: −0.021 bits per byte [−0.030, −0.012], 8 seeds each; lower is better."
    assert conclude("A", "B", found(-0.021, -0.03, -0.012), "held-out text", "bits per byte") == said
    assert "[0.0, +1.0]" in conclude("A", "B", found(0.005, -0.0001, 0.01), "BLiMP")
    assert by_chance(1) == "An interval misses the true difference in one study of twenty."
    assert by_chance(6) == (
        "These are 6 comparisons at 95 %: were all systems equal, with a chance of up to 30 % one of them would seem to differ."
    )
    assert "about 1 of them would seem to differ" in by_chance(21)
