"""The outer-product op: every implementation against the loop, and the loop against the formula."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ritornello.errors import InputError
from ritornello.ops.outer import BLOCK, CHUNK, loop, outer

FAST = [name for name in outer.implementations if name != "loop"]


def inputs(T, gates, dtype, seed=0, B=2, H=2, K=8, V=6):
    """q, k, v, gate logits, an incoming state; `gates` is (mean, spread) of the logits of exp(g)."""
    generator = torch.Generator().manual_seed(seed)
    q, k, v = (torch.randn(B, T, H, size, generator=generator, dtype=dtype) for size in (K, K, V))
    logits = torch.randn(B, T, H, K, generator=generator, dtype=dtype) * gates[1] + gates[0]
    return [q, k, v, logits, torch.randn(B, H, K, V, generator=generator, dtype=dtype)]


def results(impl, tensors, reset, dtype):
    """Outputs, end state, and gradients with respect to everything, in `dtype`."""
    leaves = [tensor.detach().to(dtype).requires_grad_() for tensor in tensors]
    q, k, v, logits, S = leaves
    y, end = outer(q, k, v, torch.nn.functional.logsigmoid(logits), state=S, reset=reset, impl=impl)
    grads = torch.autograd.grad(y.square().sum() + (end * S.detach()).sum(), leaves)
    return [y, end, *grads]


def error(found, wanted):
    """Relative norm of the difference."""
    found, wanted = found.detach(), wanted.detach()
    return float((found.double() - wanted).norm() / wanted.norm().clamp_min(1e-30))


def resets(T, share, B=2):
    return None if share is None else torch.rand(B, T, generator=torch.Generator().manual_seed(5)) < share


def test_the_loop_is_the_formula():
    """One row, one head, written out with numbers: y_t = S_t' q_t with S_t = diag(exp g_t) S_{t-1} + k_t v_t'."""
    q, k, v, logits, S = (tensor[:1] for tensor in inputs(5, (0, 1), torch.float64, H=1))
    g = torch.nn.functional.logsigmoid(logits)
    y, end = loop(q, k, v, g, S, None)
    memory = S[0, 0]
    for t in range(5):
        memory = torch.diag(g[0, t, 0].exp()) @ memory + torch.outer(k[0, t, 0], v[0, t, 0])
        torch.testing.assert_close(y[0, t, 0], memory.T @ q[0, t, 0])
    torch.testing.assert_close(end[0, 0], memory)


@pytest.mark.parametrize("impl", FAST)
@given(
    T=st.integers(1, 3 * CHUNK + 1),
    mean=st.sampled_from([0.0, -3.0, 3.0, 20.0]),
    spread=st.sampled_from([1.0, 5.0]),
    share=st.sampled_from([None, 0.0, 0.1, 0.9]),
)
def test_float64_equals_the_loop(impl, T, mean, spread, share):
    """Outputs, end states and every gradient, gates from nearly shut to nearly open, packed documents, warm states."""
    tensors, reset = inputs(T, (mean, spread), torch.float64), resets(T, share)
    for found, wanted in zip(results(impl, tensors, reset, torch.float64), results("loop", tensors, reset, torch.float64), strict=True):
        assert error(found, wanted) < 1e-10


@pytest.mark.parametrize("impl", FAST)
@pytest.mark.parametrize(
    ("gates", "bound"), [((0, 1), 2e-6), ((3, 1), 2e-6), ((0, 5), 5e-5), ((-3, 3), 5e-5), ((20, 1), 2e-6), ((-30, 1), 2e-4)]
)
@pytest.mark.parametrize("share", [None, 0.1])
def test_float32_is_near_the_float64_loop(impl, gates, bound, share):
    """Finite everywhere, and as near as the clamp at exp(-10) a step allows. The gate's own gradient vanishes where gates are shut."""
    tensors, reset = inputs(256, gates, torch.float64), resets(256, share)
    found, wanted = results(impl, tensors, reset, torch.float32), results("loop", tensors, reset, torch.float64)
    assert all(tensor.isfinite().all() for tensor in found)
    names = ("y", "end", "q", "k", "v", "gate", "S")
    for name, a, b in zip(names, found, wanted, strict=True):
        if not (name in ("gate", "S") and gates[0] <= -30):
            assert error(a, b) < bound * (10 if name in ("gate", "S") else 1), name


@pytest.mark.parametrize("impl", FAST)
def test_gates_at_the_very_ends(impl):
    """log decays of exactly 0 and of -1e4 (as good as shut): finite values and gradients, and a shut gate forgets."""
    q, k, v, _, S = inputs(40, (0, 1), torch.float32)
    for decay in (0.0, -1e4):
        g = torch.full_like(k, decay).requires_grad_()
        y, end = outer(q, k, v, g, state=S, impl=impl)
        want, want_end = outer(q, k, v, g, state=S, impl="loop")
        assert error(y, want.double()) < 1e-4
        assert error(end, want_end.double()) < 1e-4
        assert torch.autograd.grad(y.sum(), g)[0].isfinite().all()


@pytest.mark.parametrize("impl", [*FAST, "loop"])
def test_a_reset_is_a_mask_even_where_nothing_decays(impl):
    """With gates wide open a fresh document reads none of the past: huge old content cannot leak into it."""
    q, k, v, _, S = inputs(48, (0, 1), torch.float32)
    reset = torch.zeros(2, 48, dtype=torch.bool)
    reset[:, 20] = True
    y, end = outer(q, k, v, torch.zeros_like(k), state=S, reset=reset, impl=impl)
    v_other = v.clone()
    v_other[:, :20] = 1e30
    y_other, end_other = outer(q, k, v_other, torch.zeros_like(k), state=S * 1e30, reset=reset, impl=impl)
    assert torch.equal(y[:, 20:], y_other[:, 20:])
    assert torch.equal(end, end_other)


@pytest.mark.parametrize("impl", [*FAST, "loop"])
def test_nothing_in_nothing_out(impl):
    q, k, v, logits, S = inputs(0, (0, 1), torch.float32)
    y, end = outer(q, k, v, logits, state=S, impl=impl)
    assert y.shape == v.shape
    assert torch.equal(end, S)


def test_half_precision_inputs_keep_a_float32_state():
    q, k, v, logits, S = inputs(40, (0, 1), torch.float32)
    y, end = outer(*(tensor.bfloat16() for tensor in (q, k, v)), torch.nn.functional.logsigmoid(logits).bfloat16(), state=S)
    assert y.dtype == torch.bfloat16
    assert end.dtype == torch.float32


def test_which_implementation_runs_is_no_secret():
    few, many = inputs(BLOCK - 1, (0, 1), torch.float32)[:4], inputs(BLOCK, (0, 1), torch.float32)[:4]
    assert outer.explain(*few) == f"loop; chunk: {BLOCK - 1} steps, fewer than a block of {BLOCK}"
    assert outer.explain(*many) == "chunk; loop: comes after chunk"
    with pytest.raises(InputError, match=r"unknown implementation 'chunks'. Did you mean 'chunk'\? Known: chunk, loop."):
        outer(*many, state=many[0], impl="chunks")
