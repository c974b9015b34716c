"""Teachers that need not be asked again: their likeliest tokens at every place of a corpus, read from the disk.

At each place the K likeliest ids, log p of each (float16) and log of what is left for all others (float16) are kept. Places are those
of the corpus with its documents in their own order, so the same files serve every epoch, seed, batch and length of a student.

What that costs in exactness: log p is rounded to float16 and p then made to sum to 1; the ids beyond K count as one outcome; and the
teachers have read each document from its beginning (of a very long one: a part of it), where teachers asked at each step know no more of
it than the student's own state, which an epoch cuts once in every row.

Files: safetensors with a checksum, each for a run of places; the arrays in them as zstd over planes of equal bytes.
"""

import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import zstandard
from torch import Tensor

from ritornello import folder
from ritornello.data.batches import Batch
from ritornello.errors import InputError
from ritornello.ops.divergence import divergence_of_top
from ritornello.ops.linear_loss import IGNORED
from ritornello.state import State

ARRAYS = ("ids", "log_p", "log_rest")


def likeliest(log_p: Tensor, top: int) -> Tensor:
    """log p (B, T, V) to (B, T, 2 top + 1) float32: the likeliest ids, log p of each, and of all others together."""
    values, ids = log_p.topk(min(top, log_p.shape[-1]))
    rest = torch.log1p(-values.double().exp().sum(-1, keepdim=True).clamp(max=1)).to(values.dtype)
    return torch.cat([ids.to(values.dtype), values, rest], -1).float()


def write(path: Path, found: Tensor, first: int, vocab: int) -> None:
    """What `likeliest` gives of consecutive places (n, 2 K + 1), the first of which is `first`, as a file: whole or not at all."""
    ids, log_p, log_rest = found.split([found.shape[1] // 2, found.shape[1] // 2, 1], 1)
    narrow = "<u2" if vocab <= 2**16 else "<u4"
    arrays = (ids.numpy().astype(narrow), log_p.numpy().astype("<f2"), log_rest[:, 0].numpy().astype("<f2"))
    meta = {"first": first, "count": len(found), "top": ids.shape[1], "ids": narrow}
    folder.write_tensors(path, dict(zip(ARRAYS, map(_packed, arrays), strict=True)), meta)


def read(path: Path) -> tuple[int, tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """The inverse: the first place; ids (n, K), log p (n, K), log rest (n,). InputError if the file is damaged."""
    try:
        tensors, meta = folder.read_tensors(path)
    except InputError as error:
        raise InputError(f"{error}; delete it, and it is made anew") from error
    shapes = ((meta["count"], meta["top"]), (meta["count"], meta["top"]), (meta["count"],))
    kinds = (meta["ids"], "<f2", "<f2")
    ids, log_p, log_rest = (_unpacked(tensors[name], kind, shape) for name, kind, shape in zip(ARRAYS, kinds, shapes, strict=True))
    return meta["first"], (ids, log_p, log_rest)


class Kept:
    """A lesson from these files, all of them read, checked and unpacked once into a file that no name leads to."""

    def __init__(self, paths: Sequence[Path], total: int, temperature: float, spool: Path):
        """`total`: places of the corpus; `spool`: a folder with room for about 4 K bytes a place. InputError for a damaged file."""
        self.temperature = temperature
        self.arrays: list[np.ndarray] = []
        for path in paths:
            first, found = read(path)
            if not self.arrays:
                self.arrays = [_scratch(each.dtype, (total, *each.shape[1:]), spool) for each in found]
            for whole, part in zip(self.arrays, found, strict=True):
                whole[first : first + len(part)] = part

    def init_state(self, batch: int) -> State:
        return ()

    def __call__(self, batch: Batch, logits: Tensor, state: State) -> tuple[Tensor, State]:
        assert batch.places is not None, "batches of a corpus say their places"
        ids, log_p, log_rest = (array[batch.places.numpy()] for array in self.arrays)
        whole = np.concatenate([log_p, log_rest[..., None]], -1)
        known = torch.from_numpy(whole).to(logits.device).float().log_softmax(-1)
        chosen = torch.from_numpy(ids.astype(np.int64)).to(logits.device)
        nats = divergence_of_top(logits, chosen, known[..., :-1], known[..., -1], self.temperature)
        return self.temperature**2 * nats.where(batch.targets != IGNORED, 0).sum(), state


def _packed(array: np.ndarray) -> Tensor:
    planes = np.ascontiguousarray(np.frombuffer(array.tobytes(), np.uint8).reshape(-1, array.itemsize).T)
    return torch.frombuffer(bytearray(zstandard.ZstdCompressor(level=3).compress(planes.tobytes())), dtype=torch.uint8)


def _unpacked(packed: Tensor, kind: str, shape: tuple[int, ...]) -> np.ndarray:
    planes = np.frombuffer(zstandard.ZstdDecompressor().decompress(packed.numpy().tobytes()), np.uint8)
    size = np.dtype(kind).itemsize
    return np.frombuffer(planes.reshape(size, -1).T.tobytes(), kind).reshape(shape)


def _scratch(dtype: np.dtype, shape: tuple[int, ...], spool: Path) -> np.ndarray:
    spool.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=spool) as file:  # goes with the process, however it ends
        return np.memmap(file, dtype, "w+", shape=shape)
