"""The short causal convolution that many mixers put before their recurrence: a shared part, no mixer itself.

    y = activation(conv(x))        a filter of `width` taps for each channel

Source: Poli et al. 2023, arXiv:2302.10866, made it common; the layout of its weight, (channels, 1, width), is the field's.
"""

import torch
from torch import Tensor, nn

from ritornello.errors import InputError
from ritornello.mixers.base import Context
from ritornello.ops.conv import conv

MOST = 256  # taps


class ShortConv(nn.Module):
    """(B, T, channels) -> (B, T, channels). Its state is the last width - 1 inputs (B, width - 1, channels), newest last."""

    def __init__(self, channels: int, width: int, *, bias: bool = True, activation: bool = True):
        super().__init__()
        if not 2 <= width <= MOST:
            why = "mixes nothing" if width < 2 else f"is more than {MOST}"
            raise InputError(f"short convolution: a width of {width} {why}; use 2 to 4")
        self.activation = activation  # SiLU
        self.weight = nn.Parameter(torch.empty(channels, 1, width))
        self.bias = nn.Parameter(torch.empty(channels)) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """torch's convolution default: weight and bias uniform within 1/sqrt(width)."""
        bound = self.weight.shape[-1] ** -0.5
        nn.init.uniform_(self.weight, -bound, bound)
        if self.bias is not None:
            nn.init.uniform_(self.bias, -bound, bound)

    def init_state(self, batch: int) -> Tensor:
        channels, _, width = self.weight.shape
        return self.weight.new_zeros(batch, width - 1, channels)

    def forward(self, x: Tensor, past: Tensor, context: Context) -> tuple[Tensor, Tensor]:
        y, past = conv(x, self.weight[:, 0], self.bias, state=past, reset=context.reset, impl=context.impl)
        return (nn.functional.silu(y) if self.activation else y), past
