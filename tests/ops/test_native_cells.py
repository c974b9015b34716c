"""The cells' kernels beside the float64 cells: outputs, end states and every gradient, whatever the sizes, resets and layouts."""

import copy
import ctypes
import importlib
from functools import partial

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ritornello._native.library import library
from ritornello.errors import InputError
from ritornello.mixers import mixer
from ritornello.mixers.base import Context, Place
from ritornello.mixers.cell import over_time
from ritornello.mixers.slstm import step
from ritornello.ops import native_cells
from ritornello.state import map_leaves, named_leaves

pytestmark = pytest.mark.skipif(not isinstance(library(), ctypes.CDLL), reason=str(library()))

batches = st.sampled_from([1, 2, 3, 5, 8, 15, 17])
lengths = st.sampled_from([2, 3, 4, 5, 33])
widths = st.sampled_from([2, 3, 8, 16, 17, 40, 70])
shares = st.sampled_from([None, 0.0, 0.1, 0.7, 1.0])


def build(kind, dim, bias=0.0, **settings):
    """In float32, with recurrent weights that matter and biases of this size."""
    module = mixer(kind)(dim, mixer(kind).Config(**settings), Place())
    with torch.no_grad():
        for name, weight in module.named_parameters():
            size = bias if name.endswith(("b", "l0")) and "weight" not in name else 1.2 * weight.shape[-1] ** -0.5
            weight.copy_(torch.randn_like(weight) * size if "norm" not in name else torch.randn_like(weight))
    return module


def warm(module, batch):
    state = module.init_state(batch)
    with torch.no_grad():
        return module(torch.randn(batch, 3, module.dim), state, Context())[1]


def run(module, x, state, reset, impl):
    """Outputs, end state and the gradients of a number in which all of these weigh differently."""
    x, state = x.clone().requires_grad_(), map_leaves(lambda leaf: leaf.clone().requires_grad_(), state)
    y, end = module(x, state, Context(reset, impl))
    leaves = [x, *(leaf for _, leaf in named_leaves(state) if leaf.numel()), *module.parameters()]
    results = [y, *(leaf for _, leaf in named_leaves(end))]
    total = sum((each * torch.linspace(-1, 1, each.numel(), dtype=each.dtype).view(each.shape)).sum() for each in results)
    grads = torch.autograd.grad(total, leaves, allow_unused=True)
    return [*results, *(torch.zeros_like(leaf) if grad is None else grad for grad, leaf in zip(grads, leaves, strict=True))]


def compare(module, batch, length, share, tolerance=1e-5):
    x, state = torch.randn(batch, length, module.dim), warm(module, batch)
    reset = None if share is None else torch.rand(batch, length) < share
    wide = map_leaves(lambda leaf: leaf.double(), state)
    results = run(copy.deepcopy(module).double(), x.double(), wide, reset, "loop"), run(module, x, state, reset, "auto")
    scale = max(float(each.detach().norm()) for each in results[0])
    for place, (wanted, found) in enumerate(zip(*results, strict=True)):
        assert found.dtype == torch.float32
        difference = float((found.detach().double() - wanted.detach()).norm())
        assert difference <= tolerance * (float(wanted.detach().norm()) + 0.1 * scale), (place, difference)


@given(B=batches, T=lengths, D=widths, share=shares, bias=st.sampled_from([0.0, 1.0, 8.0]))
def test_gru(B, T, D, share, bias):
    compare(build("gru", D, bias), B, T, share)


class Cell(torch.nn.Module):
    """sLSTM's cell without what is around it: a norm of two channels would lose the digits that are to be compared."""

    def __init__(self, heads, width, spread):
        super().__init__()
        self.heads, self.width, self.dim, self.spread = heads, width, heads * 4 * width, spread
        self.r = torch.nn.Parameter(torch.randn(heads, width, 4 * width) * 1.2 * width**-0.5)

    def init_state(self, batch):
        zeros = torch.zeros(batch, self.heads, self.width, dtype=self.r.dtype)
        return zeros, zeros, zeros, torch.full_like(zeros, -1e30)

    def forward(self, x, state, context):
        u = self.spread * x.unflatten(-1, (self.heads, 4, self.width))
        if context.impl != "loop":
            return native_cells.slstm(u, self.r, *state, context.reset)
        return over_time(lambda u, memory: step(self.r, u, memory), u, state, self.init_state(len(x)), context.reset)


@given(B=batches, T=lengths, H=st.sampled_from([1, 2, 3]), K=widths, share=shares, spread=st.sampled_from([0.0, 1.0, 8.0]))
def test_slstm(B, T, H, K, share, spread):
    compare(Cell(H, K, spread), B, T, share)


def test_slstm_as_a_mixer():
    compare(build("slstm", 64, 1.0), 5, 21, 0.1)


@pytest.mark.parametrize("kind", ["gru", "slstm"])
def test_a_long_text_keeps_its_digits(kind):
    compare(build(kind, 32, 1.0), 2, 600, None, tolerance=5e-5)


@pytest.mark.parametrize(("kind", "other"), [("gru", "run"), ("slstm", "over_time")])
def test_float32_on_the_processor_takes_the_kernel_and_the_rest_does_not(kind, other, monkeypatch):
    module, taken = build(kind, 16), []
    there = importlib.import_module(f"ritornello.mixers.{kind}")
    before = getattr(there, other)
    monkeypatch.setattr(there, other, lambda *words: taken.append(other) or before(*words))
    for dtype, expected in ((torch.float32, []), (torch.bfloat16, []), (torch.float64, [other])):
        taken.clear()
        module = module.to(dtype)
        module(torch.randn(2, 9, 16, dtype=dtype), module.init_state(2), Context())
        assert taken == expected


@pytest.mark.parametrize("kind", ["gru", "slstm"])
def test_a_state_keeps_its_dtype_and_what_does_not_fit_is_refused(kind):
    module = build(kind, 16)
    for dtype in (torch.float64, torch.bfloat16):
        _, end = module(torch.randn(2, 9, 16), map_leaves(lambda leaf, dtype=dtype: leaf.to(dtype), module.init_state(2)), Context())
        assert {leaf.dtype for _, leaf in list(named_leaves(end))[-1:]} == {dtype}
    inputs, op = operators()[kind], getattr(native_cells, f"_{kind}")
    for place, each in enumerate(inputs[:-1]):
        for wrong in (each.double(), each[:1], each[..., :-1].contiguous()):
            with pytest.raises(InputError, match=f"{kind}: .* the kernel needs torch.float32"):
                op(*inputs[:place], wrong, *inputs[place + 1 :])
    with pytest.raises(InputError, match=f"{kind}: reset is torch.int64 .2, 6. on cpu; the kernel needs torch.bool"):
        op(*inputs[:-1], torch.zeros(2, 6, dtype=torch.int64))


@pytest.mark.parametrize("kind", ["gru", "slstm"])
def test_threads_change_no_bit(kind):
    """Nor does, with it, the number of rows in a block. Gradients of x and of matrices are torch's products, and may change."""
    module, results = build(kind, 40, 1.0), []
    x, state = torch.randn(11, 20, 40), warm(module, 11)
    for threads in (1, 2, 5):
        torch.set_num_threads(threads)
        results.append(run(module, x, state, None, "auto"))
    torch.set_num_threads(1)
    leaves = len(list(named_leaves(state)))
    products = {1 + leaves, *range(2 + 2 * leaves, len(results[0]))}
    for other in results[1:]:
        for place, (a, b) in enumerate(zip(results[0], other, strict=True)):
            torch.testing.assert_close(a, b, rtol=1e-5, atol=2e-5)
            assert place in products or torch.equal(a, b)


@pytest.mark.parametrize("kind", ["gru", "slstm"])
def test_a_reset_is_a_mask(kind):
    """What lies before a reset, infinite or not, leaves nothing behind, and what comes after it sends no gradient back."""
    (x, *rest, _), op, reset = operators()[kind], getattr(native_cells, f"_{kind}"), torch.zeros(2, 6, dtype=torch.bool)
    reset[:, 3] = True
    for part in (slice(3, None), slice(3)):
        spoiled = torch.full_like(x, torch.inf)
        spoiled[:, part] = x.detach()[:, part]
        results = []
        for each in (x, spoiled.requires_grad_()):
            y, end, _ = op(each, *rest, reset)
            (grad,) = torch.autograd.grad(end.square().sum() + y[:, part].sum(), each)
            results.append([y[:, part], grad[:, part]] + [end] * (part.start == 3))
        for a, b in zip(*results, strict=True):
            assert a.isfinite().all()
            assert torch.equal(a, b)


def operators():
    """Each operator's inputs, the incoming state next to last, without resets."""
    B, T, H, K, D = 2, 6, 2, 5, 7
    h, c, n, m = torch.randn(B, H, K), torch.randn(B, H, K), 1 + torch.rand(B, H, K), torch.randn(B, H, K)
    calls = {
        "gru": [torch.randn(*shape) for shape in ((B, T, 3 * D), (3 * D, D), (3 * D,), (B, D))],
        "slstm": [torch.randn(B, T, H, 4, K), torch.randn(H, K, 4 * K), torch.stack([h, c, n, m])],
    }
    return {kind: [*(each.requires_grad_() for each in inputs), None] for kind, inputs in calls.items()}


@pytest.mark.parametrize("kind", ["gru", "slstm"])
def test_operators_are_sound(kind):
    """torch's own checks of a custom operator: schema, fake tensors, autograd registration, compile."""
    torch.library.opcheck(getattr(torch.ops.ritornello, kind).default, operators()[kind])


@pytest.mark.parametrize("kind", ["gru", "slstm"])
def test_inputs_may_lie_anyhow_and_nothing_is_nothing(kind):
    inputs, op = operators()[kind], getattr(native_cells, f"_{kind}")
    anyhow = [None if each is None else each.detach().transpose(0, -1).clone().transpose(0, -1) for each in inputs]
    for a, b in zip(op(*inputs), op(*anyhow), strict=True):
        assert torch.equal(a, b)
    y, end, _ = op(inputs[0][:, :0], *inputs[1:])
    assert y.shape[1] == 0
    assert torch.equal(end, inputs[-2])
    grads = torch.autograd.grad(end.square().sum(), [inputs[1], inputs[-2]])
    assert not grads[0].any()
    assert torch.equal(grads[1], 2 * inputs[-2])


@pytest.mark.filterwarnings("ignore:The tensor attributes:UserWarning")  # torch.nn.GRU caches its weights in a list
@pytest.mark.parametrize("kind", ["gru", "slstm"])
@pytest.mark.parametrize("length", [1, 12])
def test_compiles_and_exports(kind, length):
    module = build(kind, 16, 1.0)
    x, state = torch.randn(3, length, 16), warm(module, 3)
    with torch.no_grad():  # as torch's compiler goes around nn.GRU in pieces, and warns of gradients between them
        want, end = module(x, state, Context())
        compiled, after = torch.compile(partial(module), backend="aot_eager")(x, state, Context())
        exported, _ = torch.export.export(Whole(module), (x, state)).module()(x, state)
    for found in (compiled, exported):
        torch.testing.assert_close(found, want)
    torch.testing.assert_close(tuple(after), tuple(end))


class Whole(torch.nn.Module):
    """A mixer as export takes it, tensors in and out."""

    def __init__(self, module):
        super().__init__()
        self.module = module

    def forward(self, x, state):
        return self.module(x, state, Context())
