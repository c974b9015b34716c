"""Bits per byte and perplexity against numbers worked out by hand, and their standard errors against simulation."""

import math

import pytest
import torch

from ritornello.errors import InputError
from ritornello.evals.perplexity import difference, held_out


def test_by_hand():
    nats = torch.tensor([1.0, 2.0, 3.0]) * math.log(2)
    bits, perplexity = held_out(nats, torch.tensor([0, 0, 0]), torch.tensor([4, 4, 0]))
    assert (bits.suite, bits.task, bits.metric, bits.n, bits.by) == ("held-out", "all", "bits per byte", 3, "model")
    assert bits.value == pytest.approx(6 / 8, abs=1e-6)
    assert perplexity.metric == "perplexity"
    assert perplexity.value == pytest.approx(4.0, abs=1e-6)
    assert bits.stderr is None
    assert perplexity.stderr is None


def test_standard_errors_by_hand():
    """20 documents of one token: half with 1 nat over 1 byte, half with 3 nats over 2 bytes."""
    nats, nbytes, documents = torch.tensor([1.0, 3.0] * 10), torch.tensor([1, 2] * 10), torch.arange(20)
    bits, perplexity = held_out(nats, documents, nbytes, by="unigram")
    ratio = 4 / 3
    square = 20 / 19 * 10 * ((1 - ratio) ** 2 + (3 - 2 * ratio) ** 2) / 30**2
    assert bits.value == pytest.approx(ratio / math.log(2))
    assert bits.stderr == pytest.approx(math.sqrt(square) / math.log(2))
    assert perplexity.stderr == pytest.approx(math.exp(2) * math.sqrt(20 / 19 * 20 / 20**2))
    assert {bits.by, perplexity.by} == {"unigram"}


def test_documents_are_the_clusters_from_20_on_and_blocks_below():
    """All the variance lies between documents, so that neither choice can pass for the other."""
    nats = torch.tensor([1.0, 2.0] * 10).repeat_interleave(64)
    few, many = (torch.arange(20).clamp(max=most).repeat_interleave(64) for most in (18, 19))
    ones = torch.ones(1280)
    assert held_out(nats, many, ones)[1].stderr == pytest.approx(math.exp(1.5) * 0.5 / math.sqrt(19))
    assert held_out(nats, few, ones)[1].stderr == pytest.approx(0)  # each block of 256 holds two documents of either sort


def test_standard_error_is_the_spread_over_repeated_samples():
    generator = torch.Generator().manual_seed(0)
    values, errors = [], []
    for _ in range(300):
        sizes = torch.randint(5, 60, (40,), generator=generator)
        documents = torch.arange(40).repeat_interleave(sizes)
        level = torch.randn(40, generator=generator)[documents] * 0.4
        nats = (3 + level + torch.randn(len(level), generator=generator)).abs()
        row, _ = held_out(nats, documents, torch.randint(1, 6, (len(nats),), generator=generator))
        values.append(row.value)
        errors.append(row.stderr)
    spread = torch.tensor(values).std().item()
    assert sum(errors) / len(errors) == pytest.approx(spread, rel=0.15)


def test_difference_is_paired():
    generator = torch.Generator().manual_seed(0)
    documents, nbytes = torch.arange(50).repeat_interleave(20), torch.full((1000,), 3)
    nats = torch.randn(50, generator=generator)[documents] + 5
    row = difference(nats, (nats + 0.3).numpy(), documents, nbytes.numpy(), than="5-gram")  # arrays do as well
    assert (row.metric, row.by, row.n) == ("bits per byte minus 5-gram", "model", 1000)
    assert row.value == pytest.approx(-0.1 / math.log(2), rel=1e-5)
    assert row.stderr < 1e-6 < held_out(nats, documents, nbytes)[0].stderr
    rows = [held_out(part, documents, nbytes)[0].value for part in (nats, nats + 0.3)]
    assert row.value == pytest.approx(rows[0] - rows[1])


def test_what_cannot_be_computed_has_a_reason():
    bits, perplexity = held_out(torch.tensor([1.0, float("inf")]), torch.tensor([0, 0]), torch.tensor([1, 1]))
    assert bits.value is perplexity.value is None
    assert bits.reason == perplexity.reason == "1 of 2 tokens have no finite score"
    bits, perplexity = held_out(torch.tensor([1.0]), torch.tensor([0]), torch.tensor([0]))
    assert (bits.value, bits.reason) == (None, "the text holds no bytes")
    assert perplexity.value == pytest.approx(math.e)
    _, perplexity = held_out(torch.tensor([800.0]), torch.tensor([0]), torch.tensor([1]))
    assert (perplexity.value, perplexity.reason) == (None, "too large for a float64")


def test_bad_input():
    with pytest.raises(InputError, match="equally long"):
        held_out(torch.ones(3), torch.zeros(3), torch.ones(2))
    with pytest.raises(InputError, match="equally long"):
        held_out(torch.ones(0), torch.zeros(0), torch.ones(0))
    with pytest.raises(InputError, match="3 tokens against 2"):
        difference(torch.ones(3), torch.ones(2), torch.zeros(3), torch.ones(3), than="5-gram")
