"""HGRN2: the gate equations written out here, the recurrence flash-linear-attention's."""

import outside
import torch
from torch import Tensor

PACKAGES = ("fla-core",)


def hgrn2() -> dict[str, Tensor]:
    """Two HGRN2 mixers in a row (D = 16, 2 heads): the gate equations written out, the recurrence flash-linear-attention's."""
    generator = torch.Generator().manual_seed(1)
    w = {f"{layer}.{name}": torch.randn(16, 16, generator=generator) * 0.4 for layer in (0, 1) for name in ("q", "f", "v", "out")}
    w |= {f"{layer}.norm": 1 + torch.randn(16, generator=generator) * 0.2 for layer in (0, 1)}
    w |= {"rise": torch.randn(2, 16, generator=generator), "x": torch.randn(2, 37, 16, generator=generator)}
    w |= {f"{layer}.S": torch.randn(2, 2, 8, 8, generator=generator) for layer in (0, 1)}
    leaves = {name: tensor.requires_grad_() for name, tensor in w.items()}
    recur = outside.naive("gla").naive_recurrent_gla
    share = torch.softmax(leaves["rise"], 0)
    floors = [torch.zeros(16), share[1]]
    x, out = leaves["x"], {}
    for layer in (0, 1):
        q = torch.nn.functional.silu(x @ leaves[f"{layer}.q"].T)
        raw = torch.nn.functional.logsigmoid(x @ leaves[f"{layer}.f"].T)
        g = raw if layer == 0 else torch.logaddexp(floors[1].log(), torch.log1p(-floors[1]) + raw)
        v = x @ leaves[f"{layer}.v"].T
        heads = (tensor.unflatten(-1, (2, 8)) for tensor in (q, 1 - g.exp(), v, g))
        y, S = recur(*heads, initial_state=leaves[f"{layer}.S"], output_final_state=True)
        y = y.flatten(-2)
        y = y / (y.square().mean(-1, keepdim=True) + 1e-6).sqrt() * leaves[f"{layer}.norm"]
        x = y @ leaves[f"{layer}.out"].T
        out[f"{layer}.end"] = S
    return outside.with_gradients(leaves, {"y": x, **out})


MADE = {"hgrn2": hgrn2}
