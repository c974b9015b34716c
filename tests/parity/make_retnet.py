"""RetNet: the layer's equations written out here, the recurrence flash-linear-attention's parallel retention."""

import outside
import torch
from torch import Tensor

PACKAGES = ("fla-core",)


def retnet() -> dict[str, Tensor]:
    """One mixer (D = 16, 2 heads) on 37 tokens from a fresh state; rotation in complex numbers, the end state as its sum."""
    generator = torch.Generator().manual_seed(2)
    shapes = {"q": (16, 16), "k": (16, 16), "v": (32, 16), "gate": (32, 16), "out": (16, 32), "norm": (16,)}
    leaves = {f"{name}.weight": torch.randn(shape, generator=generator) * 0.4 for name, shape in shapes.items()}
    leaves["x"] = torch.randn(2, 37, 16, generator=generator)
    x, step = leaves["x"], torch.arange(37.0)
    leaves["v.weight"] *= 0.003  # small, so that the norm does not undo every scale
    for leaf in leaves.values():
        leaf.requires_grad_()
    turn = torch.polar(torch.ones(37, 4), step[:, None] * 10000 ** (-torch.arange(4) / 4))
    q, k, v, gate = (
        (x @ leaves[f"{name}.weight"].T).unflatten(-1, (2, -1)).transpose(1, 2) for name in ("q", "k", "v", "gate")
    )  # (2, H, 37, K or V)
    q, k = (torch.complex(*tensor.chunk(2, -1)) * turn for tensor in (q, k))
    q, k = (torch.cat([tensor.real, tensor.imag], -1) for tensor in (q, k))
    y = outside.naive("retention").naive_retention(q, k, v)
    gamma = torch.tensor([31 / 32, 63 / 64])[:, None]
    end = torch.einsum("ht,bhtk,bhtv->bhkv", gamma ** (36 - step), k, v)
    y = y / (y.square().mean(-1, keepdim=True) + 1e-5).sqrt() * leaves["norm.weight"]
    y = (torch.nn.functional.silu(gate) * y).transpose(1, 2).flatten(-2) @ leaves["out.weight"].T
    return outside.with_gradients(leaves, {"y": y, "end": end})


MADE = {"retnet": retnet}
