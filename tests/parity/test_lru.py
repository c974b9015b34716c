"""LRU beside the equations of its paper, transcribed to NumPy, and beside a convolution; and what its initialisation promises."""

import numpy as np
import paper
import paper_lru
import pytest
import torch

from ritornello.mixers.base import Context, Place
from ritornello.mixers.lru import LRU, State


@pytest.mark.parametrize("switches", [{}, {"gamma": False}, {"exponential": False}])
@pytest.mark.parametrize("impl", ["loop", "chunk"])
def test_lru_is_the_papers(impl, switches):
    """Outputs, end state and gradients from a warm state, with a state size of its own; the ablations too."""
    mixer = LRU(6, LRU.Config(state_dim=5, **switches), Place()).double()
    x, h = (torch.randn(*shape, dtype=torch.float64, requires_grad=True) for shape in ((2, 19, 6), (2, 5, 2)))

    def ours():
        y, state = mixer(x, State(h), Context(impl=impl))
        return {"y": y, "end": state.h}

    plain = {"plain": not switches.get("exponential", True)}
    paper.agree(ours, lambda w: paper_lru.lru(w | plain), {**dict(mixer.named_parameters()), "x": x, "h": h})


def test_it_is_a_convolution():
    mixer, x = LRU(6, LRU.Config(), Place()).double(), torch.randn(2, 50, 6, dtype=torch.float64)
    y, _ = mixer(x, mixer.init_state(2), Context())
    weights = {name: weight.detach().numpy() for name, weight in mixer.named_parameters()}
    np.testing.assert_allclose(y.detach(), paper_lru.convolved({**weights, "x": x.numpy()}), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("exponential", [True, False])
def test_eigenvalues_start_on_the_ring_that_was_asked_for(exponential):
    mixer = LRU(4, LRU.Config(r_min=0.4, r_max=0.9, max_phase=0.5, state_dim=2000, exponential=exponential), Place())
    real, imaginary = mixer.eigenvalues(torch.float64).detach().unbind(-1)
    size, angle = torch.hypot(real, imaginary), torch.atan2(imaginary, real)
    assert 0.4 - 1e-6 <= size.min() < 0.42
    assert 0.88 < size.max() <= 0.9 + 1e-6
    assert (size.square().mean() - (0.4**2 + 0.9**2) / 2).abs() < 0.02  # uniform in area
    assert angle.min() >= 0
    assert 0.49 < angle.max() <= 0.5 + 1e-6


def test_exponentials_keep_every_eigenvalue_inside_the_circle():
    """Whatever the parameters become, and at the ring's edges; without exponentials nothing does."""
    mixer, free = (LRU(256, LRU.Config(exponential=exponential), Place()) for exponential in (True, False))
    with torch.no_grad():
        free.nu.normal_(0, 3)
        mixer.nu.normal_(0, 3)
    assert (mixer.eigenvalues(torch.float64).norm(dim=-1) < 1).all()
    assert (free.eigenvalues(torch.float64).norm(dim=-1) > 1).any()
    for edge in (LRU.Config(r_min=0.9999999), LRU.Config(r_max=1e-30, max_phase=1e-50)):  # float32 has few numbers or only zero there
        mixer = LRU(256, edge, Place())
        assert all(weight.isfinite().all() for weight in mixer.parameters())
        eigenvalues = mixer.eigenvalues(torch.float32).double()
        assert (eigenvalues.norm(dim=-1) <= 1 + torch.finfo(torch.float32).eps).all()  # each part is rounded


@pytest.mark.parametrize(("r_min", "r_max"), [(0.0, 1.0), (0.9, 0.99)])
def test_white_noise_leaves_a_state_of_its_own_size(r_min, r_max):
    """The variance of |h| stays near the input's at every length, as gamma promises."""
    mixer = LRU(32, LRU.Config(state_dim=256, r_min=r_min, r_max=r_max), Place())
    state = mixer.init_state(8)
    with torch.no_grad():
        for _ in range(4):
            _, state = mixer(torch.randn(8, 200, 32), state, Context())
            assert 0.8 < state.h.square().sum(-1).mean() < 1.2


def test_without_gamma_a_slow_state_grows():
    mixer = LRU(32, LRU.Config(state_dim=256, r_min=0.9, r_max=0.99, gamma=False), Place())
    with torch.no_grad():
        _, state = mixer(torch.randn(8, 400, 32), mixer.init_state(8), Context())
    assert "gamma" not in dict(mixer.named_parameters())
    size = (1 / (1 - mixer.eigenvalues(torch.float64).square().sum(-1))).mean()  # the sum of |lambda|^2t
    assert 0.8 < state.h.square().sum(-1).mean() / size < 1.2


@pytest.mark.parametrize(
    ("config", "words"),
    [({"r_min": 0.9, "r_max": 0.5}, "found radii 0.9 to 0.5 .*; use 0 <= r_min < r_max <= 1"), ({"state_dim": 0}, "0 num")],
)
def test_a_ring_that_is_none_is_refused(config, words):
    with pytest.raises(ValueError, match=words):
        LRU(4, LRU.Config(**config), Place())
