"""HGRN: the complex form beside its paper's equations in NumPy, the real one beside flash-linear-attention 0.6.0's recurrence."""

import outside
import paper
import paper_hgrn
import pytest
import torch
from laws import assert_same, lively

from ritornello.mixers.base import Context, Place
from ritornello.mixers.hgrn import HGRN, State

IMPLS = pytest.mark.parametrize("impl", ["loop", "chunk"])


def layers(dim, count=2, **config):
    return torch.nn.ModuleList(HGRN(dim, HGRN.Config(**config), Place(nth, count, nth, count)) for nth in range(count))


def run(stack, x, states, impl="auto", reset=None):
    """The outputs of all layers in a row, and each one's end state by name."""
    context, ends = Context(reset, impl), {}
    for nth, (layer, h) in enumerate(zip(stack, states, strict=True)):
        x, state = layer(x, State(h), context)
        ends[f"{nth}.end"] = state.h
    return {"y": x, **ends}


@IMPLS
def test_the_complex_form_is_the_papers(impl):
    """Outputs, end states and gradients of two layers, the second with a floor, from warm states."""
    stack = lively(layers(4))
    x, *states = (torch.randn(*shape, dtype=torch.float64, requires_grad=True) for shape in ((2, 18, 4), (2, 4, 2), (2, 4, 2)))
    leaves = {**dict(stack.named_parameters()), "x": x, "0.h": states[0], "1.h": states[1]}
    paper.agree(lambda: run(stack, x, states, impl), paper_hgrn.hgrn, leaves)


@IMPLS
def test_the_real_form_is_flash_linear_attentions(impl):
    """Inputs, weights, end states and gradients of two stacked mixers agree with the outside recurrence (it is float32 throughout)."""
    gold, stack = outside.golden("hgrn"), layers(16, eigenvalues="positive")
    ours = {f"{nth}.{name}": getattr(layer, name).weight for nth, layer in enumerate(stack) for name in ("i", "f", "g", "out", "norm")}
    ours["rise"] = stack[0].rise
    with torch.no_grad():
        for name, weight in ours.items():
            weight.copy_(gold[f"in.{name}"])
    inputs = {name: gold[f"in.{name}"].requires_grad_() for name in ("x", "0.h", "1.h")}
    outputs = run(stack, inputs["x"], [inputs["0.h"], inputs["1.h"]], impl)
    for name, value in outputs.items():
        outside.close(value, gold[f"out.{name}"])
    leaves = ours | inputs
    for name, grad in zip(leaves, torch.autograd.grad(outside.weighted(outputs), list(leaves.values())), strict=True):
        outside.close(grad, gold[f"grad.{name}"], 1e-4)


def test_the_signed_form_turns_the_gate_into_minus_one_to_one():
    """One channel by hand: a = 2 f - 1, and the input has what a leaves of one; outputs before the norm are the states."""
    mixer = lively(HGRN(8, HGRN.Config(eigenvalues="signed"), Place()))
    x, h = torch.randn(1, 12, 8, dtype=torch.float64), torch.randn(1, 8, dtype=torch.float64)
    _, end = mixer(x, State(h), Context())
    a, c = 2 * torch.sigmoid(mixer.f(x)) - 1, torch.nn.functional.silu(mixer.i(x))
    assert a.min() < -0.5
    assert a.max() > 0.5
    for t in range(12):
        h = a[:, t] * h + (1 - a[:, t].abs()) * c[:, t]
    torch.testing.assert_close(end.h, h, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("eigenvalues", ["complex", "positive", "signed"])
@pytest.mark.parametrize("share", [None, 0.1, 0.8])
def test_every_range_may_be_cut_anywhere(eigenvalues, share):
    """The laws run for the default; here split, reset and gradients for each range, two layers, chunks against the loop in pieces."""
    stack, x = lively(layers(8, eigenvalues=eigenvalues)), torch.randn(2, 50, 8, dtype=torch.float64)
    shape = (2, 8, 2) if eigenvalues == "complex" else (2, 8)
    before = [torch.randn(shape, dtype=torch.float64, requires_grad=True) for _ in range(2)]
    reset = None if share is None else torch.rand(2, 50) < share
    whole = run(stack, x, before, "chunk", reset)
    states, ys = before, []
    for start, end in ((0, 1), (1, 34), (34, 50)):
        piece = run(stack, x[:, start:end], states, "loop", None if reset is None else reset[:, start:end])
        states = [piece["0.end"], piece["1.end"]]
        ys.append(piece["y"])
    parts = {"y": torch.cat(ys, 1), "0.end": states[0], "1.end": states[1]}
    grads = [torch.autograd.grad(outside.weighted(outputs), [*stack.parameters(), *before]) for outputs in (whole, parts)]
    for found, wanted in [*((whole[name], parts[name]) for name in whole), *zip(*grads, strict=True)]:
        assert_same(found, wanted)


def test_floors_rise_with_depth():
    stack, context = layers(6, count=4), Context()
    with torch.no_grad():
        stack[0].rise.normal_(0, 3)
        stack[0](torch.zeros(1, 1, 6), stack[0].init_state(1), context)
    floor = context.shared["hgrn.floor"]
    assert (floor[0] == 0).all()
    assert (floor.diff(dim=0) >= 0).all()
    assert (floor < 1).all()


@pytest.mark.parametrize("logit", [-80.0, 80.0])
def test_gates_at_their_ends_keep_their_gradients(logit):
    """A gate shut or open beyond float32's reach: finite everywhere, and the state stays or goes altogether."""
    for eigenvalues in ("positive", "signed"):
        mixer = HGRN(4, HGRN.Config(eigenvalues=eigenvalues), Place())
        with torch.no_grad():
            mixer.f.weight.fill_(logit)
        x, h = torch.ones(1, 40, 4, requires_grad=True), torch.rand(1, 4)
        y, end = mixer(x, State(h), Context())
        assert all(grad.isfinite().all() for grad in torch.autograd.grad(y.sum(), [x, mixer.f.weight, mixer.i.weight]))
        stays = logit > 0 or eigenvalues == "signed"  # forty times -1 is 1
        torch.testing.assert_close(end.h, h if stays else torch.nn.functional.silu(mixer.i(x))[:, -1], rtol=1e-4, atol=1e-6)


def test_an_unknown_range_is_refused():
    with pytest.raises(ValueError, match=r"unknown eigenvalues 'sign'. Did you mean 'signed'\? Known: complex, positive, signed."):
        HGRN(8, HGRN.Config(eigenvalues="sign"), Place())
