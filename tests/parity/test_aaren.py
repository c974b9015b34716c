"""Aaren beside the recurrence of its paper, transcribed to NumPy, and beside masked softmax attention with the same query."""

import numpy as np
import paper
import paper_aaren
import pytest
import torch

from ritornello.mixers.aaren import Aaren, State
from ritornello.mixers.base import Context, Place

impls = pytest.mark.parametrize("impl", ["loop", "chunk"])


def made() -> Aaren:
    """Two heads in float64, their logits large enough to matter."""
    mixer = Aaren(6, Aaren.Config(head_dim=3), Place()).double()
    with torch.no_grad():
        for weight in mixer.parameters():
            weight.normal_(std=0.7)
    return mixer


@impls
def test_aaren_is_the_papers(impl):
    """Outputs, end state and gradients from a warm state."""
    mixer, leaves = made(), {}
    for name, shape in {"x": (2, 19, 6), "a": (2, 2, 3), "c": (2, 2, 1), "m": (2, 2, 1)}.items():
        leaves[name] = torch.rand(shape, dtype=torch.float64) + 1 if name == "c" else torch.randn(shape, dtype=torch.float64)
        leaves[name].requires_grad_()

    def ours():
        y, state = mixer(leaves["x"], State(m=leaves["m"], num=leaves["a"], den=leaves["c"]), Context(impl=impl))
        return {"y": y, "a": state.num, "c": state.den, "m": state.m}

    paper.agree(ours, paper_aaren.aaren, {**dict(mixer.named_parameters()), **leaves})


@impls
@pytest.mark.parametrize("scale", [1.0, 1e4])
def test_it_is_masked_softmax_attention(impl, scale):
    """In float64 to rounding, in float32 to 1e-6 of the largest output; logits of thousands change nothing."""
    mixer, x = made(), torch.randn(2, 70, 6, dtype=torch.float64)
    with torch.no_grad():
        mixer.q.mul_(scale)
    wanted = paper_aaren.attention({"x": x.numpy(), **{name: weight.detach().numpy() for name, weight in mixer.named_parameters()}})
    y, _ = mixer(x, mixer.init_state(2), Context(impl=impl))
    torch.testing.assert_close(y.detach(), torch.tensor(wanted), rtol=1e-10, atol=1e-10)
    if scale == 1:
        y, _ = mixer.float()(x.float(), mixer.init_state(2), Context(impl=impl))
        np.testing.assert_allclose(y.detach(), wanted, rtol=0, atol=1e-6 * np.abs(wanted).max())
