"""Local attention beside transformers 5.23.0's RecurrentGemma attention, on the same weights, the text longer than the window."""

import outside
import pytest
import torch

from ritornello.mixers.base import Context, Place
from ritornello.mixers.window import Window

NAMES = {
    "q.weight": "q_proj.weight",
    "k.weight": "k_proj.weight",
    "v.weight": "v_proj.weight",
    "out.weight": "o_proj.weight",
    "out.bias": "o_proj.bias",
}


@pytest.mark.parametrize("impl", ["loop", "chunk"])
@pytest.mark.parametrize("cuts", [(23,), (1,) * 23, (9, 4, 10)])
def test_window_is_recurrent_gemmas_attention(impl, cuts):
    """Outputs and gradients; in one piece, token by token and in pieces."""
    gold = outside.golden("window")
    mixer = Window(16, Window.Config(window=7, head_dim=4), Place())
    mixer.load_state_dict({ours: gold[f"in.{theirs}"] for ours, theirs in NAMES.items()})
    x, state, outputs = gold["in.x"].requires_grad_(), mixer.init_state(2), []
    for piece in x.split(cuts, 1):
        y, state = mixer(piece, state, Context(impl=impl))
        outputs.append(y)
    y = torch.cat(outputs, 1)
    outside.close(y, gold["out.y"])
    weights = dict(mixer.named_parameters())
    grads = torch.autograd.grad(outside.weighted({"y": y}), [x, *weights.values()])
    for name, grad in zip(["x", *(NAMES[name] for name in weights)], grads, strict=True):
        outside.close(grad, gold[f"grad.{name}"], 1e-4)
