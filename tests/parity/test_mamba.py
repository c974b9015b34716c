"""Mamba beside transformers 5.23.0's and mambapy 1.2.0's, on the same weights."""

import outside
import pytest
import torch

from ritornello.mixers.base import Context, Place
from ritornello.mixers.mamba import Mamba

NAMES = {"A_log": "A_log", "D": "D"} | {
    f"{ours}.{kind}": f"{theirs}.{kind}"
    for ours, theirs in {"up": "in_proj", "conv": "conv1d", "select": "x_proj", "dt": "dt_proj", "out": "out_proj"}.items()
    for kind in ("weight", "bias")
}
either = pytest.mark.parametrize("name", ["mamba", "mamba_mambapy"])


def mamba(name: str) -> tuple[Mamba, dict]:
    gold = outside.golden(name)
    mixer = Mamba(16, Mamba.Config(state_dim=4, bias="in.out_proj.bias" in gold), Place())
    mixer.load_state_dict({ours: gold[f"in.{theirs}"] for ours, theirs in NAMES.items() if f"in.{theirs}" in gold})
    return mixer, gold


@either
@pytest.mark.parametrize("impl", ["loop", "chunk"])
def test_mamba_is_the_outside_block(name, impl):
    """Outputs, the end state (where theirs has a gradient, in it too) and every gradient."""
    mixer, gold = mamba(name)
    x = gold["in.x"].requires_grad_()
    y, state = mixer(x, mixer.init_state(2), Context(impl=impl))
    outputs = {"y": y} | ({"h": state.h} if "out.h" in gold else {})
    for output, value in outputs.items():
        outside.close(value, gold[f"out.{output}"])
    weights = dict(mixer.named_parameters())
    grads = torch.autograd.grad(outside.weighted(outputs), [x, *weights.values()])
    for key, grad in zip(["x", *(NAMES[weight] for weight in weights)], grads, strict=True):
        outside.close(grad, gold[f"grad.{key}"], 1e-4)


@either
def test_mamba_token_by_token_is_the_outside_decoding(name):
    mixer, gold = mamba(name)
    state, outputs = mixer.init_state(2), []
    for token in gold["in.x"].split(1, 1):
        y, state = mixer(token, state, Context())
        outputs.append(y)
    outside.close(torch.cat(outputs, 1), gold["decoded"])
    if "end.h" in gold:
        outside.close(state.h, gold["end.h"])
        outside.close(state.conv, gold["end.conv"].mT)
