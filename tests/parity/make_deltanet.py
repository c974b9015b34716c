"""DeltaNet: the layer's equations written out here, the recurrence flash-linear-attention's."""

import outside
import torch
from torch import Tensor

PACKAGES = ("fla-core",)


def made(*, short_conv: bool, signed: bool) -> dict[str, Tensor]:
    """One mixer (D = 16, 2 heads) on 37 tokens from a warm state; with a convolution of 4 taps, or with beta up to 2."""
    generator = torch.Generator().manual_seed(4)
    shapes = {**dict.fromkeys("qkv", (16, 16)), "out": (16, 16), "beta": (2, 16), "norm": (8,)}
    leaves = {f"{name}.weight": torch.randn(shape, generator=generator) * 0.4 for name, shape in shapes.items()}
    shapes = {"x": (2, 37, 16), "S": (2, 2, 8, 8)} | ({"conv.weight": (48, 1, 4), "past": (2, 3, 48)} if short_conv else {})
    leaves |= {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    for leaf in leaves.values():
        leaf.requires_grad_()
    x = leaves["x"]
    mixed = torch.cat([x @ leaves[f"{name}.weight"].T for name in "qkv"], -1)
    if short_conv:
        mixed = torch.cat([leaves["past"], mixed], 1).mT
        mixed = torch.nn.functional.conv1d(mixed, leaves["conv.weight"], groups=48).mT
    q, k, v = (each.unflatten(-1, (2, 8)).transpose(1, 2) for each in torch.nn.functional.silu(mixed).chunk(3, -1))
    q, k = (each / (each.square().sum(-1, keepdim=True) + 1e-6).sqrt() for each in (q, k))
    beta = torch.sigmoid(x @ leaves["beta.weight"].T).mT * (2 if signed else 1)
    y, S = outside.naive("delta_rule").delta_rule_recurrence(q, k, v, beta, initial_state=leaves["S"])
    y = y.transpose(1, 2)
    y = y / (y.square().mean(-1, keepdim=True) + 1e-5).sqrt() * leaves["norm.weight"]
    return outside.with_gradients(leaves, {"y": y.flatten(-2) @ leaves["out.weight"].T, "end": S})


MADE = {"deltanet": lambda: made(short_conv=True, signed=False), "deltanet_signed": lambda: made(short_conv=False, signed=True)}
