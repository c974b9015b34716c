"""Wug tests: does the model inflect invented words as people do?

The candidates of an item are whole sentences; the model's share of the first is softmax(log-probabilities)[0], and the score is Spearman's
correlation of that share with the share of people who chose it. Past tense: 50 verbs; nouns of adjectives: 200 (-ity or -ness).

We correlate log(share / (1 - share)), which has the same ranks and does not saturate. A defect of the challenge's 2025 script is known: it
prints the correlation within the last batch only; its predictions file, and ours, give that of all items.

The standard error is (1 - r^2) sqrt((1 + r^2 / 2) / (n - 3)): Bonett and Wright 2000.
Source: Hofmann et al. 2024, arXiv:2411.07990 (adjectives); Weissweiler et al. 2023, arXiv:2310.15113 (past tense).
"""

import math
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from ritornello.errors import InputError
from ritornello.evals.files import Record, checksums, gap, record_files, records
from ritornello.evals.means import macro
from ritornello.evals.report import Row
from ritornello.evals.subject import Request
from ritornello.evals.suite import Outcome, Suite, Task, scored_task, spread

METRIC = "Spearman correlation"


def spearman(x: Tensor, y: Tensor) -> float:
    """Pearson's correlation of the ranks of (n,) values, equal values sharing their mean rank; NaN if all of one are equal."""
    ranks = torch.stack([_ranks(x), _ranks(y)])
    centred = ranks - ranks.mean(1, keepdim=True)
    return float((centred[0] * centred[1]).sum() / centred.square().sum(1).prod().sqrt())


def _ranks(values: Tensor) -> Tensor:
    _, place, count = values.unique(return_inverse=True, return_counts=True)
    return (count.cumsum(0) - (count - 1) / 2).double()[place]


def _tasks(path: Path, limit: int | None) -> list[Task]:
    tasks = []
    for name, published in checksums()["wug"].items():
        try:
            files = record_files(path / name)
            if name not in files:
                raise InputError(f"{path / name}: holds no {name}.jsonl")
            items = [_item(record) for record in records(files[name], published)]
            tasks.append(_task(name, spread(items, limit)))
        except InputError as error:
            tasks.append(gap(name, str(error)))
    return tasks


def _item(record: Record) -> tuple[list[str], float]:
    sentences = record.text("sentences").split("\t")
    if len(sentences) < 2:
        raise InputError(f"{record.where}: sentences must be two texts or more with tabs between, found one")
    return sentences, record.number("ratio")


def _task(name: str, items: Sequence[tuple[list[str], float]]) -> Task:
    def grade(log_probs: Tensor) -> Outcome:
        scores = log_probs.split([len(sentences) for sentences, _ in items])
        odds = torch.stack([each[0] - each[1:].logsumexp(0) for each in scores])
        chosen = [sentences[int(each.argmax())] for (sentences, _), each in zip(items, scores, strict=True)]
        shares = [share if math.isfinite(share) else None for share in odds.sigmoid().tolist()]
        predictions = tuple({"id": f"{name}_{index}", "pred": text, "prob": shares[index]} for index, text in enumerate(chosen))
        return Outcome((_row(name, odds, torch.tensor([ratio for _, ratio in items])),), predictions)

    return scored_task(name, items, [Request(sentence) for sentences, _ in items for sentence in sentences], grade)


def _row(name: str, model: Tensor, people: Tensor) -> Row:
    n, lost = len(model), int((~model.isfinite()).sum())
    if lost or n < 4:
        reason = f"{lost} of {n} items have no finite score" if lost else f"{n} items are too few to correlate"
        return Row("wug", name, METRIC, None, n=n, chance=0.0, reason=reason)
    r = spearman(model, people)
    if math.isnan(r):
        return Row("wug", name, METRIC, None, n=n, chance=0.0, reason="all items have the same score")
    return Row("wug", name, METRIC, r, (1 - r**2) * math.sqrt((1 + r**2 / 2) / (n - 3)), n, 0.0)


SUITE = Suite("wug", _tasks, lambda rows: (macro(rows),))
