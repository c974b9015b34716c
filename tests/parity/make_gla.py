"""Gated linear attention: the layer's equations written out here, the recurrence flash-linear-attention's."""

import outside
import torch
from torch import Tensor

PACKAGES = ("fla-core",)


def gla() -> dict[str, Tensor]:
    """One mixer (D = 16, 4 heads, keys of 2, values of 4, a gate of rank 5) on 37 tokens from a warm state."""
    generator = torch.Generator().manual_seed(3)
    shapes = {
        "q": (8, 16),
        "k": (8, 16),
        "v": (16, 16),
        "gate": (16, 16),
        "out": (16, 16),
        "narrow": (5, 16),
        "forget": (8, 5),
        "norm": (4,),
    }
    leaves = {f"{name}.weight": torch.randn(shape, generator=generator) * 0.4 for name, shape in shapes.items()}
    shapes = {"forget.bias": (8,), "x": (2, 37, 16), "S": (2, 4, 2, 4)}
    leaves |= {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    leaves["v.weight"] *= 0.003  # small, so that the norm does not undo every scale
    for leaf in leaves.values():
        leaf.requires_grad_()
    x = leaves["x"]
    q, k, v, gate = ((x @ leaves[f"{name}.weight"].T).unflatten(-1, (4, -1)) for name in ("q", "k", "v", "gate"))
    logit = x @ leaves["narrow.weight"].T @ leaves["forget.weight"].T + leaves["forget.bias"]
    log_decay = torch.nn.functional.logsigmoid(logit).unflatten(-1, (4, -1)) / 16
    recur = outside.naive("gla").naive_recurrent_gla
    y, S = recur(q, k, v, log_decay, initial_state=leaves["S"], output_final_state=True)
    y = y / (y.square().mean(-1, keepdim=True) + 1e-5).sqrt() * leaves["norm.weight"]
    y = (torch.nn.functional.silu(gate) * y).flatten(-2) @ leaves["out.weight"].T
    return outside.with_gradients(leaves, {"y": y, "end": S})


MADE = {"gla": gla}
