"""The kernels beside the float64 loops: outputs, end states and every gradient, whatever the sizes, resets and layouts."""

import ctypes
from functools import partial

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from ritornello._native.library import library
from ritornello.ops.conv import conv
from ritornello.ops.delta import delta
from ritornello.ops.outer import outer
from ritornello.ops.scan import scan, scan_complex
from ritornello.ops.selective import selective

pytestmark = pytest.mark.skipif(not isinstance(library(), ctypes.CDLL), reason=str(library()))

lengths = st.sampled_from([0, 1, 2, 3, 4, 5, 15, 16, 17, 31, 32, 33, 67])
widths = st.sampled_from([1, 3, 8, 16, 33, 70])
shares = st.sampled_from([None, 0.0, 0.1, 1.0])
gates = st.sampled_from([(0.0, 1.0), (-14.0, 1.0), (14.0, 1.0), (0.0, 6.0)])  # the mean and spread of the logits: 1e-6 and 1 - 1e-6 too


def compare(op, inputs, state, reset, *, tolerance=2e-6, gate=None, chosen=True):
    """Native float32 against the float64 loop; `gate` names the input whose gradient is a difference of sums and may lose digits.

    `chosen`: whether `auto` takes the kernel whatever the size.
    """
    results = []
    for impl, dtype in (("loop", torch.float64), ("native", torch.float32)):
        leaves = [None if each is None else each.detach().clone().to(dtype).requires_grad_() for each in (*inputs, state)]
        assert impl == "loop" or not chosen or op.choose(*leaves[:-1]) == "native"
        y, end = op(*leaves[:-1], state=leaves[-1], reset=reset, impl=impl)
        given_leaves = [leaf for leaf in leaves if leaf is not None]
        grads = torch.autograd.grad(y.square().sum() + (end * state.to(dtype)).sum(), given_leaves, allow_unused=True)
        results.append(
            [y, end, *(torch.zeros_like(leaf) if grad is None else grad for grad, leaf in zip(grads, given_leaves, strict=True))]
        )
    for place, (wanted, found) in enumerate(zip(*results, strict=True)):
        assert found.isfinite().all()
        difference = (found.detach().double() - wanted.detach()).norm()
        bound = tolerance * (50 if place == gate else 1)
        assert difference <= bound * (wanted.detach().norm() + 1), (place, float(difference / (wanted.detach().norm() + 1)))


def normal(*shape):
    return torch.randn(*shape, dtype=torch.float64)


def decays(gate, *shape):
    mean, spread = gate
    return torch.nn.functional.logsigmoid(normal(*shape) * spread + mean)


def resets(share, *shape):
    return None if share is None else torch.rand(*shape) < share


@given(T=lengths, K=widths, V=widths, one=st.booleans(), bonus=st.booleans(), share=shares, gate=gates)
@example(T=67, K=70, V=70, one=False, bonus=False, share=0.1, gate=(0.0, 1.0))  # several blocks of rows and columns
@example(T=67, K=70, V=70, one=True, bonus=True, share=0.1, gate=(0.0, 1.0))
def test_outer(T, K, V, one, bonus, share, gate):
    B, H = 2, 3
    inputs = (
        normal(B, T, H, K),
        normal(B, T, H, K),
        normal(B, T, H, V),
        decays(gate, B, T, H, 1 if one else K),
        normal(H, K) if bonus else None,
    )
    compare(outer, inputs, normal(B, H, K, V), resets(share, B, T), gate=5)


@given(T=lengths, N=widths, same=st.booleans(), signed=st.booleans(), share=shares, gate=gates, numbers=st.booleans())
def test_scan(T, N, same, signed, share, gate, numbers):
    B, tail = 3, (N, 2) if numbers else (N,)
    a = decays(gate, *((1, 1) if same else (B, T)), *tail).exp() * (0.7 if numbers else 1.0)
    if signed:
        a = a * torch.where(torch.rand_like(a) < 0.5, -1.0, 1.0)
    compare(scan_complex if numbers else scan, (a, normal(B, T, *tail)), normal(B, *tail), resets(share, B, T))


@given(T=lengths, D=widths, N=st.sampled_from([1, 4, 16]), share=shares, fast=st.sampled_from([1e-4, 0.1, 30.0]))
def test_selective(T, D, N, share, fast):
    B = 2
    inputs = (normal(B, T, D), torch.rand(B, T, D, dtype=torch.float64) * fast, -torch.rand(D, N, dtype=torch.float64) * N)
    compare(selective, (*inputs, normal(B, T, N), normal(B, T, N)), normal(B, D, N), resets(share, B, T), tolerance=1e-5)


@given(T=lengths, K=widths, V=widths, decay=st.sampled_from([None, 1, "K"]), share=shares, gate=gates)
def test_delta(T, K, V, decay, share, gate):
    B, H = 2, 2
    q, k, p = (torch.nn.functional.normalize(normal(B, T, H, K), dim=-1) for _ in range(3))
    r = p * torch.rand(B, T, H, 1, dtype=torch.float64) * 1.5
    g = None if decay is None else decays(gate, B, T, H, K if decay == "K" else 1)
    compare(delta, (q, k, normal(B, T, H, V), r, p, g), normal(B, H, K, V), resets(share, B, T), tolerance=1e-5, gate=7)


@given(T=lengths, D=widths, W=st.integers(2, 6), bias=st.booleans(), share=shares)
@example(T=200, D=70, W=4, bias=True, share=0.01)  # several blocks of tokens
def test_conv(T, D, W, bias, share):
    B = 2
    inputs = (normal(B, T, D), normal(D, W), normal(D) if bias else None)
    compare(conv, inputs, normal(B, W - 1, D), resets(share, B, T), chosen=False)


def test_conv_takes_numbers_as_narrow_as_they_come():
    """bfloat16 in and out, summed in float32: the loop's own result, rounded once; gradients too."""
    x, weight, bias, past, dy = (torch.randn(*shape) for shape in ((4, 150, 40), (40, 4), (40,), (4, 3, 40), (4, 150, 40)))
    reset = torch.rand(4, 150) < 0.05
    assert conv.choose(x.bfloat16(), weight, bias) == "native"
    results = []
    for impl in ("native", "loop"):
        narrow = x.bfloat16().requires_grad_()
        leaves = [each.clone().requires_grad_() for each in (weight, bias, past)]
        y, end = conv(narrow, *leaves[:2], state=leaves[2], reset=reset, impl=impl)
        assert (y.dtype, end.dtype) == (torch.bfloat16, torch.float32)
        results.append([y, end, *torch.autograd.grad((y * dy.bfloat16()).float().sum() + end.sum(), [narrow, *leaves])])
    for found, wanted in zip(*results, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-2 if found.dtype == torch.bfloat16 else 1e-4, atol=1e-3)


@pytest.mark.parametrize("threads", [2, 5])
def test_threads_change_no_bit_of_a_convolution(threads):
    x, weight, bias, past = (torch.randn(*shape) for shape in ((3, 200, 40), (40, 4), (40,), (3, 3, 40)))
    results = []
    for count in (1, threads):
        torch.set_num_threads(count)
        leaves = [each.clone().requires_grad_() for each in (x, weight, bias, past)]
        y, end = conv(*leaves[:3], state=leaves[3], reset=torch.zeros(3, 200, dtype=torch.bool), impl="native")
        results.append([y, end, *torch.autograd.grad(y.square().sum() + end.sum(), leaves)])
    torch.set_num_threads(1)
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_threads_change_no_bit(threads):
    q, k, v, S = (torch.randn(*shape) for shape in ((3, 40, 2, 20), (3, 40, 2, 20), (3, 40, 2, 50), (3, 2, 20, 50)))
    g = torch.nn.functional.logsigmoid(torch.randn(3, 40, 2, 20)).requires_grad_()
    results = []
    for count in (1, threads):
        torch.set_num_threads(count)
        y, end = outer(q, k, v, g, None, state=S, impl="native")
        results.append([y, end, *torch.autograd.grad(y.square().sum() + end.sum(), g)])
    torch.set_num_threads(1)
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


@pytest.mark.parametrize("bonus", [False, True])
@pytest.mark.parametrize("one", [False, True])
def test_gates_at_their_very_ends(one, bonus):
    """Open, shut, and shut for ever, by turns: within a chunk and across many."""
    B, T, H, K, V = 2, 50, 2, 9, 20
    ends = torch.tensor([0.0, -1e-6, -100.0, -torch.inf], dtype=torch.float64)
    g = ends[torch.multinomial(torch.tensor([0.6, 0.2, 0.1, 0.1]), B * T * H * (1 if one else K), replacement=True)].view(B, T, H, -1)
    inputs = (normal(B, T, H, K), normal(B, T, H, K), normal(B, T, H, V), g, normal(H, K) if bonus else None)
    compare(outer, inputs, normal(B, H, K, V), resets(0.05, B, T), gate=5)


@pytest.mark.parametrize("T", [2, 16, 40])
@pytest.mark.parametrize("value", [torch.inf, torch.nan])
def test_no_token_sees_a_broken_value_to_come(T, value):
    """Infinite or no number: it breaks what reads it, as in the loop, and nothing before it or beside it."""
    q, k, v, S = (torch.randn(*shape) for shape in ((1, T, 1, 8), (1, T, 1, 8), (1, T, 1, 40), (1, 1, 8, 40)))
    g = -torch.rand_like(q)
    v[:, T // 2, :, 3] = value
    (y, end), (wanted, wanted_end) = (outer(q, k, v, g, None, state=S, impl=impl) for impl in ("native", "loop"))
    torch.testing.assert_close(y, wanted, equal_nan=True, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(end, wanted_end, equal_nan=True, rtol=1e-4, atol=1e-4)
    assert y[:, : T // 2].isfinite().all()


def test_inputs_may_lie_anyhow():
    """Transposed, expanded and sliced inputs, and gradients that are expanded, give what contiguous ones give."""
    q = torch.randn(2, 3, 9, 8).transpose(1, 2)
    k, v = torch.randn(2, 9, 1, 8).expand(2, 9, 3, 8), torch.randn(2, 9, 3, 20)[..., ::2]
    g = -torch.rand(1, 1, 1, 1).expand(2, 9, 3, 1)
    S = torch.randn(2, 3, 10, 8).mT
    wanted, found = (
        outer(*(form(each).requires_grad_() for each in (q, k, v, g)), None, state=form(S), impl="native")
        for form in (lambda x: x.clone(memory_format=torch.contiguous_format), lambda x: x.detach())
    )
    for a, b in zip(wanted, found, strict=True):
        assert torch.equal(a, b)


def test_a_long_text_at_open_gates_keeps_its_digits():
    B, T, H, K = 1, 4096, 1, 16
    inputs = (normal(B, T, H, K), normal(B, T, H, K), normal(B, T, H, K), torch.full((B, T, H, K), -1e-6, dtype=torch.float64), None)
    compare(outer, inputs, normal(B, H, K, K), None, tolerance=1e-4, gate=5)  # 1 - 1e-6 itself is only so good in float32


@pytest.mark.parametrize("op", [outer, delta])
def test_a_reset_is_a_mask(op):
    """What lies before a reset, infinite or not, leaves nothing behind."""
    q, k, v = (torch.randn(2, 12, 2, n) for n in (8, 8, 10))
    rest = (torch.zeros_like(q), None) if op is outer else (k, k, None)
    state, reset = torch.randn(2, 2, 8, 10), torch.zeros(2, 12, dtype=torch.bool)
    reset[:, 5] = True
    other = v.clone()
    other[:, :5] = float("inf")
    (y, end), (y_other, end_other) = (op(q, k, each, *rest, state=state, reset=reset, impl="native") for each in (v, other))
    assert torch.equal(y[:, 5:], y_other[:, 5:])
    assert torch.equal(end, end_other)


def test_what_the_kernels_cannot_do_is_said():
    wide = (normal(1, 3, 1, 2), normal(1, 3, 1, 2), normal(1, 3, 1, 2), -normal(1, 3, 1, 2).abs(), None)
    assert "native: inputs are float64" in outer.explain(*wide)
    assert outer.explain(*(None if each is None else each.float() for each in wide)).startswith("native; ")
    meta = [each.to("meta", torch.float32) for each in wide[:4]]
    assert "native: inputs are on meta" in outer.explain(*meta, None)


@pytest.mark.parametrize("name", ["outer", "scan", "selective", "softmax_scan", "delta", "conv"])
def test_operators_are_sound(name):
    """torch's own checks of a custom operator: schema, fake tensors, autograd registration, compile."""
    B, T, H, K = 1, 5, 2, 4
    keys = [torch.randn(B, T, H, K, requires_grad=True) for _ in range(5)]
    vectors = torch.randn(B, T, 3), torch.randn(B, T, 3)
    x, dt = (each.detach().flatten(2).abs().requires_grad_() for each in keys[:2])
    calls = {
        "outer": (*keys[:3], -keys[3].detach().abs(), torch.randn(B, H, K, K), None, False),
        "scan": (keys[0].detach().sigmoid().requires_grad_(), keys[1], torch.randn(B, H, K), None, False),
        "selective": (x, dt, -torch.rand(3, 8), *vectors, torch.zeros(B, 3, 8), None),
        "softmax_scan": (*keys[:2], torch.rand(H, K), torch.randn(H, K), *(torch.rand(B, H, K) for _ in range(3)), None),
        "conv": (x, torch.randn(4, 8, requires_grad=True), torch.randn(8), torch.zeros(B, 3, 8), None),
        "delta": (*keys, -torch.rand(B, T, H, 1), torch.randn(B, H, K, K), None),
    }  # fmt: skip
    import ritornello.ops.native_conv
    import ritornello.ops.native_scans  # noqa: F401

    torch.library.opcheck(getattr(torch.ops.ritornello, name).default, calls[name])


@pytest.mark.filterwarnings("ignore:The .grad attribute")  # torch's compiler looks
def test_a_model_compiles_around_the_kernels():
    from ritornello.mixers.base import Context, Place
    from ritornello.mixers.hgrn2 import HGRN2

    mixer = HGRN2(32, HGRN2.Config(head_dim=16), Place())
    x, state = torch.randn(2, 24, 32, requires_grad=True), mixer.init_state(2)
    results = []
    for run in (mixer, torch.compile(partial(mixer), backend="aot_eager", fullgraph=True)):
        y, _ = run(x, state, Context())
        results.append([y, *torch.autograd.grad(y.square().sum(), [x, *mixer.parameters()])])
    for found, wanted in zip(*results, strict=True):
        torch.testing.assert_close(found, wanted)
