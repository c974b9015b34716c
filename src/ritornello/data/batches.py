"""Tokens cut into batches whose rows go on from one batch to the next, any of them at once.

The stream of an epoch: the documents in an order of their own for each (seed, epoch), each as BOS t1 .. tn with the targets
t1 .. tn EOS, rotated by a random offset so that what is left over at the end is not always the same. It is cut into as many
equal streams as a batch has rows; batch i holds their i-th pieces, of `length` tokens or as `pieces` says.

The first epoch may have an order of documents given, such as easy ones first: then every row goes through it, see data/order.py.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ritornello.data.documents import mix
from ritornello.data.order import dealt
from ritornello.data.pieces import EVEN, Pieces, cuts
from ritornello.data.tokens import Tokens
from ritornello.errors import InputError


class Batch(NamedTuple):
    """Inputs and what comes next."""

    tokens: Tensor  # (B, T) int64
    targets: Tensor  # (B, T) int64, -100: not scored
    reset: Tensor | None  # (B, T) bool, True where a new document begins; None if nowhere
    at: Tensor  # (B,) int64, the place of each row's first token in the epoch's stream
    places: Tensor | None = None  # (B, T) int64, of each target among all of the corpus, its documents in their own order

    def to(self, device: str) -> "Batch":
        """With tokens, targets and resets on a device; the places stay on the processor, where the corpus is."""
        reset = None if self.reset is None else self.reset.to(device)
        return self._replace(tokens=self.tokens.to(device), targets=self.targets.to(device), reset=reset)


class _Epoch(NamedTuple):
    number: int
    order: np.ndarray  # (documents,) int64, which document comes when
    starts: np.ndarray  # (documents,) int64, where each begins in the stream before it is rotated
    offset: int  # of the rotation
    cuts: np.ndarray  # (steps + 1,) int64, where the pieces begin in each stream, and the end of the last


class Batches:
    """batches(epoch, step) is a pure function; row b of step i + 1 goes on where row b of step i ended.

    Every row resets at an epoch's start. No target occurs twice in an epoch, and fewer than batch * length are left out.
    """

    def __init__(
        self,
        tokens: Tokens,
        *,
        bos: int,
        eos: int,
        batch: int,
        length: int,
        seed: int,
        pieces: Pieces = EVEN,
        first: np.ndarray | None = None,
    ):
        """`first` (documents,) int64: their order in the first epoch, mixed if None. InputError if the tokens do not fill one batch."""
        self.ids, self.bos, self.eos, self.seed = tokens.ids, bos, eos, seed
        self.batch, self.length, self.pieces, self.first = batch, length, pieces, first
        self.begins = np.concatenate(([0], tokens.ends[:-1]))
        self.sizes = np.diff(tokens.ends, prepend=0) + 1
        self.total = len(tokens.ids) + len(tokens.ends)
        if batch < 1 or length < 1:
            raise InputError(f"a batch of {batch} x {length} tokens; use 1 or more of both")
        self.stream = self.total // batch
        self.steps = self.stream // length
        if not self.steps:
            advice = f"use length <= {self.stream} or fewer streams" if self.stream else f"use {self.total} streams or fewer"
            raise InputError(f"{self.total} tokens make {batch} streams of {self.stream}, shorter than one piece of {length}; {advice}")
        self._epoch = self._arrange(0)

    def __call__(self, epoch: int, step: int) -> Batch:
        """The batch of `step` in 0 .. steps - 1 of an epoch."""
        if not 0 <= step < self.steps:
            raise IndexError(f"step {step} of an epoch of {self.steps}")
        arranged = self._epoch if epoch == self._epoch.number else self._arrange(epoch)
        self._epoch = arranged  # only saves time: it follows from the seed and the epoch
        _, order, starts, offset, cut = arranged
        at = np.arange(self.batch) * self.stream + cut[step]
        place = (at[:, None] + np.arange(cut[step + 1] - cut[step]) + offset) % self.total  # (B, T)
        rank = np.searchsorted(starts, place, side="right") - 1
        document = order[rank]
        within = place - starts[rank]  # 0 at BOS
        token = self.begins[document] + within
        first, last = within == 0, within == self.sizes[document] - 1
        tokens = np.where(first, self.bos, self.ids[np.maximum(token - 1, 0)])
        targets = np.where(last, self.eos, self.ids[np.minimum(token, len(self.ids) - 1)])
        reset = first if self.pieces.documents else np.zeros_like(first)
        if step == 0:
            reset[:, 0] = True
        return Batch(
            torch.from_numpy(tokens.astype(np.int64)),
            torch.from_numpy(targets.astype(np.int64)),
            torch.from_numpy(reset) if reset.any() else None,
            torch.from_numpy(at),
            torch.from_numpy(token + document),
        )

    def _arrange(self, epoch: int) -> _Epoch:
        salt = mix(mix(np.array([self.seed % 2**64], np.uint64)) ^ np.array([epoch], np.uint64))
        if epoch == 0 and self.first is not None:
            order, offset = dealt(self.first, self.sizes, self.batch), 0
        else:
            order = np.argsort(mix(np.arange(len(self.sizes), dtype=np.uint64) ^ salt), kind="stable")
            offset = int(mix(~salt)[0] % np.uint64(self.total))
        starts = np.cumsum(self.sizes[order])
        starts = np.concatenate(([0], starts[:-1]))
        return _Epoch(epoch, order, starts, offset, cuts(self.pieces, self.steps, self.length, salt))


def parted(batch: Batch, parts: int) -> Batch:
    """Each row (T) as so many rows (T / parts), which know nothing of each other."""
    T = batch.tokens.shape[1]
    at = (batch.at[:, None] + torch.arange(0, T, T // parts)).flatten()
    cut = {name: x.reshape(-1, T // parts) for name, x in batch._asdict().items() if x is not None and x.dim() == 2}
    return batch._replace(**cut, at=at)
