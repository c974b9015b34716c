"""The sliding window: the loop against masked softmax attention written out, its forms against each other."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ritornello.errors import InputError
from ritornello.mixers.attention import Attention
from ritornello.mixers.base import Place
from ritornello.mixers.window import Window
from ritornello.ops.window import State, window

both = pytest.mark.parametrize("impl", window.implementations)


def inputs(T, W=5, H=4, G=2, d=6, B=3, dtype=torch.float64):
    """q, k, v and a buffer whose rows have seen nothing, some and more than the window."""
    q, k, v, past_k, past_v = (torch.randn(B, *shape, d, dtype=dtype) for shape in ((T, H), (T, G), (T, G), (W - 1, G), (W - 1, G)))
    seen = torch.tensor([0, W // 2, 3 * W])
    forgotten = (torch.arange(W - 1, 0, -1) > seen[:, None])[..., None, None]
    return q, k, v, State(past_k.masked_fill(forgotten, 0), past_v.masked_fill(forgotten, 0), seen)


@both
@pytest.mark.parametrize("W", [1, 4, 20])
def test_it_is_softmax_attention_over_the_last_tokens(impl, W):
    """Head by head and token by token, with the softmax written out."""
    q, k, v, _ = inputs(9, W)
    y, end = window(q, k, v, state=State(*[torch.zeros(3, W - 1, 2, 6, dtype=q.dtype)] * 2, torch.zeros(3, dtype=torch.int64)), impl=impl)
    for h in range(4):
        for t in range(9):
            near = slice(max(0, t - W + 1), t + 1)
            weights = torch.exp(k[1, near, h // 2] @ q[1, t, h] / 6**0.5)
            torch.testing.assert_close(y[1, t, h], weights @ v[1, near, h // 2] / weights.sum())
    assert torch.equal(end.seen, torch.full((3,), 9))
    kept = min(W - 1, 9)
    assert torch.equal(end.k[:, W - 1 - kept :], k[:, 9 - kept :])
    assert not end.k[:, : W - 1 - kept].any()


@given(
    T=st.integers(0, 17),
    W=st.integers(1, 7),
    heads=st.sampled_from([(2, 2), (4, 2), (3, 1)]),
    share=st.sampled_from([None, 0.0, 0.2, 0.9]),
    scale=st.sampled_from([1.0, 30.0]),
)
def test_float64_equals_the_loop(T, W, heads, share, scale):
    """Outputs, end states and every gradient; warm states, resets, logits near 0 and in the thousands."""
    q, k, v, state = inputs(T, W, *heads)
    reset = None if share is None else torch.rand(3, T) < share
    results = []
    for impl in ("loop", "chunk"):
        leaves = [tensor.clone().requires_grad_() for tensor in (q * scale, k * scale, v, state.k, state.v)]
        y, end = window(*leaves[:3], state=State(*leaves[3:], state.seen), reset=reset, impl=impl)
        grads = torch.autograd.grad(y.square().sum() + end.k.pow(3).sum() + end.v.pow(3).sum(), leaves, allow_unused=True)
        results.append([y, *end, *(torch.zeros_like(leaf) if grad is None else grad for grad, leaf in zip(grads, leaves, strict=True))])
    for found, wanted in zip(*results, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-10 * scale)


@both
def test_float32_is_near_the_float64_loop(impl):
    q, k, v, state = inputs(40, 11)
    wanted, _ = window(q, k, v, state=state, impl="loop")
    found, _ = window(q.float(), k.float(), v.float(), state=State(state.k.float(), state.v.float(), state.seen), impl=impl)
    torch.testing.assert_close(found.double(), wanted, rtol=1e-5, atol=1e-5)


@both
def test_a_reset_is_a_mask(impl):
    """Huge old keys and values, in the buffer and in the piece, cannot leak into a fresh document."""
    q, k, v, state = inputs(12)
    reset = torch.zeros(3, 12, dtype=torch.bool)
    reset[:, 6] = True
    other_k, other_v = k.clone(), v.clone()
    other_k[:, :6], other_v[:, :6] = 1e30, -1e30
    y, end = window(q, k, v, state=state, reset=reset, impl=impl)
    y_other, end_other = window(q, other_k, other_v, state=State(state.k * 1e30, state.v * 1e30, state.seen), reset=reset, impl=impl)
    assert torch.equal(y[:, 6:], y_other[:, 6:])
    assert torch.equal(end.k, end_other.k)
    assert torch.equal(end.v, end_other.v)
    assert torch.equal(end.seen, torch.full((3,), 6))


@both
def test_half_precision_stays_half_precision(impl):
    """Keys and values are past inputs, kept in the weights' dtype; the count is exact."""
    q, k, v, state = inputs(12, dtype=torch.bfloat16)
    y, end = window(q, k, v, state=state, impl=impl)
    assert {y.dtype, end.k.dtype, end.v.dtype} == {torch.bfloat16}
    wanted, _ = window(*(tensor.double() for tensor in (q, k, v)), state=State(state.k.double(), state.v.double(), state.seen), impl="loop")
    torch.testing.assert_close(y.double(), wanted, rtol=0.03, atol=0.03)


def test_which_implementation_runs_is_no_secret():
    assert window.explain(*inputs(3)[:3]) == "chunk; loop: comes after chunk"


def test_settings_that_cannot_be_are_refused():
    for settings, said in (
        ({"window": 0}, "0 tokens leave nothing to attend to; use 1 or more"),
        ({"head_dim": 3}, "window dim over head_dim: 16 does not divide into parts of 3"),
        ({"head_dim": 8, "kv_heads": 3}, "window heads over kv_heads: 2 does not divide into parts of 3"),
        ({"head_dim": 2}, "rope_fraction: 0.5 of a head of 2 is not an even number of channels"),
        ({"rope_fraction": 1.5}, "rope_fraction: 1.5"),
    ):
        with pytest.raises(InputError, match=said):
            Window(16, Window.Config(**settings), Place())
    with pytest.raises(InputError, match="attention heads over kv_heads: 4 does not divide into parts of 3; use 3 or 6"):
        Attention(16, Attention.Config(head_dim=4, kv_heads=3), Place())
