"""What a few seeds tell of a system, and of two: means, deviations, and intervals by resampling seeds, then subtasks.

Scores are a table, a row for each seed and a column for each subtask. A resample draws n of the n seeds with replacement, then k of the
k subtasks, the same for all seeds drawn, and for both systems where two are compared; those that ran the same seeds have them drawn
together too. 2.5 % of the resampled means lie below the interval and 2.5 % above it (Efron 1979; that rows and columns are drawn each by
themselves is Owen 2007, arXiv:0712.1111: one draw of all cells would take subtasks of one seed for new evidence).

Seeds are few, and the mean of n resampled ones varies too little: by the factor sqrt((n - 1) / n), and without knowing that the spread
itself was estimated. So their weights are stretched about 1 / n by

    c = sqrt(n / (n - 1)) t / z        t, z: the 97.5 % points of Student's distribution with n - 1 degrees of freedom, and of the normal

which Hesterberg 2014 (arXiv:1411.5279) does to the whole interval, and here is done to the part that needs it. Of one seed the variation
is unknown: then there is no interval, which is not an interval of no width.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from statistics import NormalDist

import numpy as np

from ritornello.analysis.numerals import is_fraction
from ritornello.analysis.scores import LOWER
from ritornello.errors import InputError

Scores = Mapping[int, Mapping[str, float]]  # seed -> subtask -> score; a number without subtasks is one of any name
RESAMPLES = 10_000
OUTSIDE = 0.025  # on either side of an interval


@dataclass(frozen=True)
class Estimate:
    """A mean over subtasks and seeds, or the difference of two."""

    value: float
    sd: float | None  # over seeds, of the means over subtasks; None with one seed, and for a difference of other seeds
    low: float | None  # of the 95 % interval; None with one seed
    high: float | None
    seeds: tuple[int, ...]  # how many: of the system, or of the first and of the second
    subtasks: int


def estimate(scores: Scores, *, resamples: int = RESAMPLES, seed: int = 0) -> Estimate:
    """The mean of a system's scores, its standard deviation over seeds and its interval. InputError if a seed lacks a subtask."""
    table = _table(scores, sorted(next(iter(scores.values()), ())))
    return _estimate([table], (len(table),), resamples, seed)


def difference(first: Scores, second: Scores, *, resamples: int = RESAMPLES, seed: int = 0) -> Estimate:
    """How far the first system's mean lies above the second's. Paired over subtasks, and over seeds where both ran the same ones.

    InputError if a seed of either lacks a subtask of the first's.
    """
    subtasks = sorted(next(iter(first.values()), ()))
    one, two = _table(first, subtasks), _table(second, subtasks)
    seeds = (len(one), len(two))
    return _estimate([one - two] if set(first) == set(second) else [one, -two], seeds, resamples, seed)


def conclude(first: str, second: str, found: Estimate, what: str, metric: str = "accuracy") -> str:
    """What the difference of two systems allows to say, in a sentence. `what`: the benchmark; `metric`: as a report names it."""
    points, unit = _units(metric, found.value), "points" if is_fraction(metric) else metric
    seeds, lower = _seeds(found.seeds), "; lower is better" * metric.startswith(LOWER)
    if found.low is None or found.high is None:
        return (
            f"{first} differs from {second} on {what} by {points} {unit}, with {seeds}: how much another seed would change is unknown, "
            "so this says nothing about which is better."
        )
    interval = f"{points} {unit} [{_units(metric, found.low)}, {_units(metric, found.high)}]"
    if found.low > 0 or found.high < 0:
        return f"{first} {'above' if found.low > 0 else 'below'} {second} on {what}: {interval}, {seeds}{lower}."
    return f"{first} and {second} cannot be told apart on {what} with {seeds}: the difference is {interval}."


def by_chance(comparisons: int) -> str:
    """What to keep in mind of so many differences at 95 %, in a sentence."""
    wrong = 2 * OUTSIDE * comparisons
    if comparisons < 2:
        return "An interval misses the true difference in one study of twenty."
    about = f"about {wrong:.0f} of them would" if wrong >= 1 else f"with a chance of up to {round(100 * wrong)} % one of them would"
    return f"These are {comparisons} comparisons at 95 %: were all systems equal, {about} seem to differ."


def _table(scores: Scores, subtasks: Sequence[str]) -> np.ndarray:
    """(seeds, subtasks), seeds in order."""
    for seed, row in scores.items():
        if odd := sorted(set(subtasks) ^ row.keys()):
            raise InputError(
                f"statistics: seed {seed} {'lacks' if odd[0] not in row else 'alone has'} {odd[0]}; score all seeds on the same"
            )
    if not scores or not subtasks:
        raise InputError("statistics: there are no scores; give at least one seed of one subtask")
    return np.array([[scores[seed][name] for name in subtasks] for seed in sorted(scores)], dtype=np.float64)


def _estimate(tables: list[np.ndarray], seeds: tuple[int, ...], resamples: int, seed: int) -> Estimate:
    """Of the sum of tables (seeds, subtasks), whose seeds are drawn each for itself and whose subtasks together."""
    value, subtasks = float(sum(table.mean() for table in tables)), tables[0].shape[1]
    if min(seeds) < 2:
        return Estimate(value, None, None, None, seeds, subtasks)
    random = np.random.default_rng(seed)
    columns = sum(_weights(random, len(table), resamples, stretch(len(table))) @ table for table in tables)  # (resamples, subtasks)
    means = np.einsum("rk,rk->r", columns, _weights(random, subtasks, resamples))
    low, high = np.quantile(means, (OUTSIDE, 1 - OUTSIDE)).tolist()
    sd = float(tables[0].mean(1).std(ddof=1)) if len(tables) == 1 else None
    return Estimate(value, sd, low, high, seeds, subtasks)


def _weights(random: np.random.Generator, n: int, resamples: int, stretched: float = 1.0) -> np.ndarray:
    """The share of each of n in resamples of n, (resamples, n), its distance from 1 / n stretched."""
    return 1 / n + stretched * (random.multinomial(n, np.full(n, 1 / n), resamples) / n - 1 / n)


@cache
def stretch(n: int) -> float:
    """The factor c above, n > 1."""
    return math.sqrt(n / (n - 1)) * student(n - 1) / NormalDist().inv_cdf(1 - OUTSIDE)


def student(freedom: int) -> float:
    """The 97.5 % point of Student's distribution: its density is cos(a)^(freedom - 1) in the angle a = atan(t / sqrt(freedom))."""
    angles = np.linspace(0, math.pi / 2, 200_001)
    density = np.cos(angles) ** (freedom - 1)
    share = np.concatenate([[0.0], np.cumsum((density[1:] + density[:-1]) / 2)])
    return math.sqrt(freedom) * math.tan(float(np.interp(1 - 2 * OUTSIDE, share / share[-1], angles)))


def _units(metric: str, value: float) -> str:
    """+1.3 for a fraction of 0.013, +0.021 for others; without a sign where nothing is left."""
    text = f"{100 * value:+.1f}" if is_fraction(metric) else f"{value:+.3f}"
    return (text if any(digit in "123456789" for digit in text) else text[1:]).replace("-", "−")


def _seeds(seeds: tuple[int, ...]) -> str:
    names = [f"{count} seed{'s' * (count > 1)}" for count in seeds]
    return f"{names[0]} each" if len(set(seeds)) == 1 else f"{names[0]} and {names[1]}"
