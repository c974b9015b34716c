"""RWKV-6 beside flash-linear-attention 0.6.0's recurrence with its layer around it; RWKV-5 beside a second telling of its paper."""

import outside
import paper_rwkv5
import pytest
import torch

from ritornello.mixers.base import Context, Place
from ritornello.mixers.rwkv6 import RWKV6, State


@pytest.mark.parametrize("impl", ["loop", "chunk"])
def test_rwkv6_is_the_outside_recurrence_with_its_layer_around_it(impl):
    """Outputs, end state and gradients from a warm state."""
    gold = outside.golden("rwkv6")
    mixer = RWKV6(16, RWKV6.Config(head_dim=8, rank=3), Place())
    weights = outside.copied(mixer, gold)
    x, S, last = (gold[f"in.{name}"].requires_grad_() for name in ("x", "S", "last"))
    y, state = mixer(x, State(S, last), Context(impl=impl))
    assert torch.equal(state.last, x[:, -1])
    outside.agree(weights | {"x": x, "S": S, "last": last}, {"y": y, "end": state.S}, gold)


@pytest.mark.parametrize("impl", ["loop", "chunk"])
def test_rwkv5_is_its_papers_formula(impl):
    """Outputs and end state; gradients by differences of the paper's, in directions that change everything at once."""
    torch.manual_seed(8)
    mixer = RWKV6(8, RWKV6.Config(dynamic=False, head_dim=4), Place()).double()
    leaves = dict(mixer.named_parameters())
    with torch.no_grad():
        for weight in leaves.values():
            weight.copy_(torch.randn(weight.shape) * (0.4 if weight.shape == (8, 8) else 1))
    leaves |= {"x": torch.randn(2, 19, 8).double(), "S": torch.randn(2, 2, 4, 4).double(), "last": torch.randn(2, 8).double()}
    for name in ("x", "S", "last"):
        leaves[name].requires_grad_()
    y, state = mixer(leaves["x"], State(leaves["S"], leaves["last"]), Context(impl=impl))
    arrays = {name: leaf.detach().numpy() for name, leaf in leaves.items()}
    want, end = paper_rwkv5.rwkv5(arrays)
    outside.close(y, torch.from_numpy(want), 1e-10)
    outside.close(state.S, torch.from_numpy(end), 1e-10)
    grads = torch.autograd.grad(outside.weighted({"y": y, "end": state.S}), list(leaves.values()))
    for _ in range(5):
        ways = {name: torch.randn(leaf.shape).double() for name, leaf in leaves.items()}
        found = sum(float((grad * ways[name]).sum()) for name, grad in zip(leaves, grads, strict=True))
        ahead, behind = (
            outside.weighted(dict(enumerate(torch.from_numpy(out) for out in paper_rwkv5.rwkv5(moved))))
            for moved in ({name: array + step * ways[name].numpy() for name, array in arrays.items()} for step in (1e-6, -1e-6))
        )
        assert found == pytest.approx(float(ahead - behind) / 2e-6, rel=1e-6, abs=1e-5)
