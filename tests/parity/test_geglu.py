"""GeGLU beside transformers 5.23.0's RecurrentGemma, and the GELU layer beside torch's own modules, on the same weights."""

import outside
import pytest
import torch
from torch import nn

from ritornello.mixers.base import Context, Empty, Place
from ritornello.mixers.geglu import GeGLU
from ritornello.mixers.gelu import GELU


def test_geglu_is_recurrent_gemmas():
    gold = outside.golden("geglu")
    mixer = GeGLU(16, GeGLU.Config(hidden=24), Place())
    names = {name: name.replace(".", "_proj.") for name, _ in mixer.named_parameters()}
    mixer.load_state_dict({ours: gold[f"in.{theirs}"] for ours, theirs in names.items()})
    x = gold["in.x"].requires_grad_()
    y, _ = mixer(x, Empty(), Context())
    outside.close(y, gold["out.y"])
    weights = dict(mixer.named_parameters())
    grads = torch.autograd.grad(outside.weighted({"y": y}), [x, *weights.values()])
    for name, grad in zip(["x", *(names[weight] for weight in weights)], grads, strict=True):
        outside.close(grad, gold[f"grad.{name}"], 1e-4)


@pytest.mark.parametrize(("activation", "approximate"), [("gelu", "none"), ("gelu_tanh", "tanh")])
@pytest.mark.parametrize("bias", [False, True])
def test_gelu_is_torchs(activation, approximate, bias):
    mixer = GELU(16, GELU.Config(hidden=24, activation=activation, bias=bias), Place()).double()
    theirs = nn.Sequential(nn.Linear(16, 24, bias=bias), nn.GELU(approximate), nn.Linear(24, 16, bias=bias)).double()
    theirs.load_state_dict({name.replace("up", "0").replace("down", "2"): weight for name, weight in mixer.state_dict().items()})
    x = 3 * torch.randn(2, 5, 16, dtype=torch.float64)
    (y, _), wanted = mixer(x, Empty(), Context()), theirs(x)
    torch.testing.assert_close(y, wanted, rtol=1e-12, atol=1e-12)
    grads = (torch.autograd.grad(out.square().sum(), list(module.parameters())) for out, module in ((y, mixer), (wanted, theirs)))
    for found, expected in zip(*grads, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)
