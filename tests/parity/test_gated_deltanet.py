"""Gated DeltaNet beside flash-linear-attention 0.6.0's recurrence and beside Qwen3-Next's block in transformers 5.23.0."""

import outside
import pytest
import torch
from torch import Tensor

from ritornello.mixers.base import Context, Place
from ritornello.mixers.gated_deltanet import GatedDeltaNet, State

CONFIG = {"head_dim": 4, "heads": 2}
both = pytest.mark.parametrize("impl", ["loop", "chunk"])


@both
def test_it_is_the_outside_recurrence_with_its_layer_around_it(impl):
    """Outputs, end state and gradients from a warm state, signed eigenvalues."""
    gold = outside.golden("gated_deltanet")
    mixer = GatedDeltaNet(16, GatedDeltaNet.Config(eigenvalues="signed", **CONFIG), Place())
    weights = outside.copied(mixer, gold)
    inputs = {name: gold[f"in.{name}"].requires_grad_() for name in ("x", "S", "past")}
    y, state = mixer(inputs["x"], State(inputs["S"], inputs["past"]), Context(impl=impl))
    outside.agree(weights | inputs, {"y": y, "end": state.S}, gold)


@both
def test_it_is_qwen3_nexts(impl):
    """Outputs, end state and gradients; and token by token, what the outside decodes by its cache."""
    gold = ours(outside.golden("gated_deltanet_qwen3"))
    mixer = GatedDeltaNet(16, GatedDeltaNet.Config(**CONFIG), Place())
    weights, x = outside.copied(mixer, gold), gold["in.x"].requires_grad_()
    y, state = mixer(x, mixer.init_state(2), Context(impl=impl))
    outside.agree(weights | {"x": x}, {"y": y, "end": state.S}, gold)
    state, outputs = mixer.init_state(2), []
    with torch.no_grad():
        for piece in x.split([5, *[1] * 32], 1):
            y, state = mixer(piece, state, Context(impl=impl))
            outputs.append(y)
    outside.close(torch.cat(outputs, 1), gold["decoded"])


def ours(gold: dict[str, Tensor]) -> dict[str, Tensor]:
    """Our names: theirs keep q, k, v and z of a head together, and b and a."""
    named = {name.replace("conv1d", "conv").replace("out_proj", "out"): tensor for name, tensor in gold.items()}
    for kind in ("in", "grad"):
        parts = named.pop(f"{kind}.in_proj_qkvz.weight").unflatten(0, (2, -1)).split([4, 4, 8, 8], 1)
        parts += named.pop(f"{kind}.in_proj_ba.weight").unflatten(0, (2, -1)).chunk(2, 1)
        for name, part in zip(("q", "k", "v", "gate", "beta", "a"), parts, strict=True):
            named[f"{kind}.{name}.weight"] = part.flatten(0, 1)
    return named
