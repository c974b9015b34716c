"""The model around the mixers: wiring, norms, the embedding and the head."""

import pytest
import torch
from laws import assert_same, lively

from ritornello.errors import InputError
from ritornello.mixers.layers import expand
from ritornello.mixers.window import Window
from ritornello.model import LM, LMConfig, parameters, state_nbytes
from ritornello.state import nbytes
from ritornello.train.losses import NextToken

MIXED = {"window": Window.Config(window=5)}


def model(dim=16, vocab=11, **settings):
    return LM(LMConfig(vocab=vocab, dim=dim, **{"layers": ("hgrn2",) * 2} | settings)).double()


@pytest.mark.parametrize(
    "settings",
    [
        {"layers": expand("hgrn2*2 attention lstm"), "channel": "gelu"},
        {"layers": expand("rglru*2 window"), "mixers": MIXED, "embedding_scale": True, "softcap": 3.0},
        {"layers": expand("rwkv4*2"), "channel": "rwkv_channel", "norm": "layer", "embedding_norm": True},
        {"layers": expand("lstm*4"), "wiring": "dense", "channel": None},
    ],
    ids=["mixed", "griffin", "rwkv", "dense"],
)
def test_a_mixed_stack_obeys_split_and_reset(settings):
    lm = lively(model(**settings))
    tokens, reset = torch.randint(0, 11, (3, 30)), torch.rand(3, 30) < 0.1
    want, end = lm(tokens, lm.init_state(3), reset)
    got, state = [], lm.init_state(3)
    for piece, mask in zip(tokens.split((1, 12, 17), 1), reset.split((1, 12, 17), 1), strict=True):
        logits, state = lm(piece, state, mask)
        got.append(logits)
    assert_same(torch.cat(got, 1), want)
    assert_same(state, end)


def test_griffins_head_and_embedding_are_scaled():
    plain, capped = (lively(model(layers=("lstm",), softcap=cap, embedding_scale=True)) for cap in (None, 0.5))
    tokens = torch.randint(0, 11, (2, 9))
    logits = plain(tokens, plain.init_state(2))[0]
    torch.testing.assert_close(capped(tokens, capped.init_state(2))[0], 0.5 * torch.tanh(logits / 0.5))
    embedded = plain.embedding(tokens)
    torch.testing.assert_close(plain(embedded, plain.init_state(2))[0], logits)
    unscaled = lively(model(layers=("lstm",)))
    torch.testing.assert_close(unscaled(4 * embedded, unscaled.init_state(2))[0], logits)  # the root of 16 is 4


def test_layer_norms_have_their_eps_and_biases():
    lm = model(norm="layer", norm_eps=1e-3, embedding_norm=True)
    norms = [module for module in lm.modules() if isinstance(module, torch.nn.LayerNorm)]
    assert len(norms) == 2 * 2 + 2
    assert {norm.eps for norm in norms} == {1e-3}


def test_dense_wiring_reads_everything_below():
    """Block l reads l + 1 times the width; taking one lower output away changes the top directly, not only through its neighbour."""
    lm = lively(model(layers=("lstm",) * 4, channel=None, wiring="dense"))
    assert [block.inlet.weight.shape for block in lm.blocks] == [(16, 16 * (1 + index)) for index in range(4)]
    plain = LMConfig(vocab=11, dim=16, layers=("lstm",) * 4, channel=None)
    assert parameters(lm.config) - parameters(plain) == 16 * 16 * (1 + 2 + 3 + 4)
    tokens = torch.randint(0, 11, (1, 6))
    want = lm(tokens, lm.init_state(1))[0]
    with torch.no_grad():
        lm.blocks[3].inlet.weight[:, 16:32] = 0  # the top's view of block 0
    assert (lm(tokens, lm.init_state(1))[0] - want).abs().max() > 1e-3


def test_a_model_that_sees_ahead_is_not_trained_to_predict():
    lm = model(layers=("lstm", "bidirectional"))
    assert not lm.causal
    with pytest.raises(InputError, match=r"lstm bidirectional sees the tokens it is to predict"):
        NextToken(lm)
    NextToken(model(layers=("lstm",)))


def test_state_bytes_are_those_of_the_state():
    for settings in ({"layers": ("window",), "mixers": MIXED}, {"channel": "rwkv_channel"}, {"layers": ("hgrn2", "attention")}):
        config = LMConfig(vocab=11, dim=16, **{"layers": ("hgrn2",) * 2} | settings)
        lm = LM(config)
        state = lm(torch.randint(0, 11, (1, 9)), lm.init_state(1))[1]
        assert state_nbytes(config, 9) == nbytes(state)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"softcap": 0.0}, "model.softcap: 0.0 is not a positive number"),
        ({"norm_eps": -1.0}, "model.norm_eps: -1.0 is not a positive number"),
        ({"layers": ("gelu",)}, "gelu mixes channels, not time"),
        ({"channel": "lstm"}, "lstm mixes time, not channels"),
    ],
)
def test_what_cannot_be_is_said(settings, message):
    with pytest.raises(InputError, match=message):
        model(**settings)


def test_an_unknown_implementation_is_answered_with_the_nearest():
    with pytest.raises(InputError, match=r"unknown implementation 'chunks'. Did you mean 'chunk'"):
        LM(LMConfig(vocab=5, dim=16, layers=("lstm",)), impl="chunks")
