"""RWKV-6: the layer's equations written out here, the recurrence flash-linear-attention's."""

import outside
import torch
from torch import Tensor

PACKAGES = ("fla-core",)


def rwkv6() -> dict[str, Tensor]:
    """One mixer (D = 16, 2 heads, maps of rank 3 and 6) on 37 tokens from a warm state."""
    generator = torch.Generator().manual_seed(7)
    shapes = {f"{name}.weight": (16, 16) for name in ("r", "k", "v", "g", "out")}
    shapes |= {"mix_down.weight": (15, 16), "mix_up": (5, 3, 16), "decay_down.weight": (6, 16), "decay_up.weight": (16, 6)}
    leaves = {name: torch.randn(shape, generator=generator) * 0.4 for name, shape in shapes.items()}
    shapes = {"mix": (5, 16), "mix_all": (16,), "decay": (16,), "bonus": (2, 8), "norm.weight": (16,), "norm.bias": (16,)}
    shapes |= {"x": (2, 37, 16), "S": (2, 2, 8, 8), "last": (2, 16)}
    leaves |= {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    leaves["decay"] -= 2  # no gate shuts within a step: in float32 the form in chunks does not tell exp(-10) from less
    for leaf in leaves.values():
        leaf.requires_grad_()
    x = leaves["x"]
    change = torch.cat([leaves["last"][:, None], x[:, :-1]], 1) - x
    low = ((x + change * leaves["mix_all"]) @ leaves["mix_down.weight"].T).tanh()
    mixed = {
        name: x + change * (leaves["mix"][j] + low[..., 3 * j : 3 * j + 3] @ leaves["mix_up"][j])
        for j, name in enumerate(("r", "k", "v", "g", "w"))
    }
    rate = leaves["decay"] + (mixed["w"] @ leaves["decay_down.weight"].T).tanh() @ leaves["decay_up.weight"].T
    r, k, v, g = (mixed[name] @ leaves[f"{name}.weight"].T for name in ("r", "k", "v", "g"))
    recur = outside.naive("rwkv6", "recurrent_naive").naive_recurrent_rwkv6
    r, k, v, w = (tensor.unflatten(-1, (2, 8)).transpose(1, 2) for tensor in (r, k, v, -rate.exp()))
    y, S = recur(r, k, v, w, leaves["bonus"], scale=1.0, initial_state=leaves["S"], output_final_state=True)
    y = y.transpose(1, 2).flatten(-2).flatten(0, 1)  # (tokens, D)
    y = torch.nn.functional.group_norm(y, 2, leaves["norm.weight"], leaves["norm.bias"], eps=64e-5).unflatten(0, (2, 37))
    y = (torch.nn.functional.silu(g) * y) @ leaves["out.weight"].T
    return outside.with_gradients(leaves, {"y": y, "end": S})


MADE = {"rwkv6": rwkv6}
