"""GRU beside torch 2.13's own, and with the reset gate before the product beside the equations of Cho et al. 2014."""

import numpy as np
import paper_gru
import pytest
import torch

from ritornello.mixers.base import Context, Place
from ritornello.mixers.gru import GRU, State


@pytest.mark.parametrize("impl", ["loop", "chunk"])
def test_gru_is_torchs(impl):
    """The same weights in a plain torch GRU, from a state that is not zero: outputs, end state, gradients."""
    mixer, theirs = GRU(16, GRU.Config(), Place()).double(), torch.nn.GRU(16, 16, batch_first=True).double()
    theirs.load_state_dict(mixer.gru.state_dict())
    x, h = torch.randn(3, 21, 16, dtype=torch.float64, requires_grad=True), torch.randn(3, 16, dtype=torch.float64, requires_grad=True)
    y, end = theirs(x, h[None])
    for reset in (None, torch.zeros(3, 21, dtype=torch.bool)):
        ours, state = mixer(x, State(h), Context(reset, impl))
        torch.testing.assert_close(ours, y, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(state.h, end[0], rtol=1e-12, atol=1e-12)
        grads = [
            torch.autograd.grad(out.square().sum(), [x, h, *module.parameters()], retain_graph=True)
            for out, module in ((ours, mixer), (y, theirs))
        ]
        for found, wanted in zip(*grads, strict=True):
            torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-10)


def test_the_original_is_the_papers():
    """Outputs and end state from a warm state; the gradient in three directions of the input, by differences."""
    mixer, random = GRU(6, GRU.Config(reset_after=False), Place()).double(), np.random.default_rng(1)
    W, U, b, other = (weight.detach().numpy() for weight in mixer.gru.parameters())
    w = {
        name: part
        for kind, whole in (("W", W), ("U", U), ("b", b + other))
        for name, part in zip(names(kind), np.split(whole, 3), strict=True)
    }
    xs, h = random.normal(size=(9, 6)), random.normal(size=6)
    x = torch.tensor(xs)[None].requires_grad_()
    y, end = mixer(x, State(torch.tensor(h)[None]), Context())
    want = paper_gru.unit(w, xs, h)
    np.testing.assert_allclose(y[0].detach(), want, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(end.h[0].detach(), want[-1], rtol=1e-12, atol=1e-12)

    grad = torch.autograd.grad(y.square().sum(), x)[0][0].numpy()
    for direction in random.normal(size=(3, 9, 6)):
        up, down = ((paper_gru.unit(w, xs + step * direction, h) ** 2).sum() for step in (1e-5, -1e-5))
        np.testing.assert_allclose((grad * direction).sum(), (up - down) / 2e-5, rtol=1e-6)


def names(kind: str) -> list[str]:
    """Of the parts of a weight, in torch's order."""
    return [f"{kind}_r", f"{kind}_z", kind]
