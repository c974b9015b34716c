"""RWKV-7 beside a NumPy transcription of its paper: two layers, so that the second takes part of the first one's values."""

import numpy as np
import paper
import paper_rwkv7
import pytest

from ritornello.mixers.base import Context, Place
from ritornello.mixers.rwkv7 import RWKV7, State

SIZES = {"x": (21, 8), "0.S": (2, 4, 4), "1.S": (2, 4, 4), "0.last": (8,), "1.last": (8,)}


def transcribed(inputs):
    """Outputs and end states of both layers; everything but x is named after its layer."""
    xs, firsts, ends = inputs["x"], None, {}
    for nth in (0, 1):
        own = {name.removeprefix(f"{nth}."): array for name, array in inputs.items() if name.startswith(f"{nth}.")}
        ends[f"{nth}.last"] = xs[-1]
        xs, states, values = paper_rwkv7.time_mix(own, xs, own["last"], [S.T for S in own["S"]], firsts, heads=2)
        firsts, ends[f"{nth}.S"] = values, np.stack([S.T for S in states])
    return {"y": xs, **ends}


@pytest.mark.parametrize("impl", ["loop", "chunk"])
def test_rwkv7_is_the_papers(impl):
    """From warm states."""
    layers, random = [RWKV7(8, RWKV7.Config(head_dim=4), Place(nth, 2, nth, 2)).double() for nth in (0, 1)], np.random.default_rng(2)
    leaves = {f"{nth}.{name}": weight for nth, layer in enumerate(layers) for name, weight in paper.fill(layer, random, 0.5).items()}
    leaves |= {name: paper.leaf(random.normal(size=size)) for name, size in SIZES.items()}
    x, context, found = leaves["x"][None], Context(impl=impl), {}
    for nth, layer in enumerate(layers):
        x, state = layer(x, State(leaves[f"{nth}.S"][None], leaves[f"{nth}.last"][None]), context)
        found |= {f"{nth}.last": state.last[0], f"{nth}.S": state.S[0]}
    paper.agree(lambda: {"y": x[0], **found}, transcribed, leaves)
