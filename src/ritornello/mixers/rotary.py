"""Rotary positions: queries and keys are turned by their position, so that their product depends on the distance alone.

    of n channels the pair (i, i + n/2) turns by the angle   position * base^(-2i/n)

Positions count from the document's start, so a reset restarts them.

Source: Su et al. 2021, arXiv:2104.09864; pairs are half a head apart, as in LLaMA.
"""

import torch
from torch import Tensor


def positions(seen: Tensor, reset: Tensor | None, T: int) -> tuple[Tensor | None, Tensor]:
    """Which document of the piece each token belongs to, (B, T), 0 going on from before; and its position in it, (B, T).

    seen: (B,) tokens of the current document before the piece. Without resets there is one document: None.
    """
    step = torch.arange(T, device=seen.device)
    if reset is None:
        return None, seen[:, None] + step
    start = torch.where(reset, step, -1).cummax(1).values  # of the token's document in this piece, -1: before it
    return reset.cumsum(1), torch.where(start < 0, seen[:, None] + step, step - start)


def rotate(x: Tensor, position: Tensor, base: float, fraction: float = 1.0) -> Tensor:
    """Turn channel pairs (i, i + n/2) of x (B, T, H, d) by position (B, T) times base^(-2i/n); angles in float32 or wider.

    n is d times the fraction, an even number; the channels after them stay as they are.
    """
    half = int(x.shape[-1] * fraction) // 2
    wide = torch.promote_types(x.dtype, torch.float32)
    rates = base ** (-torch.arange(half, device=x.device, dtype=wide) / half)
    angle = (position[..., None] * rates)[:, :, None]  # (B, T, 1, n/2)
    cos, sin = angle.cos(), angle.sin()
    a, b, rest = x.to(wide).split([half, half, x.shape[-1] - 2 * half], -1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin, rest], -1).to(x.dtype)
