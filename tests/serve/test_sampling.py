"""Drawing tokens: exact distributions against enumeration, ties, seeds, refusals."""

import math
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from ritornello.errors import InputError
from ritornello.serve.sampling import sample

PLAIN = {"temperature": 1.0, "top_k": None, "top_p": None}


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def frequencies(logits, n=200_000, **options):
    """How often each token is drawn in n rows of the same logits."""
    drawn = sample(torch.tensor(logits).expand(n, -1), generator=generator(), **{**PLAIN, **options})
    return torch.bincount(drawn, minlength=len(logits)).double() / n


def enumerated(logits, temperature=1.0, top_k=None, top_p=None):
    """The distribution from its definition, token by token."""
    weights = [math.exp(logit / temperature) for logit in logits]
    order = sorted(range(len(logits)), key=lambda token: (-weights[token], token))[:top_k]
    kept, mass = [], 0.0
    for token in order:
        if top_p is not None and mass >= top_p * sum(weights[token] for token in order):
            break
        kept.append(token)
        mass += weights[token]
    return np.array([weights[token] / mass if token in kept else 0.0 for token in range(len(logits))])


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"temperature": 0.5},
        {"temperature": 3.0},
        {"top_k": 1},
        {"top_k": 3},
        {"top_k": 99},
        {"top_p": 0.1},
        {"top_p": 0.7},
        {"top_p": 1.0},
        {"top_k": 4, "top_p": 0.8},
        {"temperature": 2.0, "top_k": 5, "top_p": 0.5},
    ],
)
def test_frequencies_are_the_enumerated_probabilities(options):
    logits = [0.3, -1.0, 2.0, 1.1, -0.2, 0.9]
    want = enumerated(logits, **options)
    got = frequencies(logits, **options).numpy()
    assert_allclose(got, want, atol=5 * math.sqrt(0.25 / 200_000))
    assert (got[want == 0] == 0).all()


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(-3, 3), min_size=1, max_size=300),
    st.none() | st.integers(1, 310),
    st.none() | st.floats(0.01, 0.99),
)
def test_what_may_be_drawn_is_the_enumerated_set(logits, top_k, top_p):
    """Many ties, and sets larger than the few that are looked at first."""
    want = enumerated(logits, 1.0, top_k, top_p)
    drawn = sample(
        torch.tensor([logits], dtype=torch.float64).expand(2000, -1), temperature=1.0, top_k=top_k, top_p=top_p, generator=generator()
    )
    count = Counter(drawn.tolist())
    assert all(want[token] > 0 for token in count)
    assert all(count[token] > 0 for token in np.flatnonzero(want > 0.02))


def possible(logits, **options):
    """The tokens that are drawn in 4000 rows."""
    return set(sample(torch.tensor(logits).expand(4000, -1), generator=generator(), **{**PLAIN, **options}).tolist())


def test_top_p_is_a_share_of_what_top_k_kept():
    logits = [1.0, 0.9, 0.8, 0.7, 0.6, 0.5]
    assert possible(logits, top_k=4, top_p=0.7) == {0, 1, 2}
    assert possible(logits, top_p=0.7) == {0, 1, 2, 3}


@pytest.mark.parametrize("likely", [1, 64, 71, 72, 200, 600])
def test_top_p_finds_small_and_large_sets(likely):
    logits = [-20.0] * (700 - likely) + [token % 3 / 10 for token in range(likely)]
    want = set(np.flatnonzero(enumerated(logits, top_p=0.9)).tolist())
    got = possible(logits, top_p=0.9)
    assert got <= want
    assert len(got) > 0.95 * len(want)


def test_an_impossible_token_is_not_drawn_even_by_zero(monkeypatch):
    monkeypatch.setattr(torch, "rand", lambda *shape, **_: torch.zeros(*shape, dtype=torch.float64))
    assert possible([-math.inf, 0.0, 1.0]) == {1}


def test_of_equals_the_smaller_ids_are_kept():
    assert set(sample(torch.zeros(500, 9), generator=generator(), **{**PLAIN, "top_k": 2}).tolist()) == {0, 1}
    assert set(sample(torch.zeros(500, 9), generator=generator(), **{**PLAIN, "top_p": 0.3}).tolist()) == {0, 1, 2}
    assert sample(torch.tensor([[1.0, 5.0, 5.0]]), generator=generator(), **{**PLAIN, "temperature": 0}).tolist() == [1]


def test_temperature_zero_is_greedy_and_draws_no_number():
    logits, random = torch.randn(4, 50, generator=generator(1)), generator(2)
    before = random.get_state()
    got = sample(logits, temperature=0, top_k=None, top_p=None, generator=random)
    assert torch.equal(got, logits.argmax(1))
    assert torch.equal(random.get_state(), before)


@pytest.mark.parametrize("temperature", [1e-310, 1e-6, 1e300])
def test_extreme_temperatures(temperature):
    logits = torch.tensor([[1.0, 3.0, 2.0, -math.inf]]).expand(300, -1)
    got = set(sample(logits, generator=generator(), **{**PLAIN, "temperature": temperature}).tolist())
    assert got == ({0, 1, 2} if temperature > 1 else {1})


def test_the_same_seed_draws_the_same_and_a_row_does_not_depend_on_the_rows_after_it():
    logits = torch.randn(6, 40, generator=generator(1))
    want = sample(logits, generator=generator(5), **PLAIN)
    assert torch.equal(sample(logits, generator=generator(5), **PLAIN), want)
    assert torch.equal(sample(logits[:3], generator=generator(5), **PLAIN), want[:3])
    draws = {tuple(sample(logits, generator=generator(seed), **PLAIN).tolist()) for seed in range(10)}
    assert len(draws) == 10


def test_rows_keep_to_their_own_logits():
    logits = torch.full((5, 5), -50.0).fill_diagonal_(50.0)
    for top_k, top_p in ((None, None), (2, None), (None, 0.9)):
        assert sample(logits, temperature=1.0, top_k=top_k, top_p=top_p, generator=generator()).tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_half_precision_logits_are_widened_first(dtype):
    """4096 equally likely tokens: a sum in bfloat16 would stop at 256."""
    drawn = sample(torch.zeros(1000, 4096, dtype=dtype), generator=generator(), **PLAIN)
    assert drawn.dtype == torch.int64
    assert 690 < int((drawn > 1000).sum()) < 820
    assert len(set(drawn.tolist())) > 800


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": -0.1}, "temperature"),
        ({"temperature": math.nan}, "temperature"),
        ({"temperature": math.inf}, "temperature"),
        ({"top_k": 0}, "top-k"),
        ({"top_p": 0.0}, "top-p"),
        ({"top_p": 1.1}, "top-p"),
        ({"top_p": math.nan}, "top-p"),
    ],
)
def test_settings_out_of_range_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        sample(torch.zeros(1, 3), generator=generator(), **{**PLAIN, **options})


@pytest.mark.parametrize("temperature", [0, 1.0])
@pytest.mark.parametrize("row", [[0.0, math.nan], [0.0, math.inf], [-math.inf, -math.inf]])
def test_logits_without_a_distribution_are_refused(row, temperature):
    with pytest.raises(InputError, match="row 1 is"):
        sample(torch.tensor([[0.0, 1.0], row]), generator=generator(), **{**PLAIN, "temperature": temperature})


@pytest.mark.parametrize("shape", [(3,), (1, 2, 3), (2, 0)])
def test_other_shapes_are_refused(shape):
    with pytest.raises(InputError, match="shape"):
        sample(torch.zeros(shape), generator=generator(), **PLAIN)
