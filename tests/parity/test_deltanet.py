"""DeltaNet beside flash-linear-attention 0.6.0's recurrence with the layer's equations around it, on the same weights."""

import outside
import pytest

from ritornello.mixers.base import Context, Place
from ritornello.mixers.deltanet import DeltaNet, State


@pytest.mark.parametrize("impl", ["loop", "chunk"])
@pytest.mark.parametrize(("name", "settings"), [("deltanet", {}), ("deltanet_signed", {"conv": None, "eigenvalues": "signed"})])
def test_deltanet_is_the_outside_recurrence_with_its_layer_around_it(name, settings, impl):
    """Outputs, end state and gradients from a warm state: with a convolution, and without one with signed eigenvalues."""
    gold = outside.golden(name)
    mixer = DeltaNet(16, DeltaNet.Config(head_dim=8, **settings), Place())
    weights = outside.copied(mixer, gold)
    inputs = {each: gold[f"in.{each}"].requires_grad_() for each in ("x", "S", "past") if f"in.{each}" in gold}
    fresh = mixer.init_state(2)
    y, state = mixer(inputs["x"], State(inputs["S"], inputs.get("past", fresh.past)), Context(impl=impl))
    outside.agree(weights | inputs, {"y": y, "end": state.S}, gold)
