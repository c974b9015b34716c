"""RWKV-4's time and channel mixing beside transformers 5.23.0's, on the same weights and states."""

import outside
import pytest
import torch

from ritornello.mixers import rwkv4, rwkv_channel
from ritornello.mixers.base import Context, Mixer, Place
from ritornello.ops import softmax_scan
from ritornello.state import named_leaves

TIME = {"decay": "time_decay", "bonus": "time_first", "mix_r": "time_mix_receptance", "mix_k": "time_mix_key", "mix_v": "time_mix_value"}
MAPS = {"r.weight": "receptance.weight", "k.weight": "key.weight", "v.weight": "value.weight"}


def compare(mixer: Mixer, state, names: dict[str, str], gold: dict, impl: str, cuts: tuple[int, ...]) -> None:
    """Outputs, end state and the gradients of both with respect to everything; the leaves of `state` are golden inputs."""
    weights = dict(mixer.named_parameters())
    mixer.load_state_dict({name: gold[f"in.{names[name]}"].view(weight.shape) for name, weight in weights.items()})
    x, outputs = gold["in.x"].requires_grad_(), []
    leaves = {"x": x, **by_leaf(state), **{names[name]: weight for name, weight in weights.items()}}
    for piece in x.split(cuts, 1):
        y, state = mixer(piece, state, Context(impl=impl))
        outputs.append(y)
    found = {"y": torch.cat(outputs, 1), **{f"end.{name}": leaf for name, leaf in by_leaf(state).items()}}
    for name, value in found.items():
        outside.close(value, gold[f"out.{name}"])
    for name, grad in zip(leaves, torch.autograd.grad(outside.weighted(found), list(leaves.values())), strict=True):
        outside.close(grad.view(gold[f"grad.{name}"].shape), gold[f"grad.{name}"], 1e-4)


def by_leaf(state) -> dict[str, torch.Tensor]:
    return {path.rpartition(".")[2]: leaf for path, leaf in named_leaves(state)}


pieces = pytest.mark.parametrize(("impl", "cuts"), [("loop", (23,)), ("chunk", (23,)), ("auto", (1,) * 23), ("chunk", (9, 1, 13))])


@pieces
def test_rwkv4_is_transformers(impl, cuts):
    gold = outside.golden("rwkv4")
    last, num, den, m = (gold[f"in.{name}"].requires_grad_() for name in ("last", "num", "den", "m"))
    state = rwkv4.State(last, softmax_scan.State(m, num, den))
    mixer = rwkv4.RWKV4(16, rwkv4.RWKV4.Config(), Place())
    compare(mixer, state, TIME | MAPS | {"out.weight": "output.weight"}, gold, impl, cuts)


@pieces
def test_rwkv_channel_is_transformers(impl, cuts):
    gold = outside.golden("rwkv_channel")
    mixer = rwkv_channel.RWKVChannel(16, rwkv_channel.RWKVChannel.Config(hidden=24), Place())
    compare(mixer, rwkv_channel.State(gold["in.last"].requires_grad_()), TIME | MAPS, gold, impl, cuts)
