"""Dropout whose mask is a function of a seed and a place, so that nothing is kept for the backward pass.

    y_i = x_i / (1 - rate)  where mixed(i, seed) >= 2^32 rate, else 0        i: the place in x, row by row, modulo 2^32

`mixed` is a hash of 32 bits: two rounds of shifts and odd factors found by search (Wellons 2018, "lowbias32"), each with one half of the
seed. torch draws its masks from one long sequence, which on a processor takes as long as a matrix product of a narrow model; these are
computed where they are needed, sixteen at a time, in C++ where that can run. Both forms give the same mask.

Source: Srivastava et al. 2014 (dropout); Salmon et al. 2011 (random numbers from a counter).
"""

import torch
from torch import Tensor

from ritornello.ops import native_pointwise as native

WORD = 2**32 - 1


def dropout(x: Tensor, rate: float, impl: str = "auto") -> Tensor:
    """x of any shape, its entries left out at `rate` in [0, 1); the seed comes from torch's generator. `impl`: "auto", or any for torch."""
    seed = torch.randint(2**63 - 1, (), device=x.device)
    if impl == "auto" and native.against(x) is None:
        return native.dropout(x, seed, threshold(rate), 1 / (1 - rate))
    return torch.where(kept(x.shape, seed, rate), x * (1 / (1 - rate)), 0)


def threshold(rate: float) -> int:
    """The least hash that is kept."""
    return min(round(rate * 2**32), WORD)


def kept(shape: torch.Size, seed: Tensor, rate: float) -> Tensor:
    """Which places are kept, bool of that shape, on the seed's device. `seed`: (), int64."""
    place = torch.arange(shape.numel(), device=seed.device) & WORD
    return (mixed(place, seed) >= threshold(rate)).view(shape)


def mixed(place: Tensor, seed: Tensor) -> Tensor:
    """Places and a seed, int64, to 32 bits that look like chance, int64. Products overflow; their lower halves do not mind."""
    x = (place * 0x9E3779B9 + (seed & WORD)) & WORD
    for word in (seed >> 32 & WORD, 0):
        x = x ^ x >> 16
        x = x * 0x7FEB352D & WORD
        x = x ^ x >> 15
        x = x * 0x846CA68B & WORD
        x = x ^ x >> 16 ^ word
    return x
