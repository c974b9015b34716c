"""Which of several candidates is the most probable? Rows of decisions.

official     the first of the best is taken, as the benchmarks' own code takes it: a tie is right where the right one comes first
half credit  an item with r best candidates gives 1 / r if the right one is among them, half of two: a scorer that knows nothing gets chance
ties         items in which the right candidate is best, but not alone
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from ritornello.evals.report import Row

OFFICIAL, SHARED, TIES = "accuracy (official)", "accuracy (half credit)", "ties"
PER_TOKEN = "accuracy (mean per token)"  # noqa: S105 the official rule on the mean log-probability of a token


def choose(scores: Sequence[Tensor]) -> list[int]:
    """The first of the best candidates of each item."""
    return [int(each.argmax()) for each in scores]


def decisions(scores: Sequence[Tensor], answers: Sequence[int]) -> dict[str, Tensor]:
    """(items,) float64 points of each metric from the scores of each item's candidates, (candidates,), and the place of the right one."""
    padded, right = pad_sequence(list(scores), batch_first=True, padding_value=-torch.inf), torch.tensor(list(answers))
    best = padded == padded.amax(1, keepdim=True)
    share = best.gather(1, right[:, None])[:, 0].double() / best.sum(1)
    return {OFFICIAL: (padded.argmax(1) == right).double(), SHARED: share, TIES: ((share > 0) & (share < 1)).double()}


def not_finite(scores: Sequence[Tensor]) -> str | None:
    """Why the items have no mean, if they have none."""
    lost = sum(not bool(each.isfinite().all()) for each in scores)
    return f"{lost} of {len(scores)} items have no finite score" if lost else None


def choice_rows(suite: str, task: str, scores: Sequence[Tensor], answers: Sequence[int]) -> list[Row]:
    """Rows of a task. See `decisions`; chance is the mean of 1 / candidates. A score that is not finite leaves no value."""
    chance = math.fsum(1 / len(each) for each in scores) / len(scores)
    found, reason = decisions(scores, answers), not_finite(scores)
    return [mean_row(suite, task, metric, points, None if metric == TIES else chance, reason) for metric, points in found.items()]


def mean_row(suite: str, task: str, metric: str, points: Tensor, chance: float | None, reason: str | None = None) -> Row:
    """The mean of (n,) points and its standard error; no value if there is a reason."""
    n = len(points)
    if reason:
        return Row(suite, task, metric, None, n=n, chance=chance, reason=reason)
    return Row(suite, task, metric, float(points.mean()), math.sqrt(float(points.var(correction=0)) / n), n, chance)
