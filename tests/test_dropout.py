"""Dropout of recurrent models: what a mask is the same over, what is left out, and that nothing happens outside training."""

import pytest
import torch
from laws import DIM, assert_same, lively

from ritornello.config import from_dict, to_dict
from ritornello.errors import InputError
from ritornello.mixers import mixer
from ritornello.mixers.base import Context, Place
from ritornello.mixers.dropout import Locked
from ritornello.model import LM, LMConfig
from ritornello.ops.dropout import dropout


def model(**settings) -> LM:
    return lively(LM(LMConfig(vocab=11, dim=DIM, layers=("lstm",) * 2, **settings)))


def logits(lm: LM, tokens: torch.Tensor, seed: int = 0) -> torch.Tensor:
    torch.manual_seed(seed)
    return lm(tokens, lm.init_state(len(tokens)))[0]


def test_locked_leaves_out_the_same_channels_at_every_step():
    y = Locked(0.25)(torch.ones(64, 9, 50))
    assert torch.equal(y, y[:, :1].expand_as(y))
    assert y.unique().tolist() == pytest.approx([0, 1 / 0.75])
    assert 0.2 < (y == 0).float().mean() < 0.3
    assert not torch.equal(y[0], y[1])
    assert torch.equal(Locked(0.25).eval()(y), y)


def test_a_dropped_word_is_gone_at_all_its_places():
    """Its embedding gets no gradient where it is dropped, and every word that is left counts by 1 / (1 - rate)."""
    lm, tokens = model(word_dropout=0.5, tied=False), torch.arange(11).repeat(3, 4)
    torch.manual_seed(3)
    x = lm.look_up(tokens)
    ratio = x / lm.embedding(tokens)
    assert set(ratio.detach().unique().round(decimals=6).tolist()) == {0.0, 2.0}
    assert torch.equal(x, x[:1, :11].repeat(3, 4, 1))
    x.sum().backward()
    assert (lm.embedding.weight.grad == 0).all(1).tolist() == (ratio[0, :11] == 0).all(1).tolist()


@pytest.mark.parametrize("name", ["dropout", "input_dropout", "output_dropout", "word_dropout"])
def test_each_place_counts_in_training_and_not_outside(name):
    tokens = torch.randint(11, (3, 9))
    plain, dropping = model(), model(**{name: 0.4})
    assert torch.equal(logits(plain.eval(), tokens), logits(dropping.eval(), tokens))
    first, again, other = (logits(dropping.train(), tokens, seed) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert (first != other).any()
    assert (logits(plain.train(), tokens) != first).any()


def test_the_inputs_rate_may_differ_from_the_layers():
    lm = model(dropout=0.3, input_dropout=0.0, locked_dropout=True)
    assert (lm.drop.p, {block.drop.p for block in lm.blocks}) == (0.0, {0.3})
    assert model(dropout=0.3).drop.p == 0.3
    assert isinstance(lm.blocks[0].drop, Locked)
    assert from_dict(LMConfig, to_dict(lm.config)) == lm.config


def test_what_is_off_draws_no_numbers():
    """By default training draws a mask for the embedding and one for each mixer's output, and no more."""
    tokens = torch.randint(11, (3, 9))
    logits(model(dropout=0.2), tokens)
    after = torch.get_rng_state()
    torch.manual_seed(0)
    for _ in range(1 + 2 * 2):
        dropout(torch.ones(3, 9, DIM, dtype=torch.float64), 0.2)
    assert torch.equal(torch.get_rng_state(), after)


@pytest.mark.parametrize("settings", [("lstm", {}), ("lstm", {"peepholes": True}), ("gru", {}), ("gru", {"reset_after": False})])
def test_weight_drop_is_one_mask_for_a_piece(settings):
    """The recurrent matrix with some entries gone, by kernel and by loop; those entries learn nothing; outside training they are there."""
    kind, rest = settings
    cell = mixer(kind)(DIM, mixer(kind).Config(weight_dropout=0.5, **rest), Place())
    cell = lively(cell)
    inner = getattr(cell, kind)
    x, whole = torch.randn(2, 12, DIM, dtype=torch.float64), inner.weight_hh_l0.detach().clone()
    results = []
    for impl in ("auto", "loop"):
        torch.manual_seed(5)
        results.append(cell(x, cell.init_state(2), Context(impl=impl))[0])
    assert_same(*results)
    results[0].sum().backward()
    kept = inner.weight_hh_l0.grad != 0
    assert 0.3 < kept.double().mean() < 0.7
    assert torch.equal(inner.weight_hh_l0, whole)
    plain = lively(mixer(kind)(DIM, mixer(kind).Config(**rest), Place()))
    with torch.no_grad():
        getattr(plain, kind).weight_hh_l0.copy_(torch.where(kept, 2 * whole, 0))
    assert_same(results[0], plain(x, plain.init_state(2), Context())[0])
    with torch.no_grad():
        getattr(plain, kind).weight_hh_l0.copy_(whole)
    assert torch.equal(cell.eval()(x, cell.init_state(2), Context())[0], plain.eval()(x, plain.init_state(2), Context())[0])


@pytest.mark.parametrize("rate", [-0.1, 1.0, float("nan")])
def test_a_rate_that_is_none_is_refused_by_name(rate):
    for name in ("dropout", "input_dropout", "output_dropout", "word_dropout"):
        with pytest.raises(InputError, match=rf"^model\.{name}: .* is not in \[0, 1\)$"):
            LMConfig(vocab=5, **{name: rate})
    for kind in ("lstm", "gru"):
        with pytest.raises(InputError, match=rf"^{kind}\.weight_dropout: .* is not in \[0, 1\)$"):
            mixer(kind)(DIM, mixer(kind).Config(weight_dropout=rate), Place())
