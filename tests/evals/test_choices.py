"""Decisions among candidates, and means over tasks, by hand."""

import math

import pytest
import torch

from ritornello.evals.choices import choice_rows, choose
from ritornello.evals.means import macro, means, pooled
from ritornello.evals.report import Row

SCORES = [torch.tensor([-1.0, -2.0, -3.0]), torch.tensor([-2.0, -2.0]), torch.tensor([-1.0, -1.0, -1.0, -2.0]), torch.tensor([-3.0, -1.0])]
ANSWERS = [0, 1, 0, 0]


def test_points_by_hand():
    """Right; a tie that is not first; a tie of three that is; wrong."""
    rows = {row.metric: row for row in choice_rows("s", "t", SCORES, ANSWERS)}
    assert choose(SCORES) == [0, 0, 0, 1]
    assert rows["accuracy (official)"].value == 0.5
    assert rows["accuracy (half credit)"].value == pytest.approx((1 + 1 / 2 + 1 / 3) / 4)
    assert rows["ties"].value == 0.5
    assert rows["accuracy (official)"].chance == rows["accuracy (half credit)"].chance == pytest.approx((1 / 3 + 1 / 2 + 1 / 4 + 1 / 2) / 4)
    assert rows["ties"].chance is None
    assert rows["accuracy (official)"].stderr == pytest.approx(0.25)
    assert {(row.suite, row.task, row.n) for row in rows.values()} == {("s", "t", 4)}


@pytest.mark.parametrize("odd", [math.nan, -math.inf])
def test_a_score_that_is_not_finite_leaves_no_value(odd):
    rows = choice_rows("s", "t", [torch.tensor([-1.0, odd]), torch.tensor([-1.0, -2.0])], [0, 0])
    assert {row.reason for row in rows} == {"1 of 2 items have no finite score"}


def row(task, value, n, chance=0.5, stderr=0.1, metric="m"):
    return Row("s", task, metric, value, stderr, n, chance, reason=None if value is not None else "why")


def test_means_by_hand():
    tasks = [row("a", 1.0, 1, chance=0.5, stderr=0.0), row("b", 0.5, 3, chance=0.1, stderr=0.3)]
    whole, items = means(tasks)
    assert (whole.task, items.task) == ("all", "all items")
    assert (whole.value, items.value) == (0.75, pytest.approx(0.625))
    assert (whole.chance, items.chance) == (pytest.approx(0.3), pytest.approx(0.2))
    assert whole.stderr == pytest.approx(0.15)
    squares = (1 * (1 - 0.625) ** 2 + 3 * (3 * 0.3**2 + (0.5 - 0.625) ** 2)) / 4
    assert items.stderr == pytest.approx(math.sqrt(squares / 4))
    assert whole.n == items.n == 4
    assert macro([row("a", 1.0, 1, chance=None)]).chance is None


def test_nothing_is_averaged_over_a_gap():
    tasks = [row("a", 1.0, 1), row("b", None, 3), row("c", None, 3)]
    for mean in (macro(tasks), pooled(tasks, "all pairs")):
        assert mean.value is None
        assert mean.reason == "no value for b, c"
    assert pooled(tasks, "all pairs").task == "all pairs"
