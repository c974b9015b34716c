"""Short causal convolution, one filter a channel: each token is mixed with the few before it.

    y_t[d] = bias[d] + sum over i < W of weight[d, i] x_{t-W+1+i}[d]

The state is the last W - 1 inputs, newest last; a reset makes everything before it zero, as at a text's start.
`native` is a kernel in C++ that reads bfloat16 as it is; `chunk` is one depthwise convolution of the whole piece, with resets a sum of W
shifted and masked copies.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from ritornello.ops.op import Implementation, Op, native

FEW = 2**14  # numbers


def loop(x: Tensor, weight: Tensor, bias: Tensor | None, past: Tensor, reset: Tensor | None) -> tuple[Tensor, Tensor]:
    """The definition. x: (B, T, D); weight: (D, W); bias: (D,) or None; past: (B, W - 1, D); reset: (B, T) bool.

    Returns y (B, T, D) and the last W - 1 inputs.
    """
    outputs = []
    resets = reset.unbind(1) if reset is not None else [None] * x.shape[1]
    for x_t, reset_t in zip(x.unbind(1), resets, strict=True):
        if reset_t is not None:
            past = torch.where(reset_t[:, None, None], 0, past)
        seen = torch.cat([past, x_t[:, None]], 1)  # (B, W, D)
        y = (seen * weight.mT).sum(1)
        outputs.append(y if bias is None else y + bias)
        past = seen[:, 1:]
    return torch.stack(outputs, 1) if outputs else x, past


def chunk(x: Tensor, weight: Tensor, bias: Tensor | None, past: Tensor, reset: Tensor | None) -> tuple[Tensor, Tensor]:
    """The whole piece at once."""
    T, W = x.shape[1], weight.shape[1]
    if T == 0:
        return x, past
    seen = torch.cat([past, x], 1)  # (B, W - 1 + T, D)
    if reset is None:
        return F.conv1d(seen.mT, weight[:, None], bias, groups=x.shape[2]).mT, seen[:, T:]
    document = F.pad(reset.cumsum(1), (W - 1, 0))  # of each input (B, W - 1 + T), 0 going on from before
    y = torch.zeros_like(x) if bias is None else bias.expand_as(x)
    for i in range(W):
        same = document[:, i : i + T] == document[:, W - 1 :]
        y = y + torch.where(same[..., None], seen[:, i : i + T], 0) * weight[:, i]
    kept = document[:, T:] == document[:, -1:]
    return y, torch.where(kept[..., None], seen[:, T:], 0)


conv = Op("conv", {"native": native("conv", "native_conv", FEW, narrow=True), "chunk": Implementation(chunk), "loop": Implementation(loop)})
