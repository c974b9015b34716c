"""The laws of batches: rows go on, resets stand at beginnings, nothing is scored twice, everything follows from the seed."""

import time

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from ritornello.data.batches import Batches
from ritornello.data.tokens import Tokens
from ritornello.errors import InputError

SIZES = st.lists(st.integers(0, 9), min_size=1, max_size=30)


def tokens_of(sizes: list[int]) -> Tokens:
    """Documents whose tokens are all different: 0, 1, 2 and so on through the corpus."""
    return Tokens(np.arange(sum(sizes), dtype=np.uint16), np.cumsum(sizes, dtype=np.int64))


def enough(sizes: list[int], batch: int, length: int) -> bool:
    return sum(sizes) > 0 and (sum(sizes) + len(sizes)) // batch >= length


def build(sizes: list[int], batch: int, length: int, seed: int = 0) -> Batches:
    return Batches(tokens_of(sizes), bos=1000, eos=1001, batch=batch, length=length, seed=seed)


def epoch_of(batches: Batches, epoch: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """tokens, targets, reset of a whole epoch, each (B, steps * T)."""
    parts = [batches(epoch, step) for step in range(batches.steps)]
    resets = [torch.zeros_like(part.tokens, dtype=torch.bool) if part.reset is None else part.reset for part in parts]
    rows = ([part.tokens for part in parts], [part.targets for part in parts], resets)
    return tuple(torch.cat(part, 1).numpy() for part in rows)


@given(sizes=SIZES, batch=st.integers(1, 4), length=st.integers(1, 12), seed=st.integers(-1, 5), epoch=st.integers(0, 3))
def test_rows_go_on_from_batch_to_batch(sizes, batch, length, seed, epoch):
    assume(enough(sizes, batch, length))
    tokens, targets, reset = epoch_of(build(sizes, batch, length, seed), epoch)
    begins = tokens == 1000
    assert (reset[:, 1:] == begins[:, 1:]).all()
    assert reset[:, 0].all()
    assert (np.where(begins[:, 1:], 1001, tokens[:, 1:]) == targets[:, :-1]).all()
    inside = (targets != 1001) & ~begins
    assert (targets[inside] == tokens[inside] + 1).all()
    ends = np.cumsum(sizes)
    assert np.isin(tokens[(targets == 1001) & ~begins] + 1, ends).all()
    assert np.isin(targets[begins & (targets != 1001)], ends - np.array(sizes)).all()


@given(sizes=SIZES, batch=st.integers(1, 4), length=st.integers(1, 12), epoch=st.integers(0, 3))
def test_each_token_is_scored_at_most_once_and_few_are_left_out(sizes, batch, length, epoch):
    assume(enough(sizes, batch, length))
    batches = build(sizes, batch, length)
    _, targets, _ = epoch_of(batches, epoch)
    scored = targets[targets != 1001]
    assert len(set(scored.tolist())) == len(scored)
    assert (targets == 1001).sum() <= len(sizes)
    assert 0 <= sum(sizes) + len(sizes) - targets.size < batch * length


@given(sizes=SIZES, epoch=st.integers(0, 3))
def test_one_stream_of_single_tokens_is_the_whole_corpus(sizes, epoch):
    assume(enough(sizes, 1, 1))
    tokens, targets, _ = epoch_of(build(sizes, 1, 1), epoch)
    assert sorted(targets[0].tolist()) == [*range(sum(sizes)), *[1001] * len(sizes)]
    assert (tokens == 1000).sum() == len(sizes)


@given(sizes=SIZES, batch=st.integers(1, 3), length=st.integers(1, 6), data=st.data())
def test_any_batch_at_any_time(sizes, batch, length, data):
    assume(enough(sizes, batch, length))
    batches, other = build(sizes, batch, length), build(sizes, batch, length)
    calls = st.tuples(st.integers(0, 3), st.integers(0, batches.steps - 1))
    for epoch, step in data.draw(st.lists(calls, min_size=1, max_size=6)):
        batches(epoch, step)
    got, want = batches(epoch, step), other(epoch, step)
    assert torch.equal(got.tokens, want.tokens)
    assert torch.equal(got.targets, want.targets)
    assert torch.equal(got.at, want.at)
    assert (got.reset is None) == (want.reset is None)
    assert got.reset is None or torch.equal(got.reset, want.reset)


def test_shapes_and_types():
    batches = build([50] * 8, 4, 10)
    first, second = batches(0, 0), batches(0, 1)
    for tensor in (first.tokens, first.targets):
        assert (tensor.shape, tensor.dtype) == ((4, 10), torch.int64)
    assert (first.reset.shape, first.reset.dtype) == ((4, 10), torch.bool)
    assert first.at.tolist() == [0, 102, 204, 306]
    assert (second.at - first.at).tolist() == [10] * 4
    assert any(batches(0, step).reset is None for step in range(batches.steps))


def test_the_order_and_the_offset_follow_the_seed_and_the_epoch():
    batches = build([9] * 40, 1, 1)
    orders = {}
    for seed, epoch in [(0, 0), (0, 1), (1, 0)]:
        batches = build([9] * 40, 1, 1, seed)
        tokens, targets, _ = epoch_of(batches, epoch)
        orders[seed, epoch] = (targets[tokens == 1000] // 9).tolist(), int(np.argmax(tokens[0] == 1000))
    assert len({str(order) for order, _ in orders.values()}) == 3
    assert len({offset for _, offset in orders.values()}) > 1
    assert all(sorted(order) == list(range(40)) for order, _ in orders.values())
    assert np.mean(np.abs(np.diff(orders[0, 0][0])) == 1) < 0.2


def test_the_streams_turn_so_that_other_tokens_are_left_out():
    batches = build([1000], 1, 600)
    left = {frozenset(range(1000)) - set(batches(epoch, 0).targets.ravel().tolist()) for epoch in range(5)}
    assert len(left) == 5


def test_all_of_the_seed_counts():
    assert not torch.equal(build([9] * 40, 1, 50, 1)(0, 0).tokens, build([9] * 40, 1, 50, 1 + 2**32)(0, 0).tokens)


@pytest.mark.parametrize(
    ("batch", "length", "message"),
    [
        (4, 1000, "^360 tokens make 4 streams of 90, shorter than one piece of 1000; use length <= 90 or fewer streams$"),
        (400, 1, "^360 tokens make 400 streams of 0, shorter than one piece of 1; use 360 streams or fewer$"),
        (0, 5, "a batch of 0 x 5 tokens; use 1 or more of both"),
        (2, 0, "a batch of 2 x 0 tokens; use 1 or more of both"),
    ],
)
def test_too_short(batch, length, message):
    with pytest.raises(InputError, match=message):
        Batches(tokens_of([35] * 10), bos=0, eos=0, batch=batch, length=length, seed=0)


def test_steps_outside_the_epoch():
    batches = build([9] * 40, 1, 50)
    for step in (-1, batches.steps):
        with pytest.raises(IndexError, match=f"step {step} of an epoch of {batches.steps}"):
            batches(0, step)


def test_many_short_documents_are_quick():
    tokens = Tokens(np.zeros(4_000_000, np.uint16), np.arange(20, 4_000_001, 20))
    batches = Batches(tokens, bos=1, eos=1, batch=16, length=256, seed=0)
    batches(0, 0)
    start = time.perf_counter()
    for step in range(50):
        batches(0, step)
    assert (time.perf_counter() - start) / 50 < 0.02
