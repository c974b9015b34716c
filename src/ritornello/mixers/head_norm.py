"""The norm on what each head reads, before heads are joined: a shared part, no mixer itself.

    y = (x - mean) / sqrt(variance + eps) * weight + bias        mean and variance of one head's channels

Source: Wu and He 2018, arXiv:1803.08494, group normalisation; its use on heads is Sun et al. 2023, arXiv:2307.08621.
"""

import torch
from torch import Tensor, nn


class HeadNorm(nn.Module):
    """(B, T, H, V) -> (B, T, H V); every channel of every head has its own scale and bias."""

    def __init__(self, heads: int, head_dim: int, *, bias: bool = True, eps: float = 1e-5):
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.empty(heads * head_dim))
        self.bias = nn.Parameter(torch.empty(heads * head_dim)) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Scales 1, biases 0."""
        nn.init.ones_(self.weight)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def forward(self, x: Tensor) -> Tensor:
        y = nn.functional.layer_norm(x, x.shape[-1:], eps=self.eps).flatten(-2) * self.weight
        return y if self.bias is None else y + self.bias
