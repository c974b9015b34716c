"""The laws for what the cells' switches make, and what each says about settings it cannot have."""

from itertools import pairwise

import pytest
import torch
from laws import DIM, Alone, assert_same, lively, requires_grad, total, warm
from torch import nn

from ritornello.errors import InputError
from ritornello.mixers import mixer
from ritornello.mixers.base import Place
from ritornello.state import named_leaves, rows, stack

VARIANTS = {
    "rnn relu": ("rnn", {"activation": "relu"}),
    "gru reset before": ("gru", {"reset_after": False}),
    "lstm expanded": ("lstm", {"expand": 2}),
    "lstm projected": ("lstm", {"projection": 5}),
    "lstm expanded and projected": ("lstm", {"expand": 3, "projection": DIM}),
    "lstm vanilla": ("lstm", {"peepholes": True}),
    "lstm no input gate": ("lstm", {"peepholes": True, "input_gate": False}),
    "lstm no forget gate": ("lstm", {"peepholes": True, "forget_gate": False}),
    "lstm no output gate": ("lstm", {"peepholes": True, "output_gate": False}),
    "lstm no input activation": ("lstm", {"peepholes": True, "input_activation": False}),
    "lstm no output activation": ("lstm", {"peepholes": True, "output_activation": False}),
    "lstm coupled": ("lstm", {"coupled": True}),
    "lstm gate recurrence": ("lstm", {"peepholes": True, "gate_recurrence": True}),
    "lstm no gates": ("lstm", {"input_gate": False, "forget_gate": False, "output_gate": False}),
    "lstm much at once": ("lstm", {"coupled": True, "gate_recurrence": True, "output_gate": False, "expand": 2, "projection": 5}),
}
every = pytest.mark.parametrize("name", VARIANTS)


class Variant(Alone):
    def __init__(self, name: str):
        nn.Module.__init__(self)
        kind, settings = VARIANTS[name]
        self.mixer = mixer(kind)(DIM, mixer(kind).Config(**settings), Place())


def build(name: str, dtype: torch.dtype = torch.float64):
    module = lively(Variant(name), dtype)
    with torch.no_grad():
        for weight in module.parameters():
            weight.mul_(0.5)  # without gates or with relu the memory would grow without bound
    return module


def resets(length: int, share: float) -> torch.Tensor:
    return torch.rand(3, length, generator=torch.Generator().manual_seed(5)) < share


@every
@pytest.mark.parametrize("share", [0.0, 0.1, 0.6])
def test_split_and_causal(name, share):
    """Cut anywhere, the outputs and the end state are the same; so no output sees what comes after a cut."""
    module, x, reset = build(name), torch.randn(3, 23, DIM, dtype=torch.float64), resets(23, share) if share else None
    state = before = warm(module)
    want, end = module(x, before, reset)
    got = []
    for start, until in pairwise((0, 1, 2, 9, 22, 23)):
        y, state = module(x[:, start:until], state, None if reset is None else reset[:, start:until])
        got.append(y)
    assert_same(torch.cat(got, 1), want)
    assert_same(state, end)


@every
@pytest.mark.parametrize("impl", ["auto", "loop"])
@pytest.mark.parametrize("share", [0.1, 0.6])
def test_reset_and_rows(name, impl, share):
    """Each row alone, cut at its resets and gone on from a fresh state, gives what one call with `reset` gives."""
    module, x, reset = build(name), torch.randn(3, 23, DIM, dtype=torch.float64), resets(23, share)
    before = warm(module)
    y, end = module(x, before, reset, impl)
    ends = []
    for row in range(3):
        state, got = rows(before, slice(row, row + 1)), []
        for start, until in pairwise(sorted({0, *reset[row].nonzero()[:, 0].tolist(), 23})):
            state = module.init_state(1) if reset[row, start] else state
            out, state = module(x[row : row + 1, start:until], state)
            got.append(out)
        assert_same(torch.cat(got, 1), y[row : row + 1])
        ends.append(state)
    assert_same(end, stack(ends))


@every
@pytest.mark.parametrize("share", [0.0, 0.1, 0.6])
def test_gradients_are_the_loops(name, share):
    module, x, reset = build(name), torch.randn(3, 23, DIM, dtype=torch.float64), resets(23, share) if share else None
    state, results = warm(module), []
    for impl in ("loop", "auto"):
        inputs, before = x.clone().requires_grad_(), requires_grad(state)
        leaves = [inputs, *(leaf for _, leaf in named_leaves(before)), *module.parameters()]
        results.append(torch.autograd.grad(total(*module(inputs, before, reset, impl)), leaves))
    for a, b in zip(*results, strict=True):
        assert_same(a, b, 1e-8)


@every
def test_gradients_are_the_differences(name):
    """Every parameter counts, and its gradient is what finite differences say."""
    module = build(name)
    x, before = torch.randn(3, 4, DIM, dtype=torch.float64, requires_grad=True), warm(module)
    names, weights = zip(*module.named_parameters(), strict=True)

    def run(x, *weights):
        state = torch.func.functional_call(module, dict(zip(names, weights, strict=True)), (x, before, resets(4, 0.3), "loop"))
        return total(*state)

    assert torch.autograd.gradcheck(run, (x, *weights), fast_mode=True, atol=1e-5, rtol=1e-4)
    assert all(grad.any() for grad in torch.autograd.grad(run(x, *weights), weights))


@every
@pytest.mark.parametrize("weights", [torch.float32, torch.bfloat16])
def test_dtype_and_no_tokens(name, weights):
    """The state keeps its dtypes, also under autocast; no tokens change nothing."""
    module = build(name, weights)
    fresh = module.init_state(3)
    with torch.autocast("cpu", torch.bfloat16):
        y, state = module(torch.randn(3, 9, DIM, dtype=weights), fresh, resets(9, 0.2))
    assert y.shape == (3, 9, DIM)
    assert {leaf: value.dtype for leaf, value in named_leaves(state)} == {leaf: value.dtype for leaf, value in named_leaves(fresh)}
    nothing, same = module(torch.zeros(3, 0, DIM, dtype=weights), state)
    assert nothing.shape == (3, 0, DIM)
    assert all(torch.equal(a, b) for (_, a), (_, b) in zip(named_leaves(same), named_leaves(state), strict=True))


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        ("rnn", {"activation": "tan"}, r"unknown activation 'tan'. Did you mean 'tanh'\?"),
        ("lstm", {"expand": 0}, r"lstm.expand: 0 must be at least 1"),
        ("lstm", {"projection": 16}, r"lstm.projection: 16 is not in 1 to 15, narrower than the cell"),
        ("lstm", {"coupled": True, "input_gate": False}, r"lstm.coupled: .* both must be there"),
        ("lstm", {"peepholes": True, "input_gate": False, "forget_gate": False, "output_gate": False}, r"need a gate to go to"),
    ],
)
def test_what_cannot_be_is_said_in_one_line(kind, settings, message):
    with pytest.raises(InputError, match=message) as caught:
        mixer(kind)(DIM, mixer(kind).Config(**settings), Place())
    assert "\n" not in str(caught.value)


def test_the_forget_gate_starts_open():
    """Its bias is forget_bias, also where the gate is 1 - i; all other biases are zero."""
    for settings, sign in (({}, 1), ({"peepholes": True}, 1), ({"coupled": True}, -1)):
        cell = mixer("lstm")(DIM, mixer("lstm").Config(forget_bias=2.0, **settings), Place())
        bias = dict(zip(cell.parts, cell.lstm.bias_ih_l0.chunk(len(cell.parts)), strict=True))
        gate = bias.pop("f" if "f" in bias else "i")
        assert torch.equal(gate, torch.full_like(gate, 2.0 * sign))
        assert not any(other.any() for other in bias.values())
