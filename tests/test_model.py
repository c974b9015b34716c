"""The model around the mixers: wiring, norms, the embedding and the head."""

import pytest
import torch
from laws import assert_same, lively

from ritornello.errors import InputError
from ritornello.mixers.layers import expand
from ritornello.mixers.lstm import LSTM
from ritornello.mixers.window import Window
from ritornello.model import LM, LMConfig, parameters, state_nbytes
from ritornello.state import nbytes
from ritornello.train.losses import NextToken

MIXED = {"window": Window.Config(window=5)}
READS = {"lstm": LSTM.Config(reads=5)}


def model(dim=16, vocab=11, **settings):
    return LM(LMConfig(vocab=vocab, dim=dim, **{"layers": ("hgrn2",) * 2} | settings)).double()


@pytest.mark.parametrize(
    "settings",
    [
        {"layers": expand("hgrn2*2 attention lstm"), "channel": "gelu"},
        {"layers": expand("rglru*2 window"), "mixers": MIXED, "embedding_scale": True, "softcap": 3.0},
        {"layers": expand("rwkv4*2"), "channel": "rwkv_channel", "norm": "layer", "embedding_norm": True},
        {"layers": expand("lstm*4"), "wiring": "dense", "channel": None},
        {
            "layers": expand("lstm*2"),
            "wiring": "plain",
            "norm": "none",
            "channel": "gelu",
            "embedding_dim": 5,
            "tied": False,
            "mixers": READS,
        },
        {"layers": expand("mlstm*2 slstm"), "channel": "partner"},
    ],
    ids=["mixed", "griffin", "rwkv", "dense", "plain", "partner"],
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


@pytest.mark.parametrize("impl", ["auto", "loop"])
def test_plain_lstms_without_norms_are_torchs_stack(impl):
    """An embedding narrower than the cells, the lowest layer reading no more than it, is what nn.LSTM(5, 16, 2) reads."""
    lm = model(layers=("lstm",) * 2, wiring="plain", norm="none", channel=None, embedding_dim=5, tied=False, mixers=READS)
    lm.impl = impl
    stack = torch.nn.LSTM(5, 16, 2, batch_first=True).double()
    with torch.no_grad():
        for index, block in enumerate(lm.blocks):
            for name, weight in block.time.lstm.named_parameters():
                weight.copy_(getattr(stack, name.replace("l0", f"l{index}")))
    tokens = torch.randint(0, 11, (2, 9))
    want = lm.head(stack(lm.embedding(tokens))[0])
    torch.testing.assert_close(lm(tokens, lm.init_state(2))[0], want)
    assert sum(weight.numel() for weight in lm.parameters()) == sum(weight.numel() for weight in stack.parameters()) + 11 * (5 + 16)
    assert parameters(lm.config) - parameters(lm.config, embedding=False) == 11 * (5 + 16)


def test_a_narrow_embedding_leaves_the_other_channels_zero():
    lm = model(embedding_dim=5, tied=False)
    embedded = lm.embed(torch.tensor([[3]]))
    assert embedded.shape == (1, 1, 16)
    assert torch.equal(embedded[0, 0, :5], lm.embedding.weight[3])
    assert not embedded[0, 0, 5:].any()


def test_partners_stand_above_their_own_mixers():
    lm = model(layers=("mlstm", "slstm", "hgrn2", "slstm"), channel="partner")
    kinds = [type(block.channel).__name__ for block in lm.blocks]
    assert kinds == ["NoneType", "GeGLU", "SwiGLU", "GeGLU"]
    assert lm.config.channels == (None, "geglu", "swiglu", "geglu")


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
        ({"embedding_dim": 17}, "model.embedding_dim: 17 is not in 1 to 16"),
        ({"embedding_dim": 5}, "model.embedding_dim: 5 is narrower than the head it is tied to; use model.tied=false"),
        ({"layers": ("lstm",), "mixers": {"lstm": LSTM.Config(reads=17)}}, "lstm.reads: 17 is not in 1 to 16"),
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
