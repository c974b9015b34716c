"""The delta rule: the loop against the formula, and the chunk form against the loop."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ritornello.ops.delta import delta, loop
from ritornello.ops.outer import BLOCK, CHUNK
from ritornello.ops.triton import against

NO_GPU = against("delta", torch.zeros(1))

DECAYS = {"none": None, "head": 1, "channel": 6}
every = pytest.mark.parametrize("decays", DECAYS)


def inputs(T, decays, gates=(0, 1), keys="apart", dtype=torch.float64, B=2, H=2, K=6, V=5):
    """q, k, v, r, p, gate logits (or None), an incoming state. Keys of DeltaNet have unit length and r = beta k, beta up to 2;
    those apart are anything, small enough that the products of a few hundred steps stay finite."""
    generator = torch.Generator().manual_seed(7)
    q, k, v, r, p, logits, S = (
        torch.randn(*shape, generator=generator, dtype=torch.float64)
        for shape in (*[(B, T, H, size) for size in (K, K, V, K, K, DECAYS[decays] or 1)], (B, H, K, V))
    )
    if keys == "unit":
        k = torch.nn.functional.normalize(k, dim=-1)
        r, p = k * 2 * r[..., :1].sigmoid(), k
    else:
        r, p = 0.3 * r, 0.3 * p
    logits = logits * gates[1] + gates[0] if DECAYS[decays] else None
    return [None if each is None else each.to(dtype) for each in (q, k, v, r, p, logits, S)]


def results(impl, tensors, reset, dtype=torch.float64):
    """Outputs, end state, and gradients with respect to everything, in `dtype`."""
    leaves = [None if tensor is None else tensor.detach().to(dtype).requires_grad_() for tensor in tensors]
    *qkvrp, logits, S = leaves
    g = None if logits is None else torch.nn.functional.logsigmoid(logits)
    y, end = delta(*qkvrp, g, state=S, reset=reset, impl=impl)
    grads = torch.autograd.grad(y.square().sum() + (end * S.detach()).sum(), [leaf for leaf in leaves if leaf is not None])
    return [y, end, *grads]


def names(decays):
    """What `results` returns, in its order."""
    return ["y", "end", "q", "k", "v", "r", "p", *([] if decays == "none" else ["gate"]), "S"]


def error(found, wanted):
    """Relative norm of the difference."""
    found, wanted = found.detach(), wanted.detach()
    return float((found.double() - wanted).norm() / wanted.norm().clamp_min(1e-30))


def resets(T, share, B=2):
    return None if share is None else torch.rand(B, T, generator=torch.Generator().manual_seed(5)) < share


@every
def test_the_loop_is_the_formula(decays):
    """One row, one head, written out with matrices: S_t = (diag(exp g_t) - r_t p_t') S_{t-1} + k_t v_t', y_t = S_t' q_t."""
    q, k, v, r, p, logits, S = inputs(5, decays)
    g = None if logits is None else torch.nn.functional.logsigmoid(logits)
    y, end = loop(q, k, v, r, p, g, S, None)
    memory = S[0, 1]
    for t in range(5):
        decay = torch.ones(6, dtype=torch.float64) if g is None else g[0, t, 1].exp().expand(6)
        transition = torch.diag(decay) - torch.outer(r[0, t, 1], p[0, t, 1])
        memory = transition @ memory + torch.outer(k[0, t, 1], v[0, t, 1])
        torch.testing.assert_close(y[0, t, 1], memory.T @ q[0, t, 1])
    torch.testing.assert_close(end[0, 1], memory)


@every
@pytest.mark.parametrize("keys", ["unit", "apart"])
@given(
    T=st.one_of(st.integers(1, 3 * CHUNK + 1), st.sampled_from([CHUNK - 1, CHUNK, CHUNK + 1])),
    gates=st.sampled_from([(0, 1), (3, 5), (-3, 5), (13.8, 0), (-13.8, 0)]),  # the last two are gates of 1 - 1e-6 and 1e-6
    share=st.sampled_from([None, 0.0, 0.1, 0.9]),
)
def test_float64_equals_the_loop(decays, keys, T, gates, share):
    """Outputs, end states and every gradient: any length, any decay, packed documents, warm states. The gradient of a shut gate is
    a difference of sums a million times larger."""
    tensors, reset = inputs(T, decays, gates, keys), resets(T, share)
    for name, found, wanted in zip(names(decays), results("chunk", tensors, reset), results("loop", tensors, reset), strict=True):
        assert error(found, wanted) < (1e-8 if name == "gate" and gates[0] < -3 else 1e-10), name


@every
@pytest.mark.parametrize("keys", ["unit", "apart"])
@pytest.mark.parametrize("gates", [(0, 1), (3, 1), (13.8, 0), (-3, 3)])
@pytest.mark.parametrize("share", [None, 0.1])
def test_float32_is_near_the_float64_loop(decays, keys, gates, share):
    tensors, reset = inputs(256, decays, gates, keys, dtype=torch.float32), resets(256, share)
    found, wanted = results("chunk", tensors, reset, torch.float32), results("loop", tensors, reset)
    for name, a, b in zip(names(decays), found, wanted, strict=True):
        assert a.isfinite().all(), name
        assert error(a, b) < 2e-4, name


@every
def test_two_thousand_reflections_along_one_key_do_not_blow_up(decays):
    """Signed eigenvalues at their extreme, r = 2 k: in float32 rounding adds up over the steps, it does not multiply."""
    q, k, v, *_, S = inputs(2000, decays, dtype=torch.float32)
    k = torch.nn.functional.normalize(k[:, :1], dim=-1).expand_as(k)
    g = None if decays == "none" else torch.zeros(2, 2000, 2, DECAYS[decays])
    tensors = (q, k, v[:, :1].expand_as(v), 2 * k, k, g)
    found = delta(*tensors, state=S)
    wanted = delta(*(None if each is None else each.double() for each in tensors), state=S.double(), impl="loop")
    for a, b in zip(found, wanted, strict=True):
        assert error(a, b) < 2e-3


@every
@pytest.mark.parametrize("impl", ["chunk", "loop"])
def test_a_reset_is_a_mask_even_where_nothing_decays(decays, impl):
    """A fresh document reads none of the past: huge old content cannot leak into it."""
    q, k, v, r, p, _, S = inputs(48, decays, keys="unit", dtype=torch.float32)
    g = None if decays == "none" else torch.zeros(2, 48, 2, DECAYS[decays])
    reset = torch.zeros(2, 48, dtype=torch.bool)
    reset[:, 20] = True
    y, end = delta(q, k, v, r, p, g, state=S, reset=reset, impl=impl)
    v_other = v.clone()
    v_other[:, :20] = 1e30
    y_other, end_other = delta(q, k, v_other, r, p, g, state=S * 1e30, reset=reset, impl=impl)
    assert torch.equal(y[:, 20:], y_other[:, 20:])
    assert torch.equal(end, end_other)


@every
@pytest.mark.parametrize("impl", ["chunk", "loop"])
def test_nothing_in_nothing_out(decays, impl):
    q, k, v, r, p, g, S = inputs(0, decays)
    y, end = delta(q, k, v, r, p, g, state=S, impl=impl)
    assert y.shape == v.shape
    assert torch.equal(end, S)


def test_half_precision_inputs_keep_a_float32_state():
    *inside, g, S = inputs(40, "head", dtype=torch.bfloat16)
    y, end = delta(*inside, -g.square(), state=S.float())
    assert y.dtype == torch.bfloat16
    assert end.dtype == torch.float32


def test_which_implementation_runs_is_no_secret():
    few, many = (torch.zeros(1, T, 1, 4, dtype=torch.float64) for T in (BLOCK - 1, BLOCK))
    assert (
        delta.explain(few) == f"loop; triton: {NO_GPU}; native: inputs are float64; chunk: {BLOCK - 1} steps, fewer than a block of {BLOCK}"
    )
    assert delta.explain(many) == f"chunk; triton: {NO_GPU}; native: inputs are float64; loop: comes after chunk"
