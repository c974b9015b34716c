"""The divergence from what is known of a teacher: the kernel beside the definition in float64, nats and gradients at any size."""

import ctypes
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ritornello._native.library import library
from ritornello.ops import native_loss
from ritornello.ops.divergence import divergence_of_top

pytestmark = pytest.mark.skipif(not isinstance(library(), ctypes.CDLL), reason=str(library()))


def teacher(N: int, V: int, K: int, scale: float = 2.0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The K likeliest of V ids, log p of each, and log of the rest."""
    log_p = (scale * torch.randn(N, V, dtype=torch.float64)).log_softmax(-1)
    values, ids = log_p.topk(K)
    rest = torch.full((N,), -torch.inf, dtype=torch.float64) if K == V else torch.log1p(-values.exp().sum(-1).clamp(max=1 - 1e-9))
    return ids, values, rest


def both(logits, ids, log_p, log_rest, temperature):
    """Nats and gradients by the kernel, and by the definition in float64."""
    weights, results = torch.randn(len(logits), dtype=torch.float64), []
    for impl, wide in (("auto", False), ("loop", True)):
        leaf = (logits.double() if wide else logits).detach().requires_grad_()
        known = [each if wide else each.float() for each in (log_p.float().double(), log_rest.float().double())]
        nats = divergence_of_top(leaf, ids, *known, temperature, impl)
        results.append((nats.detach(), torch.autograd.grad((nats * weights.to(nats.dtype)).sum(), leaf)[0]))
    return results


@given(
    N=st.sampled_from([0, 1, 5, 33]), V=st.sampled_from([1, 2, 15, 17, 64, 257]), share=st.sampled_from([0.0, 0.3, 1.0]),
    scale=st.sampled_from([0.1, 1.0, 8.0]), temperature=st.sampled_from([1.0, 2.0, 0.5]), narrow=st.booleans(),
)  # fmt: skip
def test_the_kernel_is_the_definition(N, V, share, scale, temperature, narrow):
    ids, log_p, log_rest = teacher(N, V, max(1, round(share * V)))
    logits = (scale * torch.randn(N, V)).to(torch.bfloat16 if narrow else torch.float32)
    assert native_loss.against(logits) is None
    (nats, gradient), (wanted, d_wanted) = both(logits, ids, log_p, log_rest, temperature)
    assert (nats.dtype, gradient.dtype) == (torch.float32, logits.dtype)
    left = 1 - (logits.double() / temperature).softmax(-1).gather(-1, ids).sum(-1).clamp(max=1 - 1e-6)
    lost = 2e-6 * float((log_rest.exp() / left).max()) if N else 0.0  # where little is left over, 1 - Q has few digits in float32
    torch.testing.assert_close(nats.double(), wanted, rtol=2e-5, atol=2e-5 + lost)
    lost *= float((1 / left).max()) if N else 0.0
    torch.testing.assert_close(gradient.double(), d_wanted, rtol=8e-3 if narrow else 2e-5, atol=1e-5 + lost)


def test_a_student_that_gives_all_to_the_known_ids_has_finite_gradients():
    logits = torch.full((2, 40), -200.0)
    logits[:, 3] = 50
    ids, log_p, log_rest = torch.tensor([[3], [3]]), torch.tensor([[0.9], [1.0]]).log(), torch.tensor([0.1, 0.0]).log()
    (nats, gradient), (wanted, _) = both(logits, ids, log_p, log_rest, 1.0)
    assert nats.isfinite().all()
    assert gradient.isfinite().all()
    assert nats[0] == pytest.approx(0.9 * math.log(0.9) + 0.1 * math.log(0.1) - 0.1 * math.log(torch.finfo(torch.float32).eps), rel=1e-4)
    assert float(nats[1]) == pytest.approx(float(wanted[1]), abs=1e-6)


def test_shapes_layouts_and_threads_change_nothing():
    ids, log_p, log_rest = teacher(60, 37, 5)
    logits = torch.randn(20, 3, 2, 37)[:, :, 1]
    results = []
    for threads, x in ((1, logits.contiguous()), (3, logits)):
        torch.set_num_threads(threads)
        x = x.detach().requires_grad_()
        nats = divergence_of_top(x, ids.view(20, 3, 5), log_p.view(20, 3, 5).float(), log_rest.view(20, 3).float(), 2.0)
        results.append((nats, torch.autograd.grad(nats.sum(), x)[0]))
    torch.set_num_threads(1)
    assert results[0][0].shape == (20, 3)
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


@pytest.mark.parametrize("wrong", [40, -1])
def test_an_id_outside_the_vocabulary_is_refused(wrong):
    with pytest.raises(IndexError, match=f"id {wrong} is not among the vocabulary's 40"):
        divergence_of_top(torch.randn(2, 40), torch.tensor([[1], [wrong]]), torch.zeros(2, 1), torch.zeros(2), 1.0)


def test_the_operator_is_sound():
    """torch's own checks of a custom operator."""
    ids, log_p, log_rest = teacher(5, 9, 3)
    logits = torch.randn(5, 9, requires_grad=True)
    torch.library.opcheck(torch.ops.ritornello.divergence.default, (logits, ids, log_p.float(), log_rest.float(), 2.0))
