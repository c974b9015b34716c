"""The bidirectional wrapper: torch's own, documents alone and packed, and every mixer it can hold."""

import json

import pytest
import torch
from laws import DIM, assert_same, lively, small

from ritornello.config import from_dict, override, to_dict
from ritornello.errors import InputError
from ritornello.mixers import MIXERS, mixer
from ritornello.mixers.base import Context, Place
from ritornello.mixers.bidirectional import Bidirectional, unfit
from ritornello.mixers.lstm import State
from ritornello.model import LM, LMConfig

INNER = sorted(name for name in MIXERS if unfit(name) is None)


def both_ways(inner: str) -> Bidirectional:
    return lively(Bidirectional(DIM, Bidirectional.Config(inner=inner, settings={inner: small(inner)}), Place()))


def test_it_is_torchs_bidirectional_lstm():
    """torch 2.13's, on the same weights, the forward state warm: what both say joined by our map, the forward end state, gradients."""
    ours, theirs = both_ways("lstm"), torch.nn.LSTM(DIM, DIM, batch_first=True, bidirectional=True).double()
    weights = {name: weight for name, weight in ours.forwards.lstm.state_dict().items()}
    weights |= {f"{name}_reverse": weight for name, weight in ours.backwards.lstm.state_dict().items()}
    theirs.load_state_dict(weights)
    x, h, c = (torch.randn(*shape, dtype=torch.float64) for shape in ((3, 21, DIM), (3, DIM), (3, DIM)))
    y, end = ours(x, State(h, c), Context())
    want, (end_h, end_c) = theirs(x, tuple(torch.stack([leaf, torch.zeros_like(leaf)]) for leaf in (h, c)))
    want = want @ ours.out.weight.T
    for found, wanted in ((y, want), (end.h, end_h[0]), (end.c, end_c[0])):
        torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12)
    mine = torch.autograd.grad(y.square().sum(), [*ours.forwards.parameters(), *ours.backwards.parameters()])
    for found, wanted in zip(mine, torch.autograd.grad(want.square().sum(), list(theirs.parameters())), strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("inner", INNER)
def test_a_document_alone_gives_what_it_gives_packed(inner):
    """In two layers of a kind, with what they share; the last document's end state as well."""
    mixers = {"bidirectional": Bidirectional.Config(inner=inner, settings={inner: small(inner)})}
    lm = lively(LM(LMConfig(vocab=2, dim=DIM, layers=("bidirectional",) * 2, channel=None, mixers=mixers)))
    documents = [torch.randn(1, length, DIM, dtype=torch.float64) for length in (5, 1, 9, 1, 4)]
    reset = torch.cat([torch.arange(document.shape[1]) == 0 for document in documents])[None]
    packed, end = lm.features(torch.cat(documents, 1), lm.init_state(1), reset)
    alone = [lm.features(document, lm.init_state(1)) for document in documents]
    assert_same(packed, torch.cat([y for y, _ in alone], 1))
    assert_same(end, alone[-1][1])


def test_each_token_sees_its_whole_document_and_no_other():
    """The gradient of one output reaches every token of its document and none of its neighbours'."""
    module, x = both_ways("gru"), torch.randn(1, 12, DIM, dtype=torch.float64, requires_grad=True)
    reset = torch.zeros(1, 12, dtype=torch.bool)
    reset[0, [3, 8]] = True
    y, _ = module(x, module.init_state(1), Context(reset))
    for at in (3, 5, 7):
        (grad,) = torch.autograd.grad(y[0, at].sum(), x, retain_graph=True)
        assert grad[0].any(-1).tolist() == [3 <= t < 8 for t in range(12)]


def test_what_layers_share_is_kept_apart():
    """HGRN2's floors: the two readers' and a plain HGRN2 layer's beside them are three."""
    mixers = {"hgrn2": small("hgrn2"), "bidirectional": Bidirectional.Config(inner="hgrn2", settings={"hgrn2": small("hgrn2")})}
    lm = lively(LM(LMConfig(vocab=2, dim=DIM, layers=("hgrn2", "bidirectional") * 2, channel=None, mixers=mixers)))
    x, contexts = torch.randn(1, 6, DIM, dtype=torch.float64), []
    for block in lm.blocks:
        block.time.register_forward_pre_hook(lambda _, args: contexts.append(args[2]))
    lm.features(x, lm.init_state(1))
    found = contexts[-1].shared
    rises = {
        "hgrn2.floor": lm.blocks[0].time.rise,
        "bidirectional.forwards.hgrn2.floor": lm.blocks[1].time.forwards.rise,
        "bidirectional.backwards.hgrn2.floor": lm.blocks[1].time.backwards.rise,
    }
    assert set(found) == set(rises)
    for name, rise in rises.items():
        share = rise.softmax(0)
        torch.testing.assert_close(found[name], share.cumsum(0) - share[0])


def test_its_config_goes_through_json():
    config = LMConfig(vocab=5, layers=("bidirectional",), mixers={"bidirectional": Bidirectional.Config(inner="gru")})
    data = override(to_dict(config), ["mixers.bidirectional.settings.gru.reset_after=false"])
    read = from_dict(LMConfig, json.loads(json.dumps(data)))
    assert read.mixers["bidirectional"].settings["gru"] == mixer("gru").Config(reset_after=False)
    data["mixers"]["bidirectional"]["settings"]["gru"] = to_dict(mixer("gru").Config(reset_after=False))
    assert to_dict(read) == data


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"inner": "swiglu"}, "bidirectional.inner: swiglu mixes channels, not time; use"),
        ({"inner": "attention"}, "attention has a state that grows with the text"),
        ({"inner": "bidirectional"}, "bidirectional sees both ways already"),
        ({"inner": "lstn"}, r"unknown mixer 'lstn'. Did you mean 'lstm'\?"),
        ({"inner": "gru", "settings": {"lstm": {}}}, "bidirectional.settings: lstm; those of gru alone would be used"),
        ({"settings": {"lstm": {"width": 3}}}, "unknown field 'settings.lstm.width'"),
    ],
)
def test_what_cannot_be_is_said_in_one_line(settings, message):
    with pytest.raises(InputError, match=message) as caught:
        from_dict(Bidirectional.Config, settings)
    assert "\n" not in str(caught.value)
