"""The softmax recurrence: the loop against softmax written out, the scan against the loop."""

import ctypes

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ritornello._native.library import library
from ritornello.ops.softmax_scan import NONE, State, softmax_scan

both = pytest.mark.parametrize("impl", ["chunk", "loop"])
needs_kernel = pytest.mark.skipif(not isinstance(library(), ctypes.CDLL), reason=str(library()))
NATIVE = pytest.param("native", marks=needs_kernel)
every = pytest.mark.parametrize("impl", ["chunk", "loop", NATIVE])


def inputs(T, fading, bonus, scale=1.0, shared=False, dtype=torch.float64):
    """s, v, w, u, and a state whose first row is fresh; `shared`: a logit for three values, as Aaren's, else for one, as RWKV's."""
    S, V = ((2, 1), (2, 3)) if shared else ((4,), (4,))
    s, v = (torch.randn(3, T, *shape, dtype=dtype) for shape in (S, V))
    w = None if fading is None else fading * torch.rand(S, dtype=dtype)
    m, num, den = (torch.randn(3, *shape, dtype=dtype) for shape in (S, V, S))
    m, num, den = m * scale, num, 1 + den.abs()
    m[0], num[0], den[0] = NONE, 0, 0
    return [s * scale, v, w, torch.randn(S, dtype=dtype) if bonus else None, m, num, den]


def results(impl, tensors, reset, dtype=torch.float64):
    """Outputs, end state, and gradients with respect to everything."""
    leaves = [None if tensor is None else tensor.detach().to(dtype).requires_grad_() for tensor in tensors]
    y, end = softmax_scan(*leaves[:4], state=State(*leaves[4:]), reset=reset, impl=impl)
    leaves = [leaf for leaf in leaves if leaf is not None]
    grads = torch.autograd.grad(y.square().sum() + end.num.pow(3).sum() + end.den.square().sum() + end.m.sum(), leaves, allow_unused=True)
    grads = [torch.zeros_like(leaf) if grad is None else grad for grad, leaf in zip(grads, leaves, strict=True)]
    return [value.detach() for value in (y, *end, *grads)]


def resets(T, share):
    return None if share is None else torch.rand(3, T, generator=torch.Generator().manual_seed(5)) < share


@both
@pytest.mark.parametrize("shared", [False, True])
def test_without_fading_it_is_masked_softmax_attention(impl, shared):
    s, v, *_ = inputs(40, None, False, shared=shared)
    S, V = s.shape[2:], v.shape[2:]
    fresh = State(torch.full((3, *S), NONE, dtype=s.dtype), torch.zeros(3, *V, dtype=s.dtype), torch.zeros(3, *S, dtype=s.dtype))
    y, end = softmax_scan(s, v, None, None, state=fresh, impl=impl)
    later = torch.ones(40, 40, dtype=torch.bool).triu(1).view(40, 40, *[1] * len(S))
    weights = s[:, None].expand(3, 40, 40, *S).masked_fill(later, -torch.inf).softmax(2)  # (B, T, past, *S)
    torch.testing.assert_close(y, (weights * v[:, None]).sum(2))
    torch.testing.assert_close(end.m, s.amax(1))
    torch.testing.assert_close(end.den, (s - end.m[:, None]).exp().sum(1))
    torch.testing.assert_close(end.num, ((s - end.m[:, None]).exp() * v).sum(1))


@both
def test_with_fading_and_a_bonus_it_is_the_formula(impl):
    """Sums over the past, written out: weights e^{k_i - (t-1-i) w} of earlier tokens, e^{u + k_t} of the token itself."""
    s, v, w, u, *_ = inputs(7, 1.0, True)
    fresh = State(torch.full((3, 4), NONE, dtype=s.dtype), torch.zeros(3, 4, dtype=s.dtype), torch.zeros(3, 4, dtype=s.dtype))
    y, end = softmax_scan(s, v, w, u, state=fresh, impl=impl)
    for t in range(7):
        weights = [torch.exp(s[:, i] - (t - 1 - i) * w) for i in range(t)] + [torch.exp(u + s[:, t])]
        torch.testing.assert_close(y[:, t], sum(weight * v[:, i] for i, weight in enumerate(weights)) / sum(weights))
    den = sum(torch.exp(s[:, i] - (6 - i) * w) for i in range(7))
    torch.testing.assert_close(end.den * end.m.exp(), den)
    torch.testing.assert_close(end.m, torch.stack([s[:, i] - (6 - i) * w for i in range(7)]).amax(0))


@given(
    T=st.one_of(st.integers(0, 20), st.integers(30, 70)),
    fading=st.sampled_from([None, 1e-6, 0.5, 13.8, 1e3]),
    bonus=st.booleans(),
    share=st.sampled_from([None, 0.0, 0.1, 0.9]),
    scale=st.sampled_from([1.0, 60.0, 1e4]),
    shared=st.booleans(),
)
def test_float64_equals_the_loop(T, fading, bonus, share, scale, shared):
    """Outputs, end states and every gradient; fading from none to at once, logits in the tens of thousands, fresh and warm rows."""
    tensors, reset = inputs(T, fading, bonus, scale, shared), resets(T, share)
    for found, wanted in zip(results("chunk", tensors, reset), results("loop", tensors, reset), strict=True):
        assert wanted.isfinite().all()
        torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-9 * max([1.0, *wanted.abs().flatten().tolist()]))


@needs_kernel
@given(
    T=st.sampled_from([0, 1, 2, 31, 32, 33, 70]),
    fading=st.sampled_from([None, 1e-6, 0.5, 13.8, 1e3]),
    bonus=st.booleans(),
    share=st.sampled_from([None, 0.0, 0.1, 0.9]),
    scale=st.sampled_from([1.0, 60.0, 1e4]),
    shared=st.booleans(),
)
def test_the_kernel_equals_the_float64_loop(T, fading, bonus, share, scale, shared):
    tensors, reset = [None if each is None else each.float() for each in inputs(T, fading, bonus, scale, shared)], resets(T, share)
    for place, (found, wanted) in enumerate(
        zip(results("native", tensors, reset, torch.float32), results("loop", tensors, reset), strict=True)
    ):
        assert found.isfinite().all()
        assert (found.double() - wanted).norm() <= (1e-6 * scale + 2e-6) * (wanted.norm() + 1), place


@every
@pytest.mark.parametrize("fading", [None, 1e-6, 1.0, 13.8])
@pytest.mark.parametrize("bonus", [False, True])
def test_float32_is_near_the_float64_loop(impl, fading, bonus):
    tensors, reset = inputs(150, fading, bonus, 5.0), resets(150, 0.05)
    for found, wanted in zip(results(impl, tensors, reset, torch.float32), results("loop", tensors, reset), strict=True):
        assert found.isfinite().all()
        assert (found.double() - wanted).norm() <= 1e-4 * wanted.norm()


@every
@pytest.mark.parametrize("bonus", [False, True])
def test_a_reset_is_a_mask(impl, bonus):
    """Old values are infinite and old logits outweigh all others: a fresh document has none of them."""
    s, v, w, u, m, num, den = inputs(60, 1e-6, bonus, dtype=torch.float32)
    reset = torch.zeros(3, 60, dtype=torch.bool)
    reset[:, 37] = True
    other_s, other_v = s.clone(), v.clone()
    other_s[:, :37], other_v[:, :37] = 1e4, float("inf")
    y, end = softmax_scan(s, v, w, u, state=State(m, num, den), reset=reset, impl=impl)
    y_other, end_other = softmax_scan(other_s, other_v, w, u, state=State(m + 1e4, num / 0, den), reset=reset, impl=impl)
    assert torch.equal(y[:, 37:], y_other[:, 37:])
    assert all(torch.equal(leaf, other) for leaf, other in zip(end, end_other, strict=True))


@every
def test_half_precision_inputs_keep_a_float32_state(impl):
    s, v, w, u, *state = inputs(40, 0.5, True, dtype=torch.float32)
    y, end = softmax_scan(s.bfloat16(), v.bfloat16(), w, u, state=State(*state), impl=impl)
    assert y.dtype == torch.bfloat16
    assert {leaf.dtype for leaf in end} == {torch.float32}


def test_which_implementation_runs_is_no_secret():
    assert (
        softmax_scan.explain(*inputs(31, 1.0, True)[:4]) == "loop; native: inputs are float64; chunk: 31 steps, fewer than two pieces of 16"
    )
    assert softmax_scan.explain(*inputs(32, 1.0, True)[:4]) == "chunk; native: inputs are float64; loop: comes after chunk"
