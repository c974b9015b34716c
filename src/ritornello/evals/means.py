"""Means over the tasks of a suite. A task without a value leaves its mean without one: nothing is averaged over silently."""

import math
from collections.abc import Sequence

from ritornello.evals.report import Row


def means(rows: Sequence[Row], items: str = "all items") -> tuple[Row, ...]:
    """For each metric "all", the unweighted mean over tasks, as published scores are, and `items`, the mean over items."""
    found: list[Row] = []
    for metric in dict.fromkeys(row.metric for row in rows):
        tasks = [row for row in rows if row.metric == metric]
        found += [macro(tasks), pooled(tasks, items)]
    return tuple(found)


def macro(tasks: Sequence[Row], name: str = "all") -> Row:
    """The unweighted mean of tasks; its standard error is sqrt(sum se^2) over their number."""
    chances = [row.chance for row in tasks if row.chance is not None]
    chance = sum(chances) / len(tasks) if len(chances) == len(tasks) else None
    values = [row.value for row in tasks if row.value is not None]
    first, n = tasks[0], sum(row.n for row in tasks)
    if len(values) < len(tasks):
        lost = ", ".join(row.task for row in tasks if row.value is None)
        return Row(first.suite, name, first.metric, None, n=n, chance=chance, by=first.by, reason=f"no value for {lost}")
    stderr = math.sqrt(sum((row.stderr or 0) ** 2 for row in tasks)) / len(tasks)
    return Row(first.suite, name, first.metric, sum(values) / len(tasks), stderr, n, chance, first.by)


def pooled(tasks: Sequence[Row], name: str) -> Row:
    """The mean over the items of all tasks, with the standard error that the items themselves would give."""
    whole = macro(tasks, name)
    chance = None if whole.chance is None else sum(row.n * (row.chance or 0) for row in tasks) / whole.n
    if whole.value is None:
        return Row(whole.suite, name, whole.metric, None, n=whole.n, chance=chance, by=whole.by, reason=whole.reason)
    known = [(row.n, row.value or 0.0, row.stderr or 0.0) for row in tasks]
    mean = sum(n * value for n, value, _ in known) / whole.n
    variance = sum(n * (n * stderr**2 + (value - mean) ** 2) for n, value, stderr in known) / whole.n
    return Row(whole.suite, name, whole.metric, mean, math.sqrt(variance / whole.n), whole.n, chance, whole.by)
