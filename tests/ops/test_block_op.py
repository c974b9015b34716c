"""The block-diagonal recurrence: the loop against the formula, the chunk form against the loop, and finite automata exactly."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ritornello.ops.block import CHUNK, block, loop

both = pytest.mark.parametrize("impl", ["chunk", "loop"])


def inputs(T, kind="dense", B=2, H=3, n=4):
    """A, b, what a reset goes back to, an incoming state. Dense blocks have a spectral radius near 1; others turn, barely keep, or
    barely forget."""
    generator = torch.Generator().manual_seed(3)
    A, b, fresh, h = (
        torch.randn(*shape, generator=generator, dtype=torch.float64) for shape in ((B, T, H, n, n), (B, T, H, n), (H, n), (B, H, n))
    )
    if kind == "turning":
        A = torch.linalg.matrix_exp(A - A.mT)
    else:
        A = {"dense": 0.5 * A, "shut": 1e-6 * A, "open": (1 - 1e-6) * torch.eye(n, dtype=torch.float64).expand_as(A)}[kind]
    return [A, b, fresh, h]


def results(impl, tensors, reset, dtype=torch.float64):
    """Outputs, end state, and gradients with respect to everything there is, in `dtype`."""
    leaves = [None if tensor is None else tensor.to(dtype).clone().requires_grad_() for tensor in tensors]
    A, b, fresh, h = leaves
    y, end = block(A, b, fresh, state=h, reset=reset, impl=impl)
    wanted = [leaf for leaf in leaves if leaf is not None]
    grads = torch.autograd.grad(y.square().sum() + (end * h.detach()).sum(), wanted, allow_unused=True)
    return [y, end, *(torch.zeros_like(leaf) if grad is None else grad for grad, leaf in zip(grads, wanted, strict=True))]


def resets(T, share, B=2):
    return None if share is None else torch.rand(B, T, generator=torch.Generator().manual_seed(5)) < share


def test_the_loop_is_the_formula():
    A, b, fresh, h = inputs(5)
    reset = torch.zeros(2, 5, dtype=torch.bool)
    reset[1, 2] = True
    y, end = loop(A, b, fresh, h, reset)
    for row in range(2):
        now = h[row, 1]
        for t in range(5):
            now = A[row, t, 1] @ (fresh[1] if reset[row, t] else now) + b[row, t, 1]
            torch.testing.assert_close(y[row, t, 1], now)
        torch.testing.assert_close(end[row, 1], now)


@pytest.mark.parametrize("driven", [False, True])
@given(
    T=st.one_of(st.integers(1, 3 * CHUNK + 1), st.sampled_from([CHUNK - 1, CHUNK, CHUNK + 1])),
    kind=st.sampled_from(["dense", "turning", "shut", "open"]),
    fresh=st.booleans(),
    share=st.sampled_from([None, 0.0, 0.1, 0.9]),
)
def test_float64_equals_the_loop(driven, T, kind, fresh, share):
    """Outputs, end states and every gradient, packed documents, warm states, with and without b and a fresh state."""
    A, b, again, h = inputs(T, kind)
    tensors, reset = [A, b if driven else None, again if fresh else None, h], resets(T, share)
    for found, wanted in zip(results("chunk", tensors, reset), results("loop", tensors, reset), strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-10 * max(1, float(wanted.detach().abs().max())))


@pytest.mark.parametrize("kind", ["dense", "turning", "shut", "open"])
def test_float32_is_near_the_float64_loop(kind):
    tensors, reset = inputs(256, kind), resets(256, 0.02)
    for found, wanted in zip(results("chunk", tensors, reset, torch.float32), results("loop", tensors, reset), strict=True):
        wanted = wanted.detach()
        assert float((found.detach().double() - wanted).norm() / wanted.norm()) < 2e-5


@both
def test_a_reset_is_a_mask(impl):
    """Nothing of an old document is left, were it infinite; gradients too."""
    A, b, fresh, h = inputs(48)
    reset = torch.zeros(2, 48, dtype=torch.bool)
    reset[:, 20] = True
    y, end = block(A, b, fresh, state=h, reset=reset, impl=impl)
    b_other = b.clone()
    b_other[:, :20] = float("inf")
    A_leaf = A.clone().requires_grad_()
    y_other, end_other = block(A_leaf, b_other, fresh, state=h * float("inf"), reset=reset, impl=impl)
    assert torch.equal(y[:, 20:], y_other[:, 20:])
    assert torch.equal(end, end_other)
    assert torch.autograd.grad(y_other[:, 20:].sum(), A_leaf)[0][:, 20:].isfinite().all()


@both
def test_nothing_in_nothing_out(impl):
    A, b, fresh, h = inputs(0)
    y, end = block(A, b, fresh, state=h, impl=impl)
    assert y.shape == b.shape
    assert torch.equal(end, h)


def test_half_precision_inputs_keep_a_float32_state():
    A, b, fresh, h = inputs(40)
    y, end = block(A.bfloat16(), b.bfloat16(), fresh, state=h.float())
    assert y.dtype == torch.bfloat16
    assert end.dtype == torch.float32


def test_which_implementation_runs_is_no_secret():
    few, many = (torch.zeros(1, T, 1, 2, 2) for T in (2 * CHUNK - 1, 2 * CHUNK))
    assert block.explain(few) == f"loop; chunk: {2 * CHUNK - 1} steps, fewer than two pieces of {CHUNK}"
    assert block.explain(many) == "chunk; loop: comes after chunk"


@both
@given(states=st.integers(2, 6), letters=st.integers(1, 4), seed=st.integers(0, 99))
def test_any_finite_automaton(impl, states, letters, seed):
    """Its states are unit vectors and its letters 0-1 matrices: thousands of random letters, and not one step off a direct walk."""
    generator = torch.Generator().manual_seed(seed)
    T = 10_000 if impl == "chunk" else 300
    table = torch.randint(states, (letters, states), generator=generator)  # letter, state -> next state
    word = torch.randint(letters, (T,), generator=generator)
    A = torch.nn.functional.one_hot(table, states).float().mT[word]  # (T, n, n): column s is where state s goes
    y, _ = block(A[None, :, None], None, None, state=torch.eye(states)[:1, None], impl=impl)
    at, walk, moves = 0, [], table.tolist()
    for letter in word.tolist():
        at = moves[letter][at]
        walk.append(at)
    assert torch.equal(y[0, :, 0], torch.eye(states)[walk])
