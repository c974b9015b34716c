"""RWKV-4's two mixers, `transformers`' own, from states that are not fresh; one row, since more are not decoded rightly there."""

import outside
import torch
from torch import Tensor

PACKAGES = ("transformers",)


def run(kind: str, buffers: dict[str, int]) -> dict[str, Tensor]:
    """One mixer (D = 16, 24 hidden) on 23 tokens; `buffers` says where in the list of its model's states each of its own is."""
    import transformers
    from transformers.models.rwkv import modeling_rwkv

    generator = torch.Generator().manual_seed(7)
    block = getattr(modeling_rwkv, kind)(transformers.RwkvConfig(hidden_size=16, intermediate_size=24, num_hidden_layers=1))
    weights = {name: torch.randn(weight.shape, generator=generator) * 0.5 for name, weight in block.named_parameters()}
    before = {name: torch.randn(1, 16, generator=generator) for name in buffers}
    if "den" in before:
        before["den"] = 1 + before["den"].abs()
    leaves = {"x": torch.randn(1, 23, 16, generator=generator), **weights, **before}
    leaves = {name: leaf.requires_grad_() for name, leaf in leaves.items()}
    state = [torch.zeros(1, 16, 1) for _ in range(5)]
    for name, at in buffers.items():
        state[at] = leaves[name][..., None].clone()  # the last axis is of layers; it is written in place
    with torch.autograd.graph.allow_mutation_on_saved_tensors():
        y, state = torch.func.functional_call(block, {name: leaves[name] for name in weights}, (leaves["x"], state))
        return outside.with_gradients(leaves, {"y": y, **{f"end.{name}": state[at][..., 0] for name, at in buffers.items()}})


def rwkv4() -> dict[str, Tensor]:
    return run("RwkvSelfAttention", {"last": 1, "num": 2, "den": 3, "m": 4})


def rwkv_channel() -> dict[str, Tensor]:
    return run("RwkvFeedForward", {"last": 0})


MADE = {"rwkv4": rwkv4, "rwkv_channel": rwkv_channel}
