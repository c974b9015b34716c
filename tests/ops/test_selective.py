"""The selective scan: the loop against the formula, its form in pieces against the loop."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ritornello.errors import InputError
from ritornello.mixers.base import Place
from ritornello.mixers.mamba import Mamba
from ritornello.ops.selective import PIECE, selective

both = pytest.mark.parametrize("impl", ["chunk", "loop"])  # the kernel has tests of its own


def inputs(T, dt=0.5, rows=2, D=3, N=4, dtype=torch.float64):
    """x, dt around a given size, A, B, C and a state."""
    x, steps, B, C = (torch.randn(rows, T, size, dtype=dtype) for size in (D, D, N, N))
    return [
        x,
        dt * steps.exp(),
        -torch.arange(1, N + 1, dtype=dtype) * torch.ones(D, 1, dtype=dtype),
        B,
        C,
        torch.randn(rows, D, N, dtype=dtype),
    ]


def results(impl, tensors, reset, dtype=torch.float64):
    """Outputs, end state, and gradients with respect to everything."""
    leaves = [tensor.detach().to(dtype).requires_grad_() for tensor in tensors]
    y, end = selective(*leaves[:5], state=leaves[5], reset=reset, impl=impl)
    grads = torch.autograd.grad(y.square().sum() + end.pow(3).sum(), leaves, allow_unused=True)
    return [y.detach(), end.detach(), *(torch.zeros_like(leaf) if grad is None else grad for grad, leaf in zip(grads, leaves, strict=True))]


def resets(T, share, rows=2):
    return None if share is None else torch.rand(rows, T, generator=torch.Generator().manual_seed(5)) < share


@both
def test_it_is_the_formula(impl):
    """Channel by channel, written out with numbers: h = exp(dt A) h + dt x B, y = h . C."""
    x, dt, A, B, C, h = inputs(5)
    y, end = selective(x, dt, A, B, C, state=h, impl=impl)
    for d in range(3):
        memory = h[1, d]
        for t in range(5):
            memory = torch.tensor([torch.exp(dt[1, t, d] * A[d, n]) * memory[n] + dt[1, t, d] * x[1, t, d] * B[1, t, n] for n in range(4)])
            torch.testing.assert_close(y[1, t, d], memory.double() @ C[1, t])
        torch.testing.assert_close(end[1, d], memory.double())


@given(
    T=st.one_of(st.integers(0, 2 * PIECE + 3), st.sampled_from([PIECE - 1, PIECE, PIECE + 1])),
    dt=st.sampled_from([1e-6, 0.01, 1.0, 13.8, 1e3]),
    share=st.sampled_from([None, 0.0, 0.1, 0.9]),
)
def test_float64_equals_the_loop(T, dt, share):
    """Outputs, end states and every gradient; decays from 1 - 1e-6 through 1e-6 to nothing, packed documents, warm states."""
    tensors, reset = inputs(T, dt), resets(T, share)
    for found, wanted in zip(results("chunk", tensors, reset), results("loop", tensors, reset), strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-10 * float(wanted.abs().max()) if wanted.numel() else 0)


@both
@pytest.mark.parametrize("dt", [1e-6, 0.1, 13.8])
@pytest.mark.parametrize("share", [None, 0.1])
def test_float32_is_near_the_float64_loop(impl, dt, share):
    tensors, reset = inputs(150, dt), resets(150, share)
    for found, wanted in zip(results(impl, tensors, reset, torch.float32), results("loop", tensors, reset), strict=True):
        torch.testing.assert_close(found.double(), wanted, rtol=1e-4, atol=2e-6 * float(wanted.abs().max()))


@both
def test_a_reset_is_a_mask(impl):
    """Nothing decays, and the past is infinite: a fresh document has none of it."""
    x, dt, A, B, C, h = inputs(80, 1e-9)
    reset = torch.zeros(2, 80, dtype=torch.bool)
    reset[:, 37] = True
    other = x.clone()
    other[:, :37] = float("inf")
    y, end = selective(x, dt, A, B, C, state=h, reset=reset, impl=impl)
    y_other, end_other = selective(other, dt, A, B, C, state=h / 0, reset=reset, impl=impl)
    assert torch.equal(y[:, 37:], y_other[:, 37:])
    assert torch.equal(end, end_other)


@both
def test_half_precision_inputs_keep_a_float32_state(impl):
    x, dt, A, B, C, h = inputs(40, dtype=torch.float32)
    y, end = selective(x.bfloat16(), dt, A, B.bfloat16(), C.bfloat16(), state=h, impl=impl)
    assert y.dtype == torch.bfloat16
    assert end.dtype == torch.float32


def test_the_backward_pass_makes_the_decays_again():
    """It is left the inputs and the states between the pieces, not every state and its decay as by the loop."""
    kept = {}
    for impl in ("chunk", "loop"):
        leaves, sizes = [tensor.requires_grad_() for tensor in inputs(4 * PIECE, D=64, N=16)], []
        with torch.autograd.graph.saved_tensors_hooks(lambda tensor, sizes=sizes: (sizes.append(tensor.numel()), tensor)[1], lambda x: x):
            selective(*leaves[:5], state=leaves[5], impl=impl)
        kept[impl] = sum(sizes) / (2 * 4 * PIECE * 64 * 16)
    assert kept["chunk"] < 0.25
    assert kept["loop"] > 2


def test_which_implementation_runs_is_no_secret():
    assert selective.explain(*inputs(31)[:5]) == "loop; native: inputs are float64; chunk: 31 steps, fewer than two pieces of 16"
    assert selective.explain(*inputs(32)[:5]) == "chunk; native: inputs are float64; loop: comes after chunk"


@pytest.mark.parametrize("size", ["state_dim", "expand", "rank"])
def test_sizes_that_cannot_be_are_refused(size):
    with pytest.raises(InputError, match=f"Mamba {size}: 0 is less than 1"):
        Mamba(16, Mamba.Config(**{size: 0}), Place())
