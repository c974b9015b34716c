"""Drawing the next token from logits.

The steps, in this order:

    temperature t   p_i = softmax(logits / t)_i; t = 0 puts everything on the largest logit
    top_k           keep the k most likely tokens
    top_p           keep the smallest set of the most likely tokens whose share of what top_k kept is p or more
    draw            of the kept tokens in the order of their ids, the first whose cumulated p exceeds u times their sum, u uniform in [0, 1)

Among equally likely tokens the one with the smaller id counts as the likelier. Source of top_p: Holtzman et al. 2019,
arXiv:1904.09751 (nucleus sampling); of top_k: Fan et al. 2018, arXiv:1805.04833.
"""

import math

import torch
from torch import Tensor

from ritornello.errors import InputError

FEW = 64  # tokens that top_p looks at first


def sample(logits: Tensor, *, temperature: float, top_k: int | None, top_p: float | None, generator: torch.Generator) -> Tensor:
    """One token for each row of logits (B, V): int64 (B,), on the logits' device.

    Computed in float64 on the generator's device, so a generator on the CPU draws the same tokens wherever the logits are.
    It gives one number a row, none at temperature 0. Logits of -inf are never drawn. Raises InputError for settings out of
    range (see `check`), for other shapes, and for a row that holds NaN or +inf or nothing but -inf.
    """
    check(temperature, top_k, top_p)
    if logits.dim() != 2 or logits.shape[1] == 0:
        raise InputError(f"sampling: expected logits of shape (rows, vocabulary), found {tuple(logits.shape)}")
    wide = logits.detach().to(generator.device, torch.float64)
    highest, likeliest = wide.max(1, keepdim=True)
    if not highest.isfinite().all():
        row = int((~highest.isfinite()).nonzero()[0, 0])
        raise InputError(f"sampling: the largest of the logits in row {row} is {float(highest[row])}; the model has diverged")
    if temperature == 0:
        return likeliest[:, 0].to(logits.device)
    p = ((wide - highest) / temperature).softmax(1)
    if top_k is not None and top_k < p.shape[1]:
        p = _keep(p, top_k, p.topk(top_k).values[:, -1:])
    if top_p is not None and top_p < 1:
        p = _nucleus(p, top_p)
    cumulated = p.cumsum(1)
    u = torch.rand(len(p), 1, dtype=torch.float64, device=generator.device, generator=generator)
    return torch.searchsorted(cumulated, u * cumulated[:, -1:], right=True)[:, 0].to(logits.device)


def check(temperature: float, top_k: int | None, top_p: float | None) -> None:
    """Raise InputError unless 0 <= temperature < inf, top_k >= 1 and 0 < top_p <= 1; None switches a cut off."""
    if not 0 <= temperature < math.inf:
        raise InputError(f"temperature: expected a number from 0 (greedy) up, found {temperature}")
    if top_k is not None and top_k < 1:
        raise InputError(f"top-k: expected 1 or more tokens, found {top_k}; leave it out to keep them all")
    if top_p is not None and not 0 < top_p <= 1:
        raise InputError(f"top-p: expected a share above 0 and up to 1, found {top_p}; leave it out to keep them all")


def _nucleus(p: Tensor, share: float) -> Tensor:
    """p (B, V) with 0 outside the smallest set that has this share of its sum. Few of the largest usually hold it: no full sort."""
    size, wanted = FEW, share * p.sum(1, keepdim=True)
    while True:
        size = min(size, p.shape[1])
        largest = p.topk(size).values
        kept = (largest.cumsum(1) - largest < wanted).sum(1, keepdim=True)
        if size == p.shape[1] or (kept < size).all():
            return _keep(p, kept, largest.gather(1, kept - 1))
        size *= 8


def _keep(p: Tensor, kept: Tensor | int, least: Tensor) -> Tensor:
    """p (B, V) with 0 for all but the `kept` largest, the smallest of which is `least` (B, 1); of equals the first ones."""
    above, equal = p > least, p == least
    return p.where(above | equal & (equal.cumsum(1) <= kept - above.sum(1, keepdim=True)), 0)
