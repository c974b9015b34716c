"""Averages of the weights by hand: which steps count, when the trigger is pulled, who sees the average and who does not."""

from contextlib import suppress

import pytest
import torch
from torch import nn

from ritornello.errors import InputError
from ritornello.train.averaging import Average, AverageConfig


def module() -> nn.Module:
    return nn.Linear(1, 1, bias=False)


def walk(average: Average, values: list[float], first: int = 1) -> None:
    """The weight is each of these after a step."""
    for step, value in enumerate(values, first):
        with torch.no_grad():
            average.named["weight"].fill_(value)
        average.add(step)


def test_an_exponential_average_begins_where_it_is_told_to():
    average = Average(module(), AverageConfig(decay=0.9, start=2))
    walk(average, [5.0, 7.0])
    assert not average.mean
    walk(average, [1.0, 2.0, 4.0], 3)
    assert float(average.mean["weight"]) == pytest.approx(0.9 * (0.9 * 1 + 0.1 * 2) + 0.1 * 4)
    assert str(average) == "the exponential average, decay 0.9, since step 3"


def test_its_decay_is_0999_from_the_first_step_unless_told():
    average = Average(module(), AverageConfig())
    walk(average, [1.0, 2.0])
    assert float(average.mean["weight"]) == pytest.approx(1.001)


def test_the_trigger_is_pulled_when_a_loss_is_above_the_best_but_the_last_few():
    """As in the authors' code: the newest `patience` losses are not compared with."""
    average = Average(module(), AverageConfig(kind="nt-asgd", patience=2))
    for step, loss in enumerate([5.0, 4.0, 4.5, 4.4, 3.9, 4.2, 9.0], 1):
        walk(average, [float(step)], step)
        average.hear(step, loss)
        assert average.since == (6 if step >= 6 else 0), step  # 4.2 is above 4.0; 4.4 was compared with 5.0 alone, 3.9 with 5.0 and 4.0
    walk(average, [10.0, 1.0], 8)
    assert float(average.mean["weight"]) == pytest.approx((7 + 10 + 1) / 3)
    assert str(average) == "the mean of 3 steps since step 7 (nt-asgd)"


def test_patience_is_five_checks_unless_told():
    average = Average(module(), AverageConfig(kind="nt-asgd"))
    for step in range(1, 8):
        assert not average.since
        average.hear(step, float(step))
    assert average.since == 7


def test_an_average_that_does_not_begin_says_so_and_changes_nothing():
    average = Average(module(), AverageConfig(kind="nt-asgd"))
    walk(average, [1.0, 2.0])
    with average.shown():
        assert average.named["weight"].item() == 2.0
    average.put(average.mean)
    assert average.named["weight"].item() == 2.0
    assert str(average) == "the last step's: the average (nt-asgd) did not begin"


def test_the_average_is_shown_and_taken_back_whatever_happens():
    average = Average(module(), AverageConfig(decay=0.5))
    walk(average, [0.0, 2.0])
    with suppress(KeyError), average.shown():
        assert average.named["weight"].item() == 1.0
        raise KeyError
    assert average.named["weight"].item() == 2.0
    assert float(average.mean["weight"]) == 1.0


@pytest.mark.parametrize("kind", ["ema", "nt-asgd"])
def test_it_goes_on_from_its_memory(kind):
    config = AverageConfig(kind=kind)
    first, second = (Average(module(), config) for _ in range(2))
    for step in range(1, 12):
        first.hear(step, float(step))
        walk(first, [step**0.5], step)
        if step == 8:
            second.restore({name: value.clone() for name, value in first.memory().items()})
        if step > 8:
            second.hear(step, float(step))
            walk(second, [step**0.5], step)
    assert torch.equal(first.mean["weight"], second.mean["weight"])
    assert str(first) == str(second)
    assert first.heard == second.heard


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"decay": 1.0}, r"^train.average.decay: 1.0 is not between 0 and 1$"),
        ({"start": -1}, r"^train.average.start: -1 is less than 0$"),
        ({"patience": 3}, r"^train.average.patience does not go with ema; leave it out$"),
        ({"kind": "nt-asgd", "decay": 0.9}, r"^train.average.decay does not go with nt-asgd"),
        ({"kind": "nt-asgd", "start": 9}, r"^train.average.start does not go with nt-asgd"),
        ({"kind": "nt-asgd", "patience": 0}, r"^train.average.patience: 0 is less than 1$"),
    ],
)
def test_what_cannot_be_is_refused(settings, message):
    with pytest.raises(InputError, match=message):
        AverageConfig(**settings)
