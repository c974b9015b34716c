"""Norm, SwiGLU and forget gate: the kernels beside the definitions in float64, outputs and every gradient, at any size and type."""

import ctypes

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ritornello._native.library import library
from ritornello.ops import native_pointwise as native
from ritornello.ops.dropout import dropout
from ritornello.ops.linear_loss import cross_entropy
from ritornello.ops.pointwise import forget, rms_norm, swiglu, swish

pytestmark = pytest.mark.skipif(not isinstance(library(), ctypes.CDLL), reason=str(library()))

shapes = st.tuples(st.sampled_from([(0,), (1,), (2, 5), (3, 67)]), st.sampled_from([1, 3, 15, 16, 17, 32, 33, 100])).map(
    lambda s: (*s[0], s[1])
)
types = st.sampled_from([torch.float32, torch.bfloat16])


def compare(native_form, definition, inputs, *, rtol: float, narrow: float = 0.0) -> None:
    """`narrow`: the tolerance of outputs and gradients that are bfloat16."""
    results = []
    for run, wide in ((native_form, False), (definition, True)):
        leaves = [(each.double() if wide else each).detach().requires_grad_() for each in inputs]
        found = run(*leaves)
        outputs = found if isinstance(found, tuple) else (found,)
        generator = torch.Generator().manual_seed(1)
        weights = [torch.randn(y.shape, generator=generator, dtype=torch.float64).to(torch.float32).to(inputs[0].dtype) for y in outputs]
        loss = [w.to(y.dtype) for w, y in zip(weights, outputs, strict=True)]
        results.append([*outputs, *torch.autograd.grad(outputs, leaves, loss)])
    for a, b in zip(*results, strict=True):
        assert a.isfinite().all()
        tolerance = narrow if a.dtype == torch.bfloat16 else rtol
        scale = float(b.detach().abs().max()) if b.numel() else 1.0
        torch.testing.assert_close(a.detach().double(), b.detach(), rtol=tolerance, atol=tolerance * max(1.0, scale) * 0.3)


@given(shape=shapes, scale=st.sampled_from([1e-4, 1.0, 1e4]))
def test_norm(shape, scale):
    x = torch.randn(shape)  # kept from zero: a row of one tiny number has a gradient that is the difference of two large ones
    inputs = ((x + x.sign()) * scale, torch.randn(shape[-1]))
    compare(lambda x, w: native.rms_norm(x, w, 1e-6, False), lambda x, w: rms_norm(x, w, 1e-6), inputs, rtol=3e-6)


@given(shape=shapes)
def test_norm_rounds_once_under_autocast(shape):
    """To bfloat16 in the same pass: the bits, and the gradients, of the norm rounded afterwards."""
    x, w, dy = torch.randn(shape, requires_grad=True), torch.randn(shape[-1], requires_grad=True), torch.randn(shape)
    results = []
    for y in (native.rms_norm(x, w, 1e-6, True), native.rms_norm(x, w, 1e-6, False).to(torch.bfloat16)):
        results.append([y, *torch.autograd.grad(y, [x, w], dy.to(torch.bfloat16))])
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


@given(shape=shapes, dtype=types, scale=st.sampled_from([1.0, 30.0]))
def test_swish(shape, dtype, scale):
    inputs = ((torch.randn(shape) * scale).to(dtype),)
    compare(lambda x: native.swish(x, 0.3), lambda x: swish(x, 0.3, torch.float64), inputs, rtol=3e-6, narrow=8e-3)


@given(shape=shapes, dtype=types, scale=st.sampled_from([1.0, 30.0]))
def test_swiglu(shape, dtype, scale):
    inputs = ((torch.randn(shape) * scale).to(dtype), torch.randn(shape).to(dtype))
    compare(native.swiglu, swiglu, inputs, rtol=3e-6, narrow=8e-3)


@given(shape=shapes, dtype=types, mean=st.sampled_from([-14.0, 0.0, 14.0]), spread=st.sampled_from([1.0, 20.0]), zero=st.booleans())
def test_forget(shape, dtype, mean, spread, zero):
    floor = torch.zeros(shape[-1]) if zero else torch.rand(shape[-1])
    compare(native.forget, forget, ((torch.randn(shape) * spread + mean).to(dtype), floor), rtol=3e-6, narrow=8e-3)


def test_forget_is_exact_at_both_ends():
    """Where the gate is all but closed or open, key and log decay keep their digits."""
    logit, floor = torch.linspace(-80, 80, 321), torch.zeros(321)
    key, log_decay = native.forget(logit, floor)
    key_wanted, log_wanted = forget(logit.double(), floor.double())
    torch.testing.assert_close(key.double(), key_wanted, rtol=1e-6, atol=0)
    torch.testing.assert_close(log_decay.double(), log_wanted, rtol=1e-6, atol=0)


def test_they_run_by_themselves_where_they_pay_and_agree():
    x, w = torch.randn(4, 100, 64), torch.rand(64)
    assert native.against(x) is None
    assert native.against(x[:1]) == "6400 numbers, fewer than 16384"
    assert native.against(x.double()) == "inputs are float64"
    assert native.against(x.to("meta")) == "inputs are on meta"
    for run in (
        lambda impl: rms_norm(x, w, 1e-6, impl),
        lambda impl: swish(x, 0.3, torch.float32, impl),
        lambda impl: swiglu(x, x + 1, impl),
        lambda impl: torch.stack(forget(x, w, impl)),
    ):
        assert not torch.equal(run("auto"), run("loop"))  # another order of the same sums
        torch.testing.assert_close(run("auto"), run("loop"), rtol=2e-6, atol=2e-6)


@pytest.mark.parametrize("impl", ["auto", "loop"])
def test_a_norm_before_a_product_comes_as_autocast_would_cast_it(impl):
    x, w = torch.randn(4, 100, 64), torch.rand(64)
    assert rms_norm(x, w, 1e-6, impl, narrow=True).dtype == torch.float32
    for dtype in (torch.bfloat16, torch.float16):
        with torch.autocast("cpu", dtype):
            assert rms_norm(x, w, 1e-6, impl).dtype == torch.float32
            assert torch.equal(rms_norm(x, w, 1e-6, impl, narrow=True), rms_norm(x, w, 1e-6, impl).to(dtype))


def test_layout_and_threads_change_no_bit():
    x, w = torch.randn(40, 70, 24).transpose(0, 1), torch.rand(48)[::2]
    results = []
    for threads, form in ((1, torch.Tensor.contiguous), (3, lambda tensor: tensor)):
        torch.set_num_threads(threads)
        a, b = (form(each).detach().requires_grad_() for each in (x, w))
        outputs = [native.rms_norm(a, b, 1e-6, False), native.swish(a, 0.3), native.swiglu(a, a), *native.forget(a, b)]
        results.append([*outputs, *torch.autograd.grad(sum(y.square().mT.sum() for y in outputs), [a, b])])
    torch.set_num_threads(1)
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


@pytest.mark.parametrize("name", ["rms_norm", "swish", "swiglu", "forget", "dropout"])
def test_the_operators_are_sound(name):
    """torch's own checks of a custom operator."""
    x, w = torch.randn(3, 5, 20, requires_grad=True), torch.rand(20, requires_grad=True)
    up = torch.randn(3, 5, 20, requires_grad=True)
    seeded = (x, torch.tensor(2**40 + 3), 2**30, 4 / 3)
    arguments = {"rms_norm": (x, w, 1e-6, False), "swish": (x, 0.3), "swiglu": (x, up), "forget": (x, w), "dropout": seeded}[name]
    torch.library.opcheck(getattr(torch.ops.ritornello, name).default, arguments)


def test_a_compiler_traces_them_without_a_break():
    """Where it has to leave a graph to ask what there is, each layer becomes pieces and compiling gains nothing."""

    def layer(x, w, targets):
        y = rms_norm(x, w, 1e-6)
        key, log_decay = forget(swiglu(y, x), w)
        return cross_entropy(dropout(key + log_decay, 0.0), targets)

    inputs = torch.randn(500, 64), torch.rand(64), torch.randint(64, (500,))
    torch.testing.assert_close(torch.compile(layer, backend="eager", fullgraph=True)(*inputs), layer(*inputs))
