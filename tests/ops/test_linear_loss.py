"""The vocabulary's cross-entropy by the kernel and in chunks, beside torch's own in float64: nats and gradients at any size."""

import ctypes
import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from ritornello._native.library import library
from ritornello.ops import native_loss
from ritornello.ops.linear_loss import chunked, cross_entropy

native = pytest.mark.skipif(not isinstance(library(), ctypes.CDLL), reason=str(library()))
rows = st.sampled_from([0, 1, 2, 5, 33])
vocabularies = st.sampled_from([1, 2, 3, 15, 16, 17, 63, 64, 65, 257, 1000])
shares = st.sampled_from([0.0, 0.3, 1.0])  # of targets that are not scored


def targets_of(N: int, V: int, ignored: float) -> torch.Tensor:
    return torch.where(torch.rand(N) < ignored, -100, torch.randint(V, (N,)))


def by_torch(logits, targets):
    """Summed nats and the gradient of the logits, in float64."""
    logits = logits.detach().double().requires_grad_()
    nats = F.cross_entropy(logits, targets, ignore_index=-100, reduction="sum")
    return nats.detach(), torch.autograd.grad(nats, logits)[0]


@native
@given(N=rows, V=vocabularies, ignored=shares, scale=st.sampled_from([0.0, 1.0, 30.0, 1e4]), narrow=st.booleans())
def test_the_kernel_is_torchs_cross_entropy(N, V, ignored, scale, narrow):
    logits = (torch.randn(N, V) * scale).to(torch.bfloat16 if narrow else torch.float32).requires_grad_()
    targets = targets_of(N, V, ignored)
    wanted, d_wanted = by_torch(logits, targets)
    assert native_loss.against(logits) is None
    nats = cross_entropy(logits, targets)
    assert nats.dtype == torch.float32
    torch.testing.assert_close(nats.detach().double(), wanted, rtol=2e-6, atol=1e-5)
    gradient = torch.autograd.grad(3 * nats, logits)[0]
    assert gradient.dtype == logits.dtype
    torch.testing.assert_close(gradient.double() / 3, d_wanted, rtol=4e-3 if narrow else 1e-6, atol=1e-6)


@native
def test_each_row_has_its_nats_and_its_own_share_of_the_gradient():
    logits, targets, weights = torch.randn(7, 50, requires_grad=True), targets_of(7, 50, 0.3), torch.randn(7)
    results = []
    for function in (native_loss.cross_entropy, lambda x, t: F.cross_entropy(x, t, ignore_index=-100, reduction="none")):
        nats = function(logits, targets)
        results.append([nats, torch.autograd.grad((nats * weights).sum(), logits)[0]])
    for found, wanted in zip(*results, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-6, atol=1e-6)


@native
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_is_no_number_is_not_hidden(value):
    logits = torch.randn(3, 40)
    logits[1, 7] = value
    assert not native_loss.cross_entropy(logits, torch.tensor([0, 1, 2]))[1].isfinite()
    assert cross_entropy(logits, torch.tensor([0, -100, 2])).isfinite()  # a row that is not scored has no say


@native
def test_impossible_ids_have_no_probability():
    logits = torch.randn(4, 33)
    logits[:, 5:20] = -math.inf
    torch.testing.assert_close(
        cross_entropy(logits, torch.tensor([0, 1, 2, 30])), F.cross_entropy(logits, torch.tensor([0, 1, 2, 30]), reduction="sum")
    )
    gradient = native_loss.into_gradient(logits, torch.zeros(4, dtype=torch.int64))
    assert gradient.isfinite().all()
    assert (logits[:, 5:20] == 0).all()


@native
@pytest.mark.parametrize("target", [40, -1, -101])
def test_a_target_outside_the_vocabulary_is_refused(target):
    with pytest.raises(IndexError, match=f"target {target} is not among the vocabulary's 40"):
        cross_entropy(torch.randn(2, 40), torch.tensor([3, target]))


@native
def test_layout_and_threads_change_no_bit():
    logits, targets = torch.randn(90, 2, 37)[:, 1], torch.randint(37, (90, 2))[:, 0]
    results = []
    for threads, x in ((1, logits.contiguous()), (3, logits)):
        torch.set_num_threads(threads)
        x = x.detach().requires_grad_()
        nats = cross_entropy(x, targets)
        results.append([nats, torch.autograd.grad(nats, x)[0]])
    torch.set_num_threads(1)
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


@native
def test_the_operator_is_sound():
    """torch's own checks of a custom operator."""
    logits = torch.randn(5, 9, requires_grad=True)
    torch.library.opcheck(torch.ops.ritornello.cross_entropy.default, (logits, torch.tensor([0, 8, -100, 3, 3])))


def test_what_the_kernel_cannot_do_is_said():
    assert native_loss.against(torch.randn(2, 3, dtype=torch.float64)) == "logits are float64"
    assert native_loss.against(torch.randn(2, 3, device="meta")) == "logits are on meta"


@given(
    N=rows, V=st.sampled_from([1, 17, 64, 130]), ignored=shares, chunk=st.sampled_from([1, 4, 100]), cap=st.sampled_from([None, 2.0]),
    impl=st.sampled_from(["auto", "loop"]), dtype=st.sampled_from([torch.float32, torch.float64]),
)  # fmt: skip
def test_chunks_are_the_whole(N, V, ignored, chunk, cap, impl, dtype):
    x, w = torch.randn(N, 12, dtype=torch.float64), torch.randn(V, 12, dtype=torch.float64)
    targets = targets_of(N, V, ignored)
    results = []
    for kind in (torch.float64, dtype):
        leaves = [each.to(kind).requires_grad_() for each in (x, w)]
        if kind == torch.float64 and not results:
            logits = leaves[0] @ leaves[1].mT
            nats = F.cross_entropy(logits if cap is None else cap * torch.tanh(logits / cap), targets, ignore_index=-100, reduction="sum")
        else:
            nats = chunked(*leaves, targets, chunk, cap, impl)
        results.append([nats.detach(), *torch.autograd.grad(-2 * nats, leaves)])
    exact = dtype == torch.float64
    for wanted, found in zip(*results, strict=True):
        assert found.dtype == dtype
        torch.testing.assert_close(found.double(), wanted, rtol=1e-10 if exact else 2e-5, atol=1e-10 if exact else 2e-5)


def test_chunks_respect_autocast():
    x, w, targets = torch.randn(40, 16, requires_grad=True), torch.randn(70, 16, requires_grad=True), torch.randint(70, (40,))
    results = []
    for run in (lambda: cross_entropy(F.linear(x, w), targets), lambda: chunked(x, w, targets, 16)):
        with torch.autocast("cpu", torch.bfloat16):
            nats = run()
        assert nats.dtype == torch.float32
        results.append([nats.detach(), *torch.autograd.grad(nats, [x, w])])
    for wanted, found in zip(*results, strict=True):
        assert found.dtype == torch.float32
        assert (found - wanted).norm() < 1e-2 * wanted.norm()
    assert not torch.equal(results[0][0], cross_entropy(F.linear(x, w), targets))  # autocast was on
