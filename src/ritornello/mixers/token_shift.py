"""Token shift: a layer's inputs are, channel by channel, a mix of this token and the one before it. Shared by the RWKVs.

Source: Peng et al. 2023, arXiv:2305.13048.
"""

import torch
from torch import Tensor

from ritornello.mixers.base import Place


def shift(x: Tensor, last: Tensor, reset: Tensor | None) -> tuple[Tensor, Tensor]:
    """The token before each of x (B, T, D), zero before a document's first, and the last of all (B, D); `last` precedes x."""
    seen = torch.cat([last[:, None], x.to(last.dtype)], 1)
    before = seen[:, :-1] if reset is None else torch.where(reset[..., None], 0, seen[:, :-1])
    return before.to(x.dtype), seen[:, -1]


def rising(place: Place, like: Tensor) -> Tensor:
    """(i / D)^(1 - layer / layers) for channel i, shaped like `like` (D,)."""
    size = like.shape[0]
    return (torch.arange(size, device=like.device) / size) ** (1 - place.index / place.count)
