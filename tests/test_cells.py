"""The laws for what the cells' switches make, and what each says about settings it cannot have."""

from itertools import pairwise

import pytest
import torch
from laws import DIM, Alone, assert_same, lively, requires_grad, total, warm
from torch import nn

from ritornello.errors import InputError
from ritornello.mixers import mixer
from ritornello.mixers.base import Context, Place
from ritornello.mixers.cell import CellMixer
from ritornello.mixers.slstm import SLSTM
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
    "slstm one head": ("slstm", {"heads": 1}),
    "slstm without convolution": ("slstm", {"conv": None}),
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
        leaves = [inputs, *(leaf for _, leaf in named_leaves(before) if leaf.numel()), *module.parameters()]
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
        ("slstm", {"heads": 3}, r"sLSTM dim over heads: 16 does not divide into parts of 3"),
        ("slstm", {"heads": 16}, r"16 heads of one number each, whose norm is always zero; use at most 8"),
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


def test_the_first_token_is_written_whole():
    """From a fresh state, also one that a reset made, c / n is the token's own tanh(z) and n is 1, however small its input gate."""
    cell = SLSTM(8, SLSTM.Config(conv=None), Place()).double()
    with torch.no_grad():
        cell.b[0] = -50.0
    x = torch.randn(2, 3, 8, dtype=torch.float64)
    reset = torch.tensor([[False, False, True]] * 2)
    for piece, mask in ((x[:, :1], None), (x, reset)):
        _, end = cell(piece, cell.init_state(2), Context(mask))
        z = torch.einsum("bhk,hkl->bhl", piece[:, -1].unflatten(-1, (4, 2)), cell.w[2])
        torch.testing.assert_close(end.n, torch.ones_like(end.n))
        torch.testing.assert_close(end.c, z.tanh())


def test_the_documented_initialisation():
    """The forget gate's biases fall from 5 to -7 within each head, in the last layer later than in the first; nothing recurs yet."""
    first, last = (SLSTM(32, SLSTM.Config(), Place(index, 3)).b[1] for index in (0, 2))
    u = torch.arange(8) / 7
    for bias, power in ((first, 0.3), (last, 1.6)):
        torch.testing.assert_close(bias, (5 - 12 * u**power).expand(4, 8))
    cell = SLSTM(256, SLSTM.Config(), Place())
    assert not cell.r.any()
    assert not cell.b[[0, 2, 3]].any()
    assert abs(float(cell.w.detach().std()) - (2 / (5 * 256)) ** 0.5) < 1e-3


def test_heads_do_not_mix():
    """Without the convolution, and before anything mixes channels, an output of a head depends on that head's inputs only."""
    cell = SLSTM(16, SLSTM.Config(conv=0), Place()).double()
    torch.nn.init.normal_(cell.r)
    x = torch.randn(1, 6, 16, dtype=torch.float64)
    other = x.clone()
    other[..., 4:8] += 1
    y, z = (cell(each, cell.init_state(1), Context())[0].unflatten(-1, (4, 4)) for each in (x, other))
    assert (y != z).any(-1).any(1).tolist() == [[False, True, False, False]]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("logit", [-1e4, -13.8, 13.8, 1e4])
def test_exponential_gates_at_the_very_ends(logit, dtype):
    """Forget gates at 1e-6 and 1 - 1e-6 and far beyond, input gates up to exp(1e4): finite values and gradients, and an n of at least 1."""
    for gate in (0, 1):
        cell = SLSTM(DIM, SLSTM.Config(), Place()).to(dtype)
        with torch.no_grad():
            cell.b[gate] = logit
        x = torch.randn(2, 60, DIM, dtype=dtype, requires_grad=True)
        y, end = cell(x, cell.init_state(2), Context(resets(60, 0.1)[:2]))
        assert all(leaf.isfinite().all() for leaf in (y, *end))
        assert (end.n >= 1).all()
        assert all(grad.isfinite().all() for grad in torch.autograd.grad(total(y, end), [x, *cell.parameters()]))


@pytest.mark.parametrize("kind", ["rnn", "gru", "lstm", "slstm"])
@pytest.mark.parametrize("impl", ["auto", "loop"])
def test_a_reset_is_a_mask(kind, impl):
    """Nothing before a reset leaks past it, infinities included."""
    cell = lively(mixer(kind)(DIM, mixer(kind).Config(), Place()))
    x, reset = torch.randn(2, 12, DIM, dtype=torch.float64), torch.zeros(2, 12, dtype=torch.bool)
    reset[:, 7] = True
    want, end = cell(x[:, 7:], cell.init_state(2), Context(None, impl))
    spoiled = torch.cat([torch.full_like(x[:, :7], torch.inf), x[:, 7:]], 1)
    y, state = cell(spoiled, cell.init_state(2), Context(reset, impl))
    assert_same(y[:, 7:], want)
    assert_same(state, end)


class Greatest(CellMixer):
    """The greatest value seen so far in each channel, and of how many: a fresh state that is not zero, one leaf a counter."""

    def __init__(self):
        super().__init__(DIM, None, Place())
        self.scale = nn.Parameter(torch.ones(DIM))

    def init_state(self, batch: int):
        greatest = torch.full((batch, DIM), -2.0, dtype=self.scale.dtype)
        return greatest, torch.zeros(batch, dtype=torch.int64)

    def inputs(self, x):
        return x * self.scale

    def cell(self, x, state):
        greatest = torch.maximum(state[0], x)
        return greatest, (greatest, state[1] + 1)

    def outputs(self, y):
        return 2 * y


def test_any_cell_becomes_a_mixer():
    """One with a state of its own making, against the sentence that describes it."""
    cell, x, reset = Greatest().double(), torch.randn(3, 23, DIM, dtype=torch.float64) - 2, resets(23, 0.2)
    y, (greatest, count) = cell(x, cell.init_state(3), Context(reset))
    for row in range(3):
        starts = sorted({0, *reset[row].nonzero()[:, 0].tolist()})
        for start, until in pairwise([*starts, 23]):
            want = [x[row, start : t + 1].amax(0).clamp_min(-2) for t in range(start, until)]
            assert torch.equal(y[row, start:until], 2 * torch.stack(want))
        assert count[row] == 23 - starts[-1]
        assert torch.equal(greatest[row], want[-1])
