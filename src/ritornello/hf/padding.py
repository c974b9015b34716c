"""Padding is a document: what an attention mask says, in resets.

    tokens  . . a b c        mask  0 0 1 1 1        reset  0 0 1 0 0
    tokens  d e f g h              1 1 1 1 1               0 0 0 0 0

Padding on the left is forgotten where the text begins, so state and positions are exactly those of the text alone. Padding on the
right comes after everything that is read of a causal model. A mask with a hole is no padding, and is refused.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from ritornello.errors import InputError


def real_tokens(mask: Tensor | None, rows: int, length: int, new: int) -> Tensor | None:
    """Which of all tokens so far are text, (B, L) bool; None where all are.

    `mask` holds ones and zeros: (B, L), or the (B, L, L) that BabyLM's fine-tuning makes of it for causal models, where row i is the mask
    up to token i. L is `length`, past tokens included; a mask for the `new` ones alone does where it is all ones.
    """
    if mask is None:
        return None
    if not ((mask == 0) | (mask == 1)).all():
        raise InputError("attention_mask: holds other values than 0 and 1; give 1 for text and 0 for padding")
    real = mask.bool()
    if mask.dim() == 3 and mask.shape[1] == mask.shape[2]:
        real = real.diagonal(dim1=1, dim2=2)
        if not torch.equal(real[:, None].expand(mask.shape).tril(), mask.bool()):
            raise InputError("attention_mask: a mask of (rows, tokens, tokens) is read only where token i sees all text up to i")
    if real.shape == (rows, new) and real.all():
        return None
    if real.shape != (rows, length):
        raise InputError(f"attention_mask: shape {tuple(mask.shape)}; expected ({rows}, {length}): rows, and all tokens so far")
    return None if real.all() else real


def resets(real: Tensor | None, new: int) -> Tensor | None:
    """Where text begins behind padding among the last `new` tokens, (B, new) bool; None: nowhere."""
    if real is None:
        return None
    begins = real & ~F.pad(real[:, :-1], (1, 0))
    holes = (begins.sum(1) > 1).nonzero().flatten().tolist()
    if holes:
        raise InputError(f"attention_mask: row {holes[0]} has padding inside its text; pad on the left, or on the right")
    begins[:, 0] = False  # every row's state is fresh there
    found = begins[:, -new:]
    return found if found.any() else None


def last_tokens(real: Tensor | None, rows: int, length: int) -> Tensor:
    """The place of each row's last token of text, (B,)."""
    if real is None:
        return torch.full((rows,), length - 1)
    if not real.any(1).all():
        raise InputError(f"attention_mask: row {int(real.any(1).long().argmin())} is all padding; there is nothing to classify")
    return length - 1 - real.flip(1).long().argmax(1)


def padded_left(tokens: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Tokens (B, T) and their mask with the padding on the right moved to the left, where writing can go on."""
    size = mask.shape[1]
    last = size - 1 - mask.bool().flip(1).long().argmax(1)
    places = (torch.arange(size, device=mask.device) + last[:, None] + 1) % size
    return tokens.gather(1, places.to(tokens.device)), mask.gather(1, places)
