"""Dropout for recurrent models: shared parts, no mixers themselves. In training only; what is kept is divided by the share kept.

    Dropout    entries, each by itself                                       as nn.Dropout, by the faster masks of ops/dropout.py
    Locked     one mask of channels for all steps of a piece                 variational dropout
    words      all places of some words of the vocabulary                    embedding dropout
    dropped    entries of a weight, the same for all steps of a piece        DropConnect on a recurrent matrix, AWD-LSTM's weight drop

Masks come from torch's generator, which a training step seeds from (seed, step).

Sources: Gal and Ghahramani 2015, arXiv:1512.05287 (locked, words); Wan et al. 2013 (DropConnect); Merity et al. 2017, arXiv:1708.02182.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ritornello.errors import InputError
from ritornello.ops.dropout import dropout


class Dropout(nn.Dropout):
    """(B, T, D) -> (B, T, D): each entry is left out by itself."""

    def forward(self, x: Tensor) -> Tensor:
        return dropout(x, self.p) if self.training and self.p else x


class Locked(nn.Dropout):
    """(B, T, D) -> (B, T, D): each row loses the same channels at every step."""

    def forward(self, x: Tensor) -> Tensor:
        if not (self.training and self.p):
            return x
        return x * F.dropout(torch.ones_like(x[:, :1]), self.p)


def words(x: Tensor, tokens: Tensor, vocab: int, rate: float) -> Tensor:
    """Embeddings x (B, T, D) of tokens (B, T) without the words that a mask over the vocabulary leaves out."""
    return x * F.dropout(x.new_ones(vocab), rate)[tokens][..., None]


def check(rate: float, name: str) -> None:
    """InputError unless a rate is one."""
    if not 0 <= rate < 1:
        raise InputError(f"{name}: {rate} is not in [0, 1)")


@contextmanager
def dropped(module: nn.Module, name: str, rate: float) -> Iterator[None]:
    """Within, the weight `name` of a module lacks entries at this rate; gradients reach those that are left."""
    whole = module._parameters[name]
    assert whole is not None, "a weight that is dropped is there"
    module._parameters[name] = F.dropout(whole, rate)  # type: ignore[assignment]  # a tensor stands in, as under functional_call
    try:
        yield
    finally:
        module._parameters[name] = whole
