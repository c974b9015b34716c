"""HGRN, the real form: the gate equations written out here, the recurrence flash-linear-attention's."""

import outside
import torch
from torch import Tensor

PACKAGES = ("fla-core",)


def hgrn() -> dict[str, Tensor]:
    """Two HGRN mixers in a row (D = 16): the layer's equations written out, the recurrence flash-linear-attention's."""
    generator = torch.Generator().manual_seed(2)
    w = {f"{layer}.{name}": torch.randn(16, 16, generator=generator) * 0.4 for layer in (0, 1) for name in ("i", "f", "g", "out")}
    w |= {f"{layer}.norm": 1 + torch.randn(16, generator=generator) * 0.2 for layer in (0, 1)}
    w |= {"rise": torch.randn(2, 16, generator=generator), "x": torch.randn(2, 37, 16, generator=generator)}
    w |= {f"{layer}.h": torch.randn(2, 16, generator=generator) for layer in (0, 1)}
    leaves = {name: tensor.requires_grad_() for name, tensor in w.items()}
    recur, silu = outside.naive("hgrn").naive_recurrent_hgrn, torch.nn.functional.silu
    floor = torch.softmax(leaves["rise"], 0)[1]
    x, out = leaves["x"], {}
    for layer in (0, 1):
        g = torch.nn.functional.logsigmoid(x @ leaves[f"{layer}.f"].T)
        if layer == 1:
            g = torch.logaddexp(floor.log(), torch.log1p(-floor) + g)
        written = silu(x @ leaves[f"{layer}.i"].T) * (1 - g.exp())
        y, h = recur(written, g, initial_state=leaves[f"{layer}.h"], output_final_state=True)
        y = y / (y.square().mean(-1, keepdim=True) + 1e-5).sqrt() * leaves[f"{layer}.norm"]
        x = (y * silu(x @ leaves[f"{layer}.g"].T)) @ leaves[f"{layer}.out"].T
        out[f"{layer}.end"] = h
    return outside.with_gradients(leaves, {"y": x, **out})


MADE = {"hgrn": hgrn}
