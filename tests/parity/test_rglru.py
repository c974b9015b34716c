"""Hawk's recurrent block beside RecurrentGemma's in transformers 5.23.0, on the same weights; and what its initialisation promises."""

import outside
import pytest
import torch

from ritornello.mixers.base import Context, Place
from ritornello.mixers.rglru import RGLRU, State

NAMES = {  # theirs by ours; shapes are the same
    "x": "linear_x",
    "y": "linear_y",
    "out": "linear_out",
    "conv": "conv_1d",
    "rate": "rg_lru.recurrent_param",
    "r_weight": "rg_lru.recurrent_gate_weight",
    "r_bias": "rg_lru.recurrent_gate_bias",
    "i_weight": "rg_lru.input_gate_weight",
    "i_bias": "rg_lru.input_gate_bias",
}


def theirs(name: str) -> str:
    stem, dot, kind = name.partition(".")
    return NAMES[stem] + dot + kind


@pytest.mark.parametrize("impl", ["loop", "chunk"])
@pytest.mark.parametrize("cuts", [[37], [33, 1, 1, 1, 1], [1, 36]])
def test_rglru_is_recurrentgemmas(impl, cuts):
    """Weights by name, outputs, end states and gradients; over the whole text, as they decode, and after a first token alone."""
    gold = outside.golden("rglru")
    mixer = RGLRU(16, RGLRU.Config(width=24, head_dim=6), Place())
    assert {f"in.{theirs(name)}" for name, _ in mixer.named_parameters()} == {name for name in gold if name.startswith("in.")} - {"in.x"}
    with torch.no_grad():
        for name, weight in mixer.named_parameters():
            weight.copy_(gold[f"in.{theirs(name)}"].view_as(weight))
    x, state, pieces = gold["in.x"].requires_grad_(), mixer.init_state(2), []
    for part in x.split(cuts, 1):
        y, state = mixer(part, state, Context(impl=impl))
        pieces.append(y)
    outputs = {"y": torch.cat(pieces, 1), "end.h": state.h, "end.conv": state.conv}
    for name, value in outputs.items():
        outside.close(value, gold[f"out.{name}"])
    leaves = {"x": x, **{theirs(name): weight for name, weight in mixer.named_parameters()}}
    for name, grad in zip(leaves, torch.autograd.grad(outside.weighted(outputs), list(leaves.values())), strict=True):
        outside.close(grad, gold[f"grad.{name}"], 1e-4)


def test_it_starts_with_decays_on_a_ring():
    """exp(-softplus(rate)) has its square uniform between 0.9^2 and 0.999^2."""
    rate = RGLRU(4096, RGLRU.Config(), Place()).rate.detach().double()
    square = torch.exp(-2 * torch.nn.functional.softplus(rate))
    assert 0.9**2 - 1e-6 <= square.min() < 0.9**2 + 1e-2
    assert 0.999**2 - 1e-2 < square.max() <= 0.999**2 + 1e-6
    assert (square.mean() - (0.9**2 + 0.999**2) / 2).abs() < 5e-3


@pytest.mark.parametrize("bias", [-200.0, 200.0])
@pytest.mark.parametrize("rate", [-200.0, -4.0, 200.0])
def test_decays_at_their_ends_keep_their_gradients(rate, bias):
    """A recurrence gate shut or open, a decay of one or of zero: everything is finite, also where the square root has no slope."""
    mixer = RGLRU(8, RGLRU.Config(), Place())
    with torch.no_grad():
        mixer.rate.fill_(rate)
        mixer.r_bias.fill_(bias)
    h = torch.rand(2, 8)
    state = State(h, torch.zeros(2, 3, 8), torch.ones(2, dtype=torch.int64))
    y, end = mixer(torch.randn(2, 40, 8), state, Context())
    assert y.isfinite().all()
    assert all(grad.isfinite().all() for grad in torch.autograd.grad(y.square().sum(), list(mixer.parameters())))
    if rate < -100 or bias < 0:
        torch.testing.assert_close(end.h, h)  # nothing forgotten, nothing written


def test_a_document_begins_unscaled():
    """With a decay near one the square root lets almost nothing in, but the first token of each document is written whole."""
    mixer = RGLRU(8, RGLRU.Config(), Place())
    with torch.no_grad():
        mixer.rate.fill_(-30.0)
    x, reset = torch.randn(1, 40, 8), torch.zeros(1, 40, dtype=torch.bool)
    reset[0, 20] = True
    _, once = mixer(x[:, 20:21], mixer.init_state(1), Context())
    assert once.h.abs().max() > 1e-3
    for mask, start in ((None, 20), (reset, 0)):
        _, end = mixer(x[:, start:], mixer.init_state(1), Context(mask))
        torch.testing.assert_close(end.h, once.h, rtol=1e-3, atol=1e-5)
        assert end.seen.tolist() == [20]


def test_a_width_that_does_not_divide_into_blocks_is_refused():
    with pytest.raises(ValueError, match="RG-LRU width over head_dim: 24 does not divide into parts of 7; use 21 or 28"):
        RGLRU(16, RGLRU.Config(width=24, head_dim=7), Place())
