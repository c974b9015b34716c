"""The scaling rule: more computation buys more, a short text is not drowned, and what the user fixed stays."""

import pytest

from ritornello.errors import InputError
from ritornello.experiments import scaling
from ritornello.model import parameters


def test_the_law_by_hand():
    """New text counts in full; the fourth pass of a text nearly so; the fortieth hardly."""
    assert scaling.predicted_loss(10**6, 10**6, 10**6) == pytest.approx(406.4 / 1e6**0.34 + 410.7 / 1e6**0.28)
    one, four, forty, eighty = (scaling.predicted_loss(10**6, passes * 10**6, 10**6) for passes in (1, 4, 40, 80))
    new = scaling.predicted_loss(10**6, 4 * 10**6, 10**9)
    assert one > four > forty > eighty
    assert four - new < 0.1 * (one - new)
    assert forty - eighty < 0.05 * (one - forty)


def test_more_computation_buys_wider_models_on_more_tokens():
    shapes = [scaling.choose(flop, 10**8, 8192) for flop in (1e11, 1e13, 1e15, 1e17)]
    assert [shape.dim for shape in shapes] == sorted({shape.dim for shape in shapes})
    assert all(shape.dim in scaling.WIDTHS for shape in shapes)
    assert [shape.tokens for shape in shapes] == sorted(shape.tokens for shape in shapes)
    for shape in shapes:
        weights = parameters(scaling.model_config(8192, shape.dim, shape.layers), embedding=False) + 8192 * shape.dim
        assert shape.weights == weights


def test_a_short_text_gets_a_small_model_and_not_a_thousand_passes():
    shape = scaling.choose(1e17, 50_000, 257)
    assert shape.weights <= scaling.MOST_WEIGHTS * 50_000
    assert shape.tokens <= scaling.MOST_PASSES * 50_000
    assert shape.dropout == 0.2
    assert scaling.choose(1e17, 100, 257).dim == scaling.WIDTHS[0]


def test_what_is_given_is_kept():
    shape = scaling.choose(1e13, 10**7, 257, pattern="lstm", dim=200, layers=3, batch=5, length=77)
    assert (shape.dim, shape.layers, shape.batch, shape.length) == (200, ("lstm",) * 3, 5, 77)
    assert shape.steps == round(shape.tokens / (5 * 77))


@pytest.mark.parametrize("unique", [64, 200, 1000, 5000, 10**6, 10**9])
@pytest.mark.parametrize("tokens", [100, 10**5, 10**7, 10**9])
def test_a_batch_always_fits_the_text(unique, tokens):
    batch, length = scaling.batch_shape(tokens, unique, None, None)
    assert 1 <= batch <= 64
    assert unique // batch >= length >= 8


def test_a_piece_longer_than_the_text_is_refused():
    with pytest.raises(
        InputError, match="the training text has 100 tokens, fewer than one piece of 200; use a shorter --length or more text"
    ):
        scaling.batch_shape(1000, 100, None, 200)


@pytest.mark.parametrize("dim", [*scaling.WIDTHS, 16, 80, 1000])
def test_heads_fit_every_width(dim):
    assert dim % scaling.head_dim(dim) == 0
    for kind in ("hgrn2", "attention", "lstm"):
        assert parameters(scaling.model_config(257, dim, (kind,) * 2)) > 0
