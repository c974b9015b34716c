"""A given order of documents: every row goes through it side by side in the first epoch, and only there."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ritornello.data.batches import Batches
from ritornello.data.order import check_order, dealt, easy_first
from ritornello.data.tokens import Tokens
from ritornello.errors import InputError

RNG = np.random.default_rng(0)
SIZES = RNG.integers(5, 60, 400)
TOKENS = Tokens(np.arange(SIZES.sum(), dtype=np.uint16), np.cumsum(SIZES))
ORDER = RNG.permutation(len(SIZES))


def batches(first: np.ndarray | None, rows: int = 4) -> Batches:
    return Batches(TOKENS, bos=50_000, eos=50_001, batch=rows, length=32, seed=3, first=first)


def ranks(made: Batches, epoch: int) -> np.ndarray:
    """The place in ORDER of each token's document, (B, steps * T); -1 at beginnings."""
    tokens = torch.cat([made(epoch, step).tokens for step in range(made.steps)], 1).numpy()
    place = np.empty(len(SIZES), int)
    place[ORDER] = np.arange(len(SIZES))
    document = np.searchsorted(TOKENS.ends, np.minimum(tokens, len(TOKENS.ids) - 1), side="right")
    return np.where(tokens == 50_000, -1, place[document])


@pytest.mark.parametrize("rows", [1, 4, 7])
def test_all_rows_go_through_the_order_side_by_side(rows):
    found = ranks(batches(ORDER, rows), 0)
    share = np.linspace(0, len(SIZES), found.shape[1])
    astray = np.abs(found - share)[found >= 0]
    assert np.quantile(astray, 0.97) < 0.06 * len(SIZES)
    for row in found:
        assert (np.diff(row[row >= 0]) < 0).sum() <= 1  # a row may begin with the end of the stretch before it


def test_later_epochs_are_mixed_as_ever():
    given_order, mixed = batches(ORDER), batches(None)
    assert (given_order(1, 5).tokens == mixed(1, 5).tokens).all()
    assert (given_order(0, 5).tokens != mixed(0, 5).tokens).any()
    assert (given_order(0, 5).tokens == batches(ORDER)(0, 5).tokens).all()  # whatever was asked for before


@given(sizes=st.lists(st.integers(1, 50), min_size=1, max_size=60), rows=st.integers(1, 8), data=st.data())
def test_dealt_keeps_every_document_and_balances_rows(sizes, rows, data):
    order = np.array(data.draw(st.permutations(range(len(sizes)))))
    found = dealt(order, np.array(sizes), rows)
    assert sorted(found.tolist()) == list(range(len(sizes)))
    place = {document: at for at, document in enumerate(order.tolist())}
    falls = sum(place[one] > place[other] for one, other in pairwise(found))
    assert falls < rows  # as many stretches as rows, each in order


def test_equally_hard_documents_stay_as_they_stand():
    assert easy_first(np.array([2.0, 1.0, 2.0, 0.5, 1.0])).tolist() == [3, 1, 4, 0, 2]


def test_an_order_that_there_is_not_is_refused():
    for kind in ("random", "corpus", "length", "surprisal", "surprisal:runs/a"):
        check_order(kind)
    for kind in ("lenght", "surprisal:", ""):
        with pytest.raises(InputError, match=r"train\.order: unknown order '.*Known: corpus, length, random, surprisal, surprisal:RUN"):
            check_order(kind)
