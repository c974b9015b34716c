"""mLSTM beside the native path of the authors' xlstm 2.0.6 on the same weights."""

import outside
import pytest

from ritornello.mixers.base import Context, Place
from ritornello.mixers.mlstm import MLSTM

NAMES = {  # ours: theirs
    "up.weight": "proj_up.weight",
    "conv.weight": "conv1d.conv.weight",
    "conv.bias": "conv1d.conv.bias",
    **{name: f"{name}_proj.weight" for name in ("q", "k", "v")},
    **{f"{name}.{kind}": f"mlstm_cell.{name}gate.{kind}" for name in ("i", "f") for kind in ("weight", "bias")},
    "norm.weight": "mlstm_cell.outnorm.weight",  # theirs is the scale less 1
    "skip": "learnable_skip",
    "down.weight": "proj_down.weight",
}


@pytest.mark.parametrize("impl", ["loop", "chunk"])
def test_mlstm_is_the_authors_layer(impl):
    """Outputs and gradients, and the end state token by token, which the convolution's one more input is not part of."""
    gold = outside.golden("mlstm")
    gold |= {f"{kind}.{ours}": gold[f"{kind}.{theirs}"] for ours, theirs in NAMES.items() for kind in ("in", "grad")}
    gold["in.norm.weight"] = gold["in.norm.weight"] + 1
    mixer = MLSTM(8, MLSTM.Config(heads=2), Place())
    weights, x = outside.copied(mixer, gold), gold["in.x"].requires_grad_()
    y, state = mixer(x, mixer.init_state(2), Context(impl=impl))
    outside.agree(weights | {"x": x}, {"y": y}, gold)
    for name, value in state._asdict().items():
        outside.close(value, gold[f"out.{name}"][:, 1:] if name == "past" else gold[f"out.{name}"])
