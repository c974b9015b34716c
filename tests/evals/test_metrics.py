"""Metrics of classifiers, against scikit-learn's and against hand-made cases."""

import math
import warnings

import pytest
import torch

from ritornello.evals.metrics import measure

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    sklearn = pytest.importorskip("sklearn.metrics", reason="extra: eval")

OURS = {"accuracy": sklearn.accuracy_score, "F1": sklearn.f1_score, "MCC": sklearn.matthews_corrcoef}


@pytest.mark.parametrize(("metric", "classes"), [("accuracy", 2), ("accuracy", 3), ("F1", 2), ("MCC", 2), ("MCC", 3)])
@pytest.mark.parametrize("seed", range(8))
def test_equal_to_scikit_learn(metric, classes, seed):
    generator = torch.Generator().manual_seed(seed)
    weights = torch.rand(classes, generator=generator)
    labels, guesses = (torch.multinomial(weights, 97, True, generator=generator) for _ in range(2))
    choices = torch.where(torch.rand(97, generator=generator) < 0.4, labels, guesses)
    assert measure(metric, labels.tolist(), choices.tolist(), classes)[0] == pytest.approx(OURS[metric](labels, choices), abs=1e-12)


@pytest.mark.parametrize("choice", [0, 1])
@pytest.mark.parametrize("metric", OURS)
def test_one_class_for_all_is_no_division_by_zero(metric, choice):
    labels = [0, 0, 0, 1, 1]
    want = OURS[metric](labels, [choice] * 5)
    assert measure(metric, labels, [choice] * 5, 2)[0] == pytest.approx(want, abs=1e-12)


def test_no_positive_at_all_is_an_f1_of_0():
    assert measure("F1", [0, 0], [0, 0], 2) == (0, 0)


def test_error_of_an_accuracy_is_binomial():
    assert measure("accuracy", [1] * 100, [1] * 80 + [0] * 20, 2) == (0.8, pytest.approx(math.sqrt(0.8 * 0.2 / 100)))


@pytest.mark.parametrize("metric", ["F1", "MCC"])
def test_error_by_resampling_is_the_spread_over_fresh_samples(metric):
    """Items are drawn anew 400 times from one distribution; the spread of the scores is what one sample's bootstrap says."""
    generator = torch.Generator().manual_seed(1)
    labels = torch.randint(2, (400, 300), generator=generator)
    choices = torch.where(torch.rand(400, 300, generator=generator) < 0.75, labels, 1 - labels)
    values = [OURS[metric](one, other) for one, other in zip(labels, choices, strict=True)]
    want = torch.tensor(values).std().item()
    errors = [measure(metric, one, other, 2)[1] for one, other in zip(labels[:20].tolist(), choices[:20].tolist(), strict=True)]
    assert sum(errors) / 20 == pytest.approx(want, rel=0.15)
    assert measure(metric, labels[0].tolist(), choices[0].tolist(), 2)[1] == errors[0], "the seed of the resamples is fixed"
