"""Gated linear attention beside flash-linear-attention 0.6.0's recurrence with the layer's equations around it, on the same weights."""

import outside
import pytest

from ritornello.mixers.base import Context, Place
from ritornello.mixers.gla import GLA, State


@pytest.mark.parametrize("impl", ["loop", "chunk"])
def test_gla_is_the_outside_recurrence_with_its_layer_around_it(impl):
    """Outputs, end state and gradients from a warm state."""
    gold = outside.golden("gla")
    mixer = GLA(16, GLA.Config(rank=5), Place())
    weights = outside.copied(mixer, gold)
    x, S = (gold[f"in.{name}"].requires_grad_() for name in ("x", "S"))
    y, state = mixer(x, State(S), Context(impl=impl))
    outside.agree(weights | {"x": x, "S": S}, {"y": y, "end": state.S}, gold)
