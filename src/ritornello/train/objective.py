"""What may be made smaller beside, or instead of, the plain cross-entropy -log p(y): each a switch, off by default.

    smoothing e   (1 - e) (-log p(y)) + e mean over v of -log p(v)            Szegedy et al. 2015, arXiv:1512.00567
    focal g       (1 - p(y))^g (-log p(y)): easy tokens count less            Lin et al. 2017, arXiv:1708.02002
    z             + z log(Z)^2, Z the softmax's denominator, near 1           Chowdhery et al. 2022, arXiv:2204.02311: z = 1e-4
    ar            + ar mean of h^2          h: the output (B, T, D) of the highest time mixer
    tar           + tar mean of (h_t - h_{t-1})^2, not across documents       Merity et al. 2017, arXiv:1708.01009: ar = 2, tar = 1

The first three are of each scored token; ar and tar are added to the mean loss of a step, as in the authors' code. Theirs takes ar after
dropout, which only makes it larger by 1 / (1 - rate).

That hard tokens should count more has evidence where words are few: masked models learn better from 10M words when what they predict
badly is masked more often (Edman and Fraser 2025, arXiv:2510.20475). `focal` is that idea for a model that is scored on every token.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from ritornello.errors import InputError
from ritornello.model import LM
from ritornello.ops.linear_loss import IGNORED
from ritornello.train.masking import MaskConfig

LEAST = 1e-6  # of 1 - p in the focal weight, whose slope at 0 may be infinite


@dataclass(frozen=True, kw_only=True)
class Objective:
    smoothing: float = 0.0
    focal: float = 0.0
    z: float = 0.0
    ar: float = 0.0
    tar: float = 0.0
    masked: MaskConfig | None = None  # rows that predict masked tokens

    def __post_init__(self) -> None:
        if not 0 <= self.smoothing < 1:
            raise InputError(f"train.objective.smoothing: {self.smoothing} is not in [0, 1)")
        for name in ("focal", "z", "ar", "tar"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise InputError(f"train.objective.{name}: {getattr(self, name)} is not a number from 0 on")

    @property
    def shaped(self) -> bool:
        """Whether a token counts otherwise than by its cross-entropy."""
        return bool(self.smoothing or self.focal or self.z)


PLAIN = Objective()


class Sums(NamedTuple):
    """Over the scored tokens."""

    nats: Tensor  # (), of the objective
    cross_entropy: Tensor  # ()


def shaped(logits: Tensor, targets: Tensor, config: Objective) -> Sums:
    """Logits (N, V) and targets (N,) to what their tokens count, in float32 or wider."""
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    scored = targets != IGNORED
    log_z = logits.logsumexp(-1)
    plain = log_z - logits.gather(-1, targets.where(scored, 0)[:, None])[:, 0]
    nats = plain
    if config.smoothing:
        nats = torch.lerp(plain, log_z - logits.mean(-1), config.smoothing)
    if config.focal:
        nats = (-torch.expm1(-plain)).clamp_min(LEAST) ** config.focal * nats
    if config.z:
        nats = nats + config.z * log_z.square()
    return Sums(nats.where(scored, 0).sum(), plain.where(scored, 0).sum())


@contextmanager
def watched(model: LM) -> Iterator[list[Tensor]]:
    """What the highest time mixer gives (B, T, D) while this is open."""
    kept: list[Tensor] = []
    hook = model.blocks[-1].time.register_forward_hook(lambda _, __, output: kept.append(output[0]))  # type: ignore[union-attr]
    try:
        yield kept
    finally:
        hook.remove()


def penalty(h: Tensor, reset: Tensor | None, config: Objective) -> Tensor:
    """ar and tar of a piece's outputs h (B, T, D), in float32 or wider."""
    h = h.to(torch.promote_types(h.dtype, torch.float32))
    moved = h.diff(dim=1).square()
    if reset is not None:
        moved = moved.where(~reset[:, 1:, None], 0)
    return config.ar * h.square().mean() + config.tar * moved.sum() / max(1, moved.numel())
