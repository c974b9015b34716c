"""The diagonal recurrence: the loop against the formula, chunks against the loop, at decays from zero to one and below zero."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ritornello.ops.scan import CHUNK, scan, scan_complex

BOTH = pytest.mark.parametrize("op", [scan, scan_complex], ids=lambda op: op.name)
IMPLS = pytest.mark.parametrize("impl", ["chunk", "loop"])


def inputs(op, T, decay, seed=0, B=2):
    """a, b and an incoming h in float64: three channels with |a| near `decay`, of either sign or any phase."""
    generator = torch.Generator().manual_seed(seed)
    tail = (3, 2) if op is scan_complex else (3,)
    a, b = (torch.randn(B, T, *tail, generator=generator, dtype=torch.float64) for _ in range(2))
    size = a.norm(dim=-1, keepdim=True) if op is scan_complex else a.abs()
    return [a / size * decay, b, torch.randn(B, *tail, generator=generator, dtype=torch.float64)]


def results(op, impl, tensors, reset, dtype=torch.float64):
    """Outputs, end state, and gradients with respect to everything, in `dtype`."""
    leaves = [tensor.detach().to(dtype).requires_grad_() for tensor in tensors]
    y, end = op(*leaves[:2], state=leaves[2], reset=reset, impl=impl)
    grads = torch.autograd.grad(y.square().sum() + (end * leaves[2].detach()).sum(), leaves, allow_unused=True)
    return [y, end, *(torch.zeros_like(leaf) if grad is None else grad for grad, leaf in zip(grads, leaves, strict=True))]


def resets(T, share, B=2):
    return None if share is None else torch.rand(B, T, generator=torch.Generator().manual_seed(5)) < share


def as_complex(x):
    return [complex(*pair) for pair in x.tolist()]


@IMPLS
def test_it_is_the_formula(impl):
    """One row in Python's own numbers: h_t = a_t h_{t-1} + b_t."""
    T = 2 * CHUNK + 3
    for op, plain in ((scan, lambda x: x.tolist()), (scan_complex, as_complex)):
        a, b, h = inputs(op, T, 0.9)
        y, end = op(a, b, state=h, impl=impl)
        want = plain(h[0])
        for t in range(T):
            want = [a_i * h_i + b_i for a_i, h_i, b_i in zip(plain(a[0, t]), want, plain(b[0, t]), strict=True)]
            assert plain(y[0, t]) == pytest.approx(want, rel=1e-12)
        assert plain(end[0]) == pytest.approx(want, rel=1e-12)


@BOTH
@given(
    T=st.one_of(st.integers(0, 3 * CHUNK + 1), st.sampled_from([0, 1, CHUNK, 2 * CHUNK])),
    decay=st.sampled_from([0.0, 1e-6, 0.5, 1 - 1e-6, 1.0]),
    share=st.sampled_from([None, 0.0, 0.1, 0.9]),
)
def test_float64_equals_the_loop(op, T, decay, share):
    """Outputs, end states and every gradient; decays from exactly zero to exactly one; packed documents, warm states."""
    tensors, reset = inputs(op, T, decay), resets(T, share)
    for found, wanted in zip(results(op, "chunk", tensors, reset), results(op, "loop", tensors, reset), strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-11, atol=1e-11)


@BOTH
@given(T=st.integers(1, 3 * CHUNK), share=st.sampled_from([None, 0.2]))
def test_a_decay_may_be_the_same_at_every_step(op, T, share):
    """An `a` with one row and one step stands for all of them, in its gradient too."""
    a, b, h = inputs(op, T, 0.9)
    one, reset = a[:1, :1], resets(T, share)
    wanted = results(op, "loop", [one.expand_as(b), b, h], reset)
    wanted[2] = wanted[2].sum((0, 1), keepdim=True)
    for impl in ("chunk", "loop"):
        for found, want in zip(results(op, impl, [one, b, h], reset), wanted, strict=True):
            torch.testing.assert_close(found, want, rtol=1e-11, atol=1e-11)


@BOTH
@pytest.mark.parametrize("decay", [1e-6, 0.5, 1 - 1e-6])
@pytest.mark.parametrize("share", [None, 0.1])
def test_float32_is_near_the_float64_loop(op, decay, share):
    tensors, reset = [tensor.float() for tensor in inputs(op, 256, decay)], resets(256, share)
    for found, wanted in zip(results(op, "chunk", tensors, reset, torch.float32), results(op, "loop", tensors, reset), strict=True):
        assert (found.double() - wanted).norm() < 3e-6 * wanted.norm()


@BOTH
@IMPLS
def test_a_reset_is_a_mask(op, impl):
    """Infinite old content, decays and the incoming state too, leaks neither into a fresh document nor into its gradients."""
    a, b, h = inputs(op, 50, 1.0)
    reset = torch.zeros(2, 50, dtype=torch.bool)
    reset[:, 20] = True
    reset[0, 35] = True
    endless = torch.full_like(b[:, :20], float("inf"))
    seen = []
    for decay, content, past in ((a, b, h), (torch.cat([endless, a[:, 20:]], 1), torch.cat([endless, b[:, 20:]], 1), endless[:, 0])):
        late = content[:, 20:].clone().requires_grad_()
        y, end = op(decay, torch.cat([content[:, :20], late], 1), state=past, reset=reset, impl=impl)
        seen.append((y[:, 20:], end, *torch.autograd.grad(y[:, 20:].sum() + end.sum(), late)))
    for first, second in zip(*seen, strict=True):
        assert first.isfinite().all()
        assert torch.equal(first, second)


@BOTH
def test_half_precision_inputs_keep_a_float32_state(op):
    a, b, h = inputs(op, 40, 0.9)
    y, end = op(a.bfloat16(), b.bfloat16(), state=h.float())
    assert y.dtype == torch.bfloat16
    assert end.dtype == torch.float32


@BOTH
def test_a_kept_state_does_not_keep_the_outputs(op):
    a, b, h = inputs(op, 40, 0.9)
    _, end = op(a, b, state=h, impl="chunk")
    assert end.untyped_storage().nbytes() == h.untyped_storage().nbytes()


@BOTH
def test_which_implementation_runs_is_no_secret(op):
    few, many = inputs(op, 2 * CHUNK - 1, 1.0)[:2], inputs(op, 2 * CHUNK, 1.0)[:2]
    assert op.explain(*few) == f"loop; native: inputs are float64; chunk: {2 * CHUNK - 1} steps, fewer than two pieces of {CHUNK}"
    assert op.explain(*many) == "chunk; native: inputs are float64; loop: comes after chunk"
