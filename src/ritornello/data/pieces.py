"""How the streams of an epoch are cut into the pieces that a model is trained on. All of it follows from (seed, epoch, step).

    spread, halved    lengths vary: normal about `length`, or about half of it for some pieces       AWD-LSTM's randomised BPTT
    short             rows begin short and double until they are `length` long                        sequence-length curriculum
    documents         whether the state is fresh where a document begins, or runs on through the text

Varied lengths are stretched to fill an epoch's steps, so that a step has `length` tokens a row on average and there are as many steps.
A row of a short stage is a part of a full row with a fresh state: the tokens of a step stay the same, only what they can see is less.

Sources: Merity et al. 2017, arXiv:1708.02182, where a piece's rate is multiplied by its length over the usual one (the loop does so), with
lengths normal(70, 5), half in one of twenty; Press et al. 2020, arXiv:2012.15832 (short sequences first, as many tokens a step).
"""

import math
from dataclasses import dataclass

import numpy as np

from ritornello.data.documents import mix
from ritornello.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Pieces:
    documents: bool = True  # a fresh state where a document begins
    spread: float = 0.0  # standard deviation of the lengths, as a share of `length`
    halved: float = 0.0  # share of the pieces that are half as long
    short: int | None = None  # tokens of a row at first; None: `length`
    until: float = 0.5  # share of the run over which rows grow, each length for as many steps

    def __post_init__(self) -> None:
        for name, most in (("spread", 0.5), ("halved", 1.0)):
            if not 0 <= getattr(self, name) <= most:
                raise InputError(f"train.pieces.{name}: {getattr(self, name)} is not in 0 to {most}")
        if not 0 < self.until <= 1:
            raise InputError(f"train.pieces.until: {self.until} is no share of the run; use more than 0, at most 1")
        if self.short is not None and self.varied:
            raise InputError("train.pieces: short needs pieces of one length; leave out spread and halved, or short")

    @property
    def varied(self) -> bool:
        return bool(self.spread or self.halved)

    def check(self, length: int) -> None:
        """InputError unless rows of `short` can be doubled to `length`."""
        if self.short is None:
            return
        times = length // self.short if self.short > 0 else 0
        if times < 1 or self.short * times != length or times & times - 1:
            known = ", ".join(str(length >> stage) for stage in range(1, 5) if length % (1 << stage) == 0)
            raise InputError(f"train.pieces.short: {self.short} cannot be doubled to the length {length}; use one of {known or length}")

    def parts(self, step: int, steps: int, length: int) -> int:
        """How many rows of its own each row is cut into at `step` (from 0) of `steps`: a power of two, 1 in the end."""
        if self.short is None:
            return 1
        stages = int(math.log2(length // self.short))
        return 1 << max(0, stages - int(step / (self.until * steps) * stages))


EVEN = Pieces()


def cuts(pieces: Pieces, steps: int, length: int, salt: np.ndarray) -> np.ndarray:
    """Where the pieces of an epoch begin in a stream, and the end of the last: (steps + 1,) int64, increasing."""
    if not pieces.varied:
        return np.arange(steps + 1) * length
    draw = mix(np.arange(3 * steps, dtype=np.uint64) ^ mix(salt + np.uint64(1)))
    half, radius, angle = ((draw >> np.uint64(11)).astype(np.float64) * 2.0**-53).reshape(3, steps)  # uniform in [0, 1)
    normal = np.sqrt(-2 * np.log1p(-radius)) * np.cos(2 * np.pi * angle)  # Box and Muller 1958
    wanted = np.maximum(length / 8, np.where(half < pieces.halved, length / 2, length) + pieces.spread * length * normal)
    share = np.concatenate(([0.0], np.cumsum(wanted))) / wanted.sum()
    return np.arange(steps + 1) + np.rint(share * steps * (length - 1)).astype(np.int64)  # one token for each at least
