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


def test_its_convolutions_stand_between_the_maps_and_the_gates():
    """By hand, from nothing: three filters without bias or activation, then the formula token by token."""
    layer = HGRN2(8, HGRN2.Config(head_dim=8, conv=3), Place()).double()
    for weight in layer.parameters():
        torch.nn.init.normal_(weight, std=0.5)
    x = torch.randn(1, 9, 8, dtype=torch.float64)
    q, f, v = (
        torch.nn.functional.conv1d(linear(x).mT, conv.weight, padding=2, groups=8).mT[0, :9]
        for linear, conv in ((layer.q, layer.q_conv), (layer.f, layer.f_conv), (layer.v, layer.v_conv))
    )
    S, wanted = torch.zeros(8, 8, dtype=torch.float64), []
    for q_t, f_t, v_t in zip(q, f.sigmoid(), v, strict=True):
        S = f_t[:, None] * S + torch.outer(1 - f_t, v_t)
        wanted.append(S.mT @ (torch.nn.functional.silu(q_t) / 8**0.5))
    y, state = layer(x, layer.init_state(1), Context())
    torch.testing.assert_close(y[0], layer.out(layer.norm(torch.stack(wanted))), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(state.S[0, 0], S, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(state.v, layer.v(x)[:, -2:])
