"""How good the choices of a classifier are: accuracy, F1 and Matthews' correlation, with standard errors.

All three are functions of the confusion matrix C, C[i, j] items of class i that were taken for class j:

    accuracy   the diagonal's share
    F1         2 tp / (2 tp + fp + fn), class 1 being the positive one; 0 where there is none
    MCC        (c n - t p) / sqrt((n^2 - p p) (n^2 - t t)), with c right ones of n, t items and p choices of each class; 0 where undefined

MCC: Matthews 1975; of several classes: Gorodkin 2004. The error of an accuracy is binomial, those of the others are the spread over
resamples of the items (Efron 1979), from a fixed seed.
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

RESAMPLES = 1000


def confusion(labels: Tensor, choices: Tensor, classes: int) -> Tensor:
    """Counts (..., classes, classes) float64 of labels and choices (..., n)."""
    cells = labels * classes + choices
    counts = torch.zeros(*cells.shape[:-1], classes * classes, dtype=torch.float64)
    counts.scatter_add_(-1, cells, torch.ones(cells.shape, dtype=torch.float64))
    return counts.unflatten(-1, (classes, classes))


def accuracy(counts: Tensor) -> Tensor:
    """Of (..., classes, classes), (...)."""
    return counts.diagonal(dim1=-2, dim2=-1).sum(-1) / counts.sum((-2, -1))


def f1(counts: Tensor) -> Tensor:
    """Of (..., 2, 2), (...)."""
    hits, errors = counts[..., 1, 1], counts[..., 0, 1] + counts[..., 1, 0]
    return 2 * hits / (2 * hits + errors).clamp(min=1)


def mcc(counts: Tensor) -> Tensor:
    """Of (..., classes, classes), (...)."""
    n, right = counts.sum((-2, -1)), counts.diagonal(dim1=-2, dim2=-1).sum(-1)
    items, chosen = counts.sum(-1), counts.sum(-2)
    spread = (n**2 - (chosen**2).sum(-1)) * (n**2 - (items**2).sum(-1))
    return torch.where(spread > 0, (right * n - (items * chosen).sum(-1)) / spread.clamp(min=1).sqrt(), 0)


METRICS: dict[str, Callable[[Tensor], Tensor]] = {"accuracy": accuracy, "F1": f1, "MCC": mcc}


def measure(metric: str, labels: Sequence[int], choices: Sequence[int], classes: int) -> tuple[float, float]:
    """The metric of that name, and its standard error."""
    truth, made = torch.tensor(labels), torch.tensor(choices)
    value = float(METRICS[metric](confusion(truth, made, classes)))
    if metric == "accuracy":
        return value, math.sqrt(value * (1 - value) / len(labels))
    drawn = torch.randint(len(labels), (RESAMPLES, len(labels)), generator=torch.Generator().manual_seed(0))
    return value, float(METRICS[metric](confusion(truth[drawn], made[drawn], classes)).std())
