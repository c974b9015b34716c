"""sLSTM: the xlstm package's own layer, its plain ("vanilla") cell."""

import outside
import torch
from torch import Tensor

PACKAGES = ("xlstm",)


def slstm() -> dict[str, Tensor]:
    """One layer (D = 16, 4 heads, convolution of 4): outputs from a fresh state, then from a warm one with its end."""
    from xlstm.blocks.slstm.layer import sLSTMLayer, sLSTMLayerConfig

    generator = torch.Generator().manual_seed(2)
    draw = lambda *shape, scale=1.0: torch.randn(*shape, generator=generator) * scale
    w = {"w": draw(4, 4, 4, 4, scale=0.7), "r": draw(4, 4, 4, 4, scale=0.7), "b": draw(4, 4, 4), "norm.weight": 1 + draw(16, scale=0.2)}
    w |= {"conv.weight": draw(16, 1, 4, scale=0.5), "conv.bias": draw(16, scale=0.5), "x": draw(2, 23, 16)}
    w |= {"conv": draw(2, 3, 16), "h": draw(2, 4, 4), "c": draw(2, 4, 4), "n": 1 + draw(2, 4, 4).square(), "m": draw(2, 4, 4)}
    leaves = {name: tensor.requires_grad_() for name, tensor in w.items()}

    i, f, z, o = leaves["w"].mT  # theirs are (H, out, in); the layer takes i from what it calls fgate, and f from igate
    theirs = {"fgate.weight": i, "igate.weight": f, "zgate.weight": z, "ogate.weight": o}
    theirs["slstm_cell._recurrent_kernel_"] = leaves["r"].permute(1, 0, 3, 2).reshape(4, 16, 4)
    theirs["slstm_cell._bias_"] = leaves["b"].flatten()
    theirs["group_norm.weight"] = leaves["norm.weight"] - 1
    theirs |= {"conv1d.conv.weight": leaves["conv.weight"], "conv1d.conv.bias": leaves["conv.bias"]}
    layer = sLSTMLayer(sLSTMLayerConfig(embedding_dim=16, num_heads=4, backend="vanilla", dtype="float32"))

    fresh = torch.func.functional_call(layer, theirs, (leaves["x"],))
    state = {"conv_state": leaves["conv"], "slstm_state": torch.stack([leaves[name].flatten(1) for name in "hcnm"])}
    y, end = torch.func.functional_call(layer, theirs, (leaves["x"],), {**state, "return_last_state": True})
    ends = {f"end.{name}": leaf.unflatten(-1, (4, 4)) for name, leaf in zip("hcnm", end["slstm_state"], strict=True)}
    return outside.with_gradients(leaves, {"fresh": fresh, "y": y, "end.conv": end["conv_state"], **ends})


MADE = {"slstm": slstm}
