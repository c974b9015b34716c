"""Pieces of other lengths: still every target once, rows that go on, and nothing but (seed, epoch, step) to say where they begin."""

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from ritornello.data.batches import Batches, parted
from ritornello.data.pieces import Pieces, cuts
from ritornello.data.tokens import Tokens
from ritornello.errors import InputError

PAPER = Pieces(spread=5 / 70, halved=0.05)


def build(sizes: list[int], batch: int, length: int, seed: int = 0, **pieces) -> Batches:
    """Documents whose tokens are all different."""
    tokens = Tokens(np.arange(sum(sizes), dtype=np.uint16), np.cumsum(sizes, dtype=np.int64))
    return Batches(tokens, bos=1000, eos=1001, batch=batch, length=length, seed=seed, pieces=Pieces(**pieces))


@given(
    sizes=st.lists(st.integers(0, 9), min_size=1, max_size=30), batch=st.integers(1, 3), length=st.integers(1, 12), epoch=st.integers(0, 3)
)
def test_varied_pieces_are_the_same_stream(sizes, batch, length, epoch):
    """Put together they are what pieces of one length are put together, whichever step is asked for first."""
    assume(sum(sizes) > 0 and (sum(sizes) + len(sizes)) // batch >= length)
    plain, varied = build(sizes, batch, length), build(sizes, batch, length, spread=0.3, halved=0.3)
    assert varied.steps == plain.steps
    backwards = [varied(epoch, step) for step in reversed(range(plain.steps))][::-1]
    forwards = [plain(epoch, step) for step in range(plain.steps)]
    for name in ("tokens", "targets"):
        assert torch.equal(*(torch.cat([getattr(piece, name) for piece in pieces], 1) for pieces in (backwards, forwards)))
    widths = [piece.tokens.shape[1] for piece in backwards]
    assert min(widths) >= 1
    assert [int(piece.at[0]) for piece in backwards] == np.cumsum([0, *widths[:-1]]).tolist()


def test_lengths_are_normal_about_the_whole_or_half():
    widths = np.diff(cuts(PAPER, 20_000, 70, np.array([7], np.uint64)))
    assert widths.sum() == 20_000 * 70
    stretch = 1 / 0.975  # halves make the mean less, and an epoch is filled
    half = widths < 52
    assert half.mean() == pytest.approx(0.05, abs=0.005)
    assert widths[~half].mean() == pytest.approx(70 * stretch, abs=0.2)
    assert widths[~half].std() == pytest.approx(5 * stretch, abs=0.2)
    assert widths[half].mean() == pytest.approx(35 * stretch, abs=1)
    assert abs(np.corrcoef(widths[:-1], widths[1:])[0, 1]) < 0.03


def test_lengths_follow_the_seed_and_the_epoch():
    found = {build([9] * 400, 2, 40, seed, spread=0.1)(epoch, 7).tokens.shape[1] for seed in range(4) for epoch in range(4)}
    assert len(found) > 3
    same = [build([9] * 400, 2, 40, 3, spread=0.1)(2, 7) for _ in range(2)]
    assert torch.equal(same[0].tokens, same[1].tokens)


def test_a_state_may_run_on_through_documents():
    batches = build([9] * 40, 2, 10, documents=False)
    assert batches(0, 0).reset.nonzero().tolist() == [[0, 0], [1, 0]]  # an epoch begins afresh
    assert all(batches(0, step).reset is None for step in range(1, batches.steps))
    assert torch.equal(batches(0, 3).tokens, build([9] * 40, 2, 10)(0, 3).tokens)


def test_a_row_in_parts_keeps_its_tokens_and_places():
    batch = build([9] * 40, 2, 12)(0, 3)
    parts = parted(batch, 4)
    assert parts.tokens.shape == parts.targets.shape == parts.reset.shape == (8, 3)
    for name in ("tokens", "targets", "reset"):
        assert torch.equal(getattr(parts, name).flatten(), getattr(batch, name).flatten())
    assert parts.at.tolist() == [int(at) + part for at in batch.at for part in (0, 3, 6, 9)]
    assert parted(batch._replace(reset=None), 4).reset is None


def test_short_rows_double_over_their_share_of_the_run():
    pieces = Pieces(short=16, until=0.5)
    assert [128 // pieces.parts(step, 120, 128) for step in range(0, 120, 10)] == [16, 16, 32, 32, 64, 64] + [128] * 6
    assert Pieces().parts(0, 10, 128) == 1
    assert Pieces(short=128).parts(0, 10, 128) == 1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"spread": -0.1}, r"^train.pieces.spread: -0.1 is not in 0 to 0.5$"),
        ({"halved": 1.5}, r"^train.pieces.halved: 1.5 is not in 0 to 1.0$"),
        ({"until": 0.0}, r"^train.pieces.until: 0.0 is no share of the run"),
        ({"short": 16, "spread": 0.1}, r"^train.pieces: short needs pieces of one length"),
    ],
)
def test_what_cannot_be_is_refused(settings, message):
    with pytest.raises(InputError, match=message):
        Pieces(**settings)


@pytest.mark.parametrize("short", [0, 24, 100, 256])
def test_rows_that_cannot_be_doubled_to_the_length_are_refused(short):
    with pytest.raises(InputError, match=rf"^train.pieces.short: {short} cannot be doubled to the length 128; use one of 64, 32, 16, 8$"):
        Pieces(short=short).check(128)
    Pieces(short=32).check(128)
