"""RetNet, gated linear attention, Mamba-2, mLSTM, RWKV-5/6, HGRN2: the laws for what switches make, how they start, what they refuse."""

import math

import pytest
import torch
from laws import DIM, Alone, assert_same, lively, requires_grad, total, warm
from torch import nn

from ritornello.errors import InputError
from ritornello.mixers import mixer
from ritornello.mixers.base import Context, Place
from ritornello.mixers.mlstm import NOTHING_YET, running_max
from ritornello.mixers.retnet import fading
from ritornello.state import named_leaves

VARIANTS = {
    "retnet values as wide as keys": ("retnet", {"head_dim": 4, "expand": 1}),
    "gla one head": ("gla", {"heads": 1, "rank": 3}),
    "mamba2 groups, biases, limited steps": ("mamba2", {"head_dim": 8, "groups": 2, "state_dim": 5, "bias": True, "dt_limit": (0.5, 2.0)}),
    "mamba2 no bias": ("mamba2", {"head_dim": 4, "state_dim": 3, "conv_bias": False, "conv": 2, "expand": 1}),
    "mlstm exponential forget gate": ("mlstm", {"forget": "exp"}),
    "mlstm one wide head": ("mlstm", {"heads": 1, "expand": 3, "conv": 2}),
    "hgrn2 short convolutions": ("hgrn2", {"head_dim": 8, "conv": 3}),
    "rwkv5": ("rwkv6", {"dynamic": False, "head_dim": 8}),
}
every = pytest.mark.parametrize("name", VARIANTS)


def build(kind: str, settings: dict, place: Place | None = None):
    return mixer(kind)(DIM, mixer(kind).Config(**settings), place or Place())


class Variant(Alone):
    def __init__(self, name: str):
        nn.Module.__init__(self)
        self.mixer = build(*VARIANTS[name])


@every
@pytest.mark.parametrize("share", [None, 0.1, 0.9])
def test_split_and_gradients(name, share):
    """Whole and in pieces, in chunks and in the loop: the same outputs, end states and gradients, and every weight counts."""
    module, x = lively(Variant(name)), torch.randn(3, 37, DIM, dtype=torch.float64)
    reset = None if share is None else torch.rand(3, 37, generator=torch.Generator().manual_seed(4)) < share
    state, results = warm(module), []
    for impl, cuts in (("loop", [37]), ("chunk", [37]), ("auto", [1, 17, 2, 17])):
        inputs, before = x.clone().requires_grad_(), requires_grad(state)
        after, outputs = before, []
        for part, mask in zip(inputs.split(cuts, 1), [None] * len(cuts) if reset is None else reset.split(cuts, 1), strict=True):
            y, after = module(part, after, mask, impl)
            outputs.append(y)
        leaves = [inputs, *(leaf for _, leaf in named_leaves(before) if leaf.is_floating_point()), *module.parameters()]
        y = torch.cat(outputs, 1)
        results.append([y, *(leaf for _, leaf in named_leaves(after)), *torch.autograd.grad(total(y, after), leaves)])
        names = [weight for weight, _ in module.named_parameters()]
        found = zip(names, results[-1][-len(names) :], strict=True)
        assert all(grad.any() for weight, grad in found if weight != "mixer.rise")  # HGRN2's lowest floor is zero whatever it is
    for got in results[1:]:
        for a, b in zip(got, results[0], strict=True):
            assert_same(a, b, 1e-8)


@every
def test_gradients_are_the_differences(name):
    module = lively(Variant(name))
    x, before = torch.randn(3, 4, DIM, dtype=torch.float64, requires_grad=True), warm(module)
    names, weights = zip(*module.named_parameters(), strict=True)
    reset = torch.zeros(3, 4, dtype=torch.bool)
    reset[1, 2] = True

    def run(x, *weights):
        return total(*torch.func.functional_call(module, dict(zip(names, weights, strict=True)), (x, before, reset)))

    assert torch.autograd.gradcheck(run, (x, *weights), fast_mode=True, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("kind", ["retnet", "gla", "mamba2", "mlstm", "rwkv6"])
def test_no_tokens_change_nothing(kind):
    module = build(kind, {})
    _, state = module(torch.randn(2, 5, DIM), module.init_state(2), Context())
    for reset in (None, torch.zeros(2, 0, dtype=torch.bool)):
        y, same = module(torch.zeros(2, 0, DIM), state, Context(reset))
        assert y.shape == (2, 0, DIM)
        assert all(torch.equal(a, b) for (_, a), (_, b) in zip(named_leaves(same), named_leaves(state), strict=True))


@pytest.mark.parametrize("share", [None, 0.2])
@pytest.mark.parametrize("T", [1, 2, 3, 31, 64])
def test_the_running_maximum_is_the_papers(T, share):
    """Step by step, m_t = max(log f_t + m_{t-1}, log i_t), from a fresh m at resets; steps of -1e4 lose nothing of the others."""
    log_f, log_i = (torch.randn(2, T, 3, dtype=torch.float64) * scale for scale in (1, 5))
    log_f[:, T // 2] = -1e4
    reset = None if share is None else torch.rand(2, T) < share
    for m in (torch.randn(2, 3, dtype=torch.float64), torch.full((2, 3), NOTHING_YET, dtype=torch.float64)):
        before, after = running_max(log_f, log_i, m, reset)
        for t in range(T):
            if reset is not None:
                m = torch.where(reset[:, t, None], NOTHING_YET, m)
            torch.testing.assert_close(before[:, t], m)
            m = torch.maximum(log_f[:, t] + m, log_i[:, t])
            torch.testing.assert_close(after[:, t], m)


@pytest.mark.parametrize("impl", ["loop", "chunk"])
@pytest.mark.parametrize("bias", [-200.0, 0.0, 200.0])
@pytest.mark.parametrize("forget", [-14.0, 14.0])
def test_mlstm_stands_any_gate(impl, bias, forget):
    """Input gates of exp(-200) and exp(200), beyond float32, and forget gates near 1e-6 and 1 - 1e-6: finite, and float64's numbers."""
    module = lively(build("mlstm", {}), torch.float32)
    with torch.no_grad():
        module.i.bias.add_(bias)
        module.f.weight.mul_(0.1)
        module.f.bias.fill_(forget)
    x = torch.randn(2, 40, DIM)
    y, state = module(x, module.init_state(2), Context(impl=impl))
    grads = torch.autograd.grad(total(y, state), list(module.parameters()))
    assert all(tensor.isfinite().all() for tensor in (y, *state, *grads))
    wide = build("mlstm", {}).double()
    wide.load_state_dict(module.state_dict())
    want, end = wide(x.double(), wide.init_state(2), Context(impl=impl))
    torch.testing.assert_close(y.double(), want, rtol=1e-3, atol=1e-3 * float(want.detach().abs().max()))
    torch.testing.assert_close(state.m.double(), end.m, rtol=1e-4, atol=1e-4)


def test_mlstm_divides_in_full_precision(monkeypatch):
    """The two sums that a read is the quotient of are not rounded to the weights' bfloat16 before it."""
    from ritornello.mixers import mlstm

    def spy(*inputs, **settings):
        y, state = plain(*inputs, **settings)
        seen.append(y.dtype)
        return y, state

    plain, seen, module = mlstm.outer, [], lively(build("mlstm", {}), torch.bfloat16)
    monkeypatch.setattr(mlstm, "outer", spy)
    y, _ = module(torch.randn(2, 9, DIM).bfloat16(), module.init_state(2), Context())
    assert seen == [torch.float32]
    assert y.dtype == torch.bfloat16


def test_how_they_start():
    """The documented initialisation, where it is more than a spread."""
    assert fading(3, torch.zeros(1)).exp().flatten().tolist() == pytest.approx([31 / 32, 63 / 64, 127 / 128])
    torch.manual_seed(0)
    mamba2 = mixer("mamba2")(256, mixer("mamba2").Config(head_dim=4), Place())
    dt, rate = nn.functional.softplus(mamba2.dt_bias), mamba2.A_log.exp()
    assert 0.001 <= dt.min() < 0.0015 < 0.05 < dt.max() <= 0.1001
    assert float(dt.detach().log().mean()) == pytest.approx(-2 * math.log(10), abs=0.3)
    assert 1 <= rate.min() < 2 < 15 < rate.max() <= 16
    mlstm = build("mlstm", {})
    assert mlstm.f.bias.tolist() == [3, 4, 5, 6]
    assert not mlstm.f.weight.any()
    assert not mlstm.i.weight.any()
    for nth in (0, 1):
        torch.manual_seed(1)
        finch = build("rwkv6", {"head_dim": 8}, Place(nth, 2, nth, 2))
        eagle = build("rwkv6", {"head_dim": 8, "dynamic": False}, Place(nth, 2, nth, 2))
        eagle.load_state_dict({name: finch.state_dict()[name][: len(value)] for name, value in eagle.state_dict().items()})
        x = torch.randn(2, 9, DIM)
        (y, _), (z, _) = (module(x, module.init_state(2), Context()) for module in (finch, eagle))
        torch.testing.assert_close(y, z)  # the maps of low rank start at zero


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        ("retnet", {"head_dim": 1}, r"RetNet head_dim: 1 is odd"),
        ("retnet", {"head_dim": 6}, r"RetNet dim over head_dim: 16 does not divide into parts of 6; use 12 or 18"),
        ("retnet", {"expand": 0}, r"RetNet expand: 0 leaves no values"),
        ("gla", {"heads": 3}, r"GLA dim over twice the heads: 16 does not divide into parts of 6"),
        ("gla", {"rank": 0}, r"GLA rank: 0 leaves no forget gate"),
        ("mamba2", {"state_dim": 0}, r"Mamba-2: expand 2 and state_dim 0 must both be at least 1"),
        ("mamba2", {"dt_min": 0.2}, r"Mamba-2: dt_min 0.2 and dt_max 0.1 must be positive and in order"),
        ("mamba2", {"dt_limit": (2.0, 1.0)}, r"Mamba-2: dt_limit \(2.0, 1.0\) is not in order"),
        ("mamba2", {"groups": 3}, r"Mamba-2 heads over groups: 2 does not divide into parts of 3"),
        ("mamba2", {"conv": 1}, r"a width of 1 mixes nothing"),
        ("mlstm", {"forget": "tanh"}, r"unknown mLSTM forget gate 'tanh'"),
        ("mlstm", {"heads": 5}, r"mLSTM inner width over heads: 32 does not divide into parts of 5"),
        ("mlstm", {"heads": 0}, r"mLSTM inner width over heads: 32 does not divide into parts of 0"),
        ("rwkv6", {"head_dim": 5}, r"RWKV-6 dim over head_dim: 16 does not divide into parts of 5"),
        ("rwkv6", {"rank": 0}, r"RWKV-6 rank: 0 leaves nothing dynamic"),
    ],
)
def test_what_cannot_be_is_said_in_one_line(kind, settings, message):
    with pytest.raises(InputError, match=message) as caught:
        build(kind, settings)
    assert "\n" not in str(caught.value)
