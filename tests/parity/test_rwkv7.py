"""RWKV-7 beside a NumPy transcription of its paper: two layers, so that the second takes part of the first one's values."""

import numpy as np
import outside
import paper_rwkv7
import pytest
import torch

from ritornello.mixers.base import Context, Place
from ritornello.mixers.rwkv7 import RWKV7, State


def by_paper(inputs):
    """Outputs and end states of both layers on `inputs`, named arrays: x, and by layer S, last and the weights."""
    xs, firsts, ends = inputs["x"], None, {}
    for nth in (0, 1):
        own = {name.removeprefix(f"{nth}."): array for name, array in inputs.items() if name.startswith(f"{nth}.")}
        before, states = own["last"], [S.T for S in own["S"]]
        ends[f"{nth}.last"] = xs[-1]
        xs, states, values = paper_rwkv7.time_mix(own, xs, before, states, firsts, heads=2)
        firsts, ends[f"{nth}.S"] = values, np.stack([S.T for S in states])
    return {"y": xs, **ends}


@pytest.mark.parametrize("impl", ["loop", "chunk"])
def test_rwkv7_is_the_papers(impl):
    """Outputs and end states from warm states; gradients in three directions of everything at once, by differences."""
    layers, random = [RWKV7(8, RWKV7.Config(head_dim=4), Place(nth, 2, nth, 2)).double() for nth in (0, 1)], np.random.default_rng(2)
    leaves = {f"{nth}.{name}": weight for nth, layer in enumerate(layers) for name, weight in layer.named_parameters()}
    with torch.no_grad():
        for weight in leaves.values():
            weight.copy_(torch.tensor(random.normal(size=weight.shape)) * (0.5 if weight.dim() > 1 else 1))
    for name, shape in {"x": (21, 8), "0.S": (2, 4, 4), "1.S": (2, 4, 4), "0.last": (8,), "1.last": (8,)}.items():
        leaves[name] = torch.tensor(random.normal(size=shape), requires_grad=True)
    x, context, found = leaves["x"][None], Context(impl=impl), {}
    for nth, layer in enumerate(layers):
        x, state = layer(x, State(leaves[f"{nth}.S"][None], leaves[f"{nth}.last"][None]), context)
        found |= {f"{nth}.last": state.last[0], f"{nth}.S": state.S[0]}
    found = {"y": x[0], **found}
    arrays = {name: leaf.detach().numpy() for name, leaf in leaves.items()}
    wanted = by_paper(arrays)
    for name, value in found.items():
        torch.testing.assert_close(value.detach(), torch.tensor(wanted[name]), rtol=1e-10, atol=1e-10)

    grads = dict(zip(leaves, torch.autograd.grad(outside.weighted(found), list(leaves.values())), strict=True))
    for _ in range(3):
        direction = {name: random.normal(size=array.shape) for name, array in arrays.items()}
        up, down = (
            outside.weighted({name: torch.tensor(value) for name, value in by_paper(moved).items()})
            for moved in ({name: array + step * direction[name] for name, array in arrays.items()} for step in (1e-5, -1e-5))
        )
        slope = sum((grads[name] * torch.tensor(direction[name])).sum() for name in arrays)
        torch.testing.assert_close(slope, (up - down) / 2e-5, rtol=1e-6, atol=1e-6)
