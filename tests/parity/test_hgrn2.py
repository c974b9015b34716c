"""HGRN2 beside flash-linear-attention 0.6.0's gated linear attention with the gate equations around it, on the same weights."""

import outside
import pytest
import torch

from ritornello.mixers.base import Context, Place
from ritornello.mixers.hgrn2 import HGRN2, State


@pytest.mark.parametrize("impl", ["loop", "chunk"])
def test_hgrn2_is_gated_linear_attention_with_its_gate_equations(impl):
    """Inputs, weights, end states and gradients of two stacked mixers agree with the outside recurrence (it is float32 throughout)."""
    gold = outside.golden("hgrn2")
    layers = [HGRN2(16, HGRN2.Config(head_dim=8), Place(nth, 2, nth, 2)) for nth in (0, 1)]
    ours = {f"{nth}.{name}": getattr(layer, name).weight for nth, layer in enumerate(layers) for name in ("q", "f", "v", "out", "norm")}
    ours["rise"] = layers[0].rise
    with torch.no_grad():
        for name, weight in ours.items():
            weight.copy_(gold[f"in.{name}"])
    inputs = {name: gold[f"in.{name}"].requires_grad_() for name in ("x", "0.S", "1.S")}
    x, context, outputs = inputs["x"], Context(impl=impl), {}
    for nth, layer in enumerate(layers):
        x, state = layer(x, State(inputs[f"{nth}.S"]), context)
        outputs[f"{nth}.end"] = state.S
    outputs = {"y": x, **outputs}
    for name, value in outputs.items():
        outside.close(value, gold[f"out.{name}"])
    leaves = ours | inputs
    for name, grad in zip(leaves, torch.autograd.grad(outside.weighted(outputs), list(leaves.values())), strict=True):
        outside.close(grad, gold[f"grad.{name}"], 1e-4)
