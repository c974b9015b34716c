"""The outer-product op: every implementation against the loop, and the loop against the formula."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ritornello.errors import InputError
from ritornello.ops.outer import BLOCK, CHUNK, loop, outer
from ritornello.ops.triton import against

NO_GPU = against("outer", torch.zeros(1))
FAST = ["chunk"]  # the kernel has tests of its own
every = pytest.mark.parametrize("impl", [*FAST, "loop"])
both = pytest.mark.parametrize("decays", ["channel", "head"])


def inputs(T, gates, dtype, seed=0, B=2, H=2, K=8, V=6, decays="channel"):
    """q, k, v, gate logits, a bonus, an incoming state; `gates` is (mean, spread) of the logits of exp(g)."""
    generator = torch.Generator().manual_seed(seed)
    q, k, v = (torch.randn(B, T, H, size, generator=generator, dtype=dtype) for size in (K, K, V))
    logits = torch.randn(B, T, H, K if decays == "channel" else 1, generator=generator, dtype=dtype) * gates[1] + gates[0]
    u, S = (torch.randn(*shape, generator=generator, dtype=dtype) for shape in ((H, K), (B, H, K, V)))
    return [q, k, v, logits, u, S]


def results(impl, tensors, reset, dtype, bonus=False):
    """Outputs, end state, and gradients with respect to everything, in `dtype`."""
    leaves = [tensor.detach().to(dtype).requires_grad_() for tensor in tensors]
    q, k, v, logits, u, S = leaves
    y, end = outer(q, k, v, torch.nn.functional.logsigmoid(logits), u if bonus else None, state=S, reset=reset, impl=impl)
    grads = torch.autograd.grad(y.square().sum() + (end * S.detach()).sum(), leaves, allow_unused=True)
    return [y, end, *(grad for grad in grads if grad is not None)]


def error(found, wanted):
    """Relative norm of the difference."""
    found, wanted = found.detach(), wanted.detach()
    return float((found.double() - wanted).norm() / wanted.norm().clamp_min(1e-30))


def resets(T, share, B=2):
    return None if share is None else torch.rand(B, T, generator=torch.Generator().manual_seed(5)) < share


@both
@pytest.mark.parametrize("bonus", [False, True])
def test_the_loop_is_the_formula(decays, bonus):
    """One row, one head, written out with numbers: S_t = diag(exp g_t) S_{t-1} + k_t v_t'; y_t = S_t' q_t, or with a bonus
    (S_{t-1} + diag(u) k_t v_t')' q_t."""
    q, k, v, logits, u, S = (tensor[:1] for tensor in inputs(5, (0, 1), torch.float64, H=1, decays=decays))
    g = torch.nn.functional.logsigmoid(logits)
    y, end = loop(q, k, v, g, u if bonus else None, S, None)
    memory = S[0, 0]
    for t in range(5):
        write = torch.outer(k[0, t, 0], v[0, t, 0])
        before, memory = memory, torch.diag(g[0, t, 0].exp().expand(8)) @ memory + write
        torch.testing.assert_close(y[0, t, 0], (before + torch.diag(u[0]) @ write if bonus else memory).T @ q[0, t, 0])
    torch.testing.assert_close(end[0, 0], memory)


@pytest.mark.parametrize("impl", FAST)
@given(
    T=st.integers(1, 3 * CHUNK + 1),
    mean=st.sampled_from([0.0, -14.0, 3.0, 14.0]),
    spread=st.sampled_from([1.0, 5.0]),
    share=st.sampled_from([None, 0.0, 0.1, 0.9]),
    decays=st.sampled_from(["channel", "head"]),
    bonus=st.booleans(),
)
def test_float64_equals_the_loop(impl, T, mean, spread, share, decays, bonus):
    """Outputs, end states and every gradient, gates from nearly shut (1e-6 and less) to nearly open, packed documents, warm states."""
    tensors, reset = inputs(T, (mean, spread), torch.float64, decays=decays), resets(T, share)
    found, wanted = (results(name, tensors, reset, torch.float64, bonus) for name in (impl, "loop"))
    for a, b in zip(found, wanted, strict=True):
        assert error(a, b) < 1e-10


@pytest.mark.parametrize("impl", FAST)
@pytest.mark.parametrize(
    ("gates", "bound"), [((0, 1), 2e-6), ((3, 1), 2e-6), ((0, 5), 5e-5), ((-3, 3), 5e-5), ((20, 1), 2e-6), ((-30, 1), 2e-4)]
)
@pytest.mark.parametrize("share", [None, 0.1])
@both
@pytest.mark.parametrize("bonus", [False, True])
def test_float32_is_near_the_float64_loop(impl, gates, bound, share, decays, bonus):
    """Finite everywhere, and as near as the clamp at exp(-10) a step allows. The gate's own gradient vanishes where gates are shut."""
    tensors, reset = inputs(256, gates, torch.float64, decays=decays), resets(256, share)
    found, wanted = results(impl, tensors, reset, torch.float32, bonus), results("loop", tensors, reset, torch.float64, bonus)
    assert all(tensor.isfinite().all() for tensor in found)
    names = ("y", "end", "q", "k", "v", "gate", *(["u"] if bonus else []), "S")
    for name, a, b in zip(names, found, wanted, strict=True):
        if not (name in ("gate", "S") and gates[0] <= -30):
            assert error(a, b) < bound * (10 if name in ("gate", "S") else 1), name


@pytest.mark.parametrize("impl", FAST)
@both
@pytest.mark.parametrize("bonus", [False, True])
def test_gates_at_the_very_ends(impl, decays, bonus):
    """log decays of exactly 0 and of -1e4 (as good as shut): finite values and gradients, and a shut gate forgets."""
    q, k, v, logits, u, S = inputs(40, (0, 1), torch.float32, decays=decays)
    u = u if bonus else None
    for decay in (0.0, -1e4):
        g = torch.full_like(logits, decay).requires_grad_()
        y, end = outer(q, k, v, g, u, state=S, impl=impl)
        want, want_end = outer(q, k, v, g, u, state=S, impl="loop")
        assert error(y, want.double()) < 1e-4
        assert error(end, want_end.double()) < 1e-4
        assert torch.autograd.grad(y.sum(), g)[0].isfinite().all()


@pytest.mark.parametrize("impl", FAST)
def test_a_heads_decay_is_exact(impl):
    """One step that shuts a gate, however hard, costs the sums of the other steps nothing; -inf is as good as any number."""
    q, k, v, logits, _, S = inputs(40, (3, 1), torch.float64, decays="head")
    for shut in (-1e30, -torch.inf):
        leaves = [tensor.clone().requires_grad_() for tensor in (k, torch.nn.functional.logsigmoid(logits))]
        g = torch.where(torch.arange(40)[:, None, None] == 9, shut, leaves[1])
        y, end = outer(q, leaves[0], v, g, None, state=S, impl=impl)
        want, want_end = outer(q, k, v, g, None, state=S, impl="loop")
        assert error(y, want) < 1e-12
        assert error(end, want_end) < 1e-12
        assert all(grad.isfinite().all() for grad in torch.autograd.grad(y.sum() + end.sum(), leaves))


@every
@both
@pytest.mark.parametrize("bonus", [False, True])
def test_a_reset_is_a_mask_even_where_nothing_decays(impl, decays, bonus):
    """With gates wide open a fresh document reads none of the past: huge old content cannot leak into it."""
    q, k, v, logits, u, S = inputs(48, (0, 1), torch.float32, decays=decays)
    u, g, reset = u if bonus else None, torch.zeros_like(logits), torch.zeros(2, 48, dtype=torch.bool)
    reset[:, 20] = True
    y, end = outer(q, k, v, g, u, state=S, reset=reset, impl=impl)
    v_other = v.clone()
    v_other[:, :20] = 1e30
    y_other, end_other = outer(q, k, v_other, g, u, state=S * 1e30, reset=reset, impl=impl)
    assert torch.equal(y[:, 20:], y_other[:, 20:])
    assert torch.equal(end, end_other)


@every
def test_nothing_in_nothing_out(impl):
    q, k, v, logits, u, S = inputs(0, (0, 1), torch.float32)
    y, end = outer(q, k, v, logits, u, state=S, impl=impl)
    assert y.shape == v.shape
    assert torch.equal(end, S)


def test_half_precision_inputs_keep_a_float32_state():
    q, k, v, logits, u, S = inputs(40, (0, 1), torch.float32)
    y, end = outer(*(tensor.bfloat16() for tensor in (q, k, v, torch.nn.functional.logsigmoid(logits), u)), state=S)
    assert y.dtype == torch.bfloat16
    assert end.dtype == torch.float32


def test_which_implementation_runs_is_no_secret():
    few, many = inputs(BLOCK - 1, (0, 1), torch.float64)[:5], inputs(BLOCK, (0, 1), torch.float64)[:5]
    assert (
        outer.explain(*few)
        == f"loop; triton: {NO_GPU}; native: inputs are float64; chunk: {BLOCK - 1} steps, fewer than a block of {BLOCK}"
    )
    assert outer.explain(*many) == f"chunk; triton: {NO_GPU}; native: inputs are float64; loop: comes after chunk"
    with pytest.raises(InputError, match=r"unknown implementation 'chunks'. Did you mean 'chunk'\? Known: chunk, loop, native, triton."):
        outer(*many, state=many[0], impl="chunks")
