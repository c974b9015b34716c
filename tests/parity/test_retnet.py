"""RetNet beside flash-linear-attention 0.6.0's parallel retention with the layer's equations around it, on the same weights."""

import outside
import pytest
import torch

from ritornello.mixers.base import Context, Place
from ritornello.mixers.retnet import RetNet


@pytest.mark.parametrize("impl", ["loop", "chunk"])
def test_retnet_is_parallel_retention_with_its_layer_around_it(impl):
    """Outputs, end state and gradients."""
    gold = outside.golden("retnet")
    mixer = RetNet(16, RetNet.Config(head_dim=8), Place())
    weights = outside.copied(mixer, gold)
    x = gold["in.x"].requires_grad_()
    y, state = mixer(x, mixer.init_state(2), Context(impl=impl))
    outside.agree(weights | {"x": x}, {"y": y, "end": state.S}, gold)
    assert torch.equal(state.seen, torch.tensor([37, 37]))
