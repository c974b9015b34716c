"""The short convolution: against torch's own, and its forms against each other with resets and a warm state."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ritornello._native.library import library
from ritornello.mixers.short_conv import ShortConv
from ritornello.ops.conv import conv

kernels = pytest.mark.skipif(isinstance(library(), str), reason=str(library()))


def test_it_is_torchs_causal_convolution():
    module = torch.nn.Conv1d(6, 6, 4, padding=3, groups=6).double()
    x = torch.randn(2, 9, 6, dtype=torch.float64)
    want = module(x.mT)[..., :9].mT
    for impl in ("loop", "chunk"):
        y, past = conv(x, module.weight[:, 0], module.bias, state=torch.zeros(2, 3, 6, dtype=torch.float64), impl=impl)
        torch.testing.assert_close(y, want)
        assert torch.equal(past, x[:, -3:])


@given(T=st.integers(0, 12), width=st.integers(2, 5), share=st.sampled_from([None, 0.2, 0.8]), bias=st.booleans())
def test_float64_equals_the_loop(T, width, share, bias):
    x, weight, b, past = (torch.randn(*shape, dtype=torch.float64) for shape in ((3, T, 5), (5, width), (5,), (3, width - 1, 5)))
    reset = None if share is None else torch.rand(3, T) < share
    results = []
    for impl in ("loop", "chunk"):
        leaves = [tensor.clone().requires_grad_() for tensor in (x, weight, b, past)]
        y, end = conv(leaves[0], leaves[1], leaves[2] if bias else None, state=leaves[3], reset=reset, impl=impl)
        grads = torch.autograd.grad(y.square().sum() + end.pow(3).sum(), leaves, allow_unused=True)
        results.append([y, end, *(torch.zeros_like(leaf) if grad is None else grad for grad, leaf in zip(grads, leaves, strict=True))])
    for found, wanted in zip(*results, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("impl", ["loop", "chunk", pytest.param("native", marks=kernels)])
def test_a_reset_is_a_mask(impl):
    x, reset = torch.randn(2, 9, 5), torch.zeros(2, 9, dtype=torch.bool)
    reset[:, 4] = True
    other = x.clone()
    other[:, :4] = float("inf")
    weight = torch.randn(5, 4)
    past = torch.randn(2, 3, 5)
    (y, end), (y_other, end_other) = (conv(v, weight, None, state=past, reset=reset, impl=impl) for v in (x, other))
    assert torch.equal(y[:, 4:], y_other[:, 4:])
    assert torch.equal(end, end_other)


@kernels
def test_which_implementation_runs_is_no_secret():
    few = conv.explain(torch.zeros(1, 3, 2), torch.zeros(2, 4), None)
    assert few == "chunk; native: 6 numbers, fewer than 16384; loop: comes after chunk"
    assert conv.explain(torch.zeros(1, 9000, 2, device="meta"), torch.zeros(2, 4), None).startswith("chunk; native: inputs are on meta; ")


def test_a_width_that_mixes_nothing_is_refused():
    with pytest.raises(ValueError, match="a width of 1 mixes nothing"):
        ShortConv(4, 1)
