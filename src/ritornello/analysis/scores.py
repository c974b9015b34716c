"""Rows of a report as tables: one a suite, the sum first, subtasks after it, each row with its interval drawn."""

import math
from collections.abc import Sequence
from typing import Any

from ritornello.analysis import numerals, plots

Row = dict[str, Any]  # evals.report.Row as plain JSON
TITLES = {
    "held-out": "Held-out text",
    "blimp": "BLiMP, filtered",
    "blimp-full": "BLiMP",
    "blimp-fast": "BLiMP, fast",
    "supplement": "BLiMP supplement, filtered",
    "supplement-fast": "BLiMP supplement, fast",
    "ewok": "EWoK, filtered",
    "ewok-full": "EWoK",
    "bear": "BEAR",
    "bear-big": "BEAR-big",
    "entity": "entity tracking",
    "wug": "wug test",
    "reading": "reading times",
    "glue": "GLUE",
}


LOWER = ("bits per", "perplexity")  # metrics that begin so are better when lower


def title(suite: str) -> str:
    """What people call a suite; what is said of it in brackets stays."""
    name, bracket, rest = suite.partition(" (")
    return TITLES.get(name, name.replace("_", " ")) + bracket + rest


def mean(name: str, rows: Sequence[Row]) -> Row:
    """The unweighted mean of rows of one metric, its standard error sqrt(sum se^2) / k; without a value if one of the k has none."""
    first, k = rows[0], len(rows)
    row = first | {"task": name, "n": sum(row["n"] for row in rows), "value": None, "stderr": None, "reason": None}
    if lost := [row["task"] for row in rows if row["value"] is None]:
        return row | {"reason": f"no value for {', '.join(lost)}"}
    stderr = math.sqrt(sum((row["stderr"] or 0.0) ** 2 for row in rows)) / k
    return row | {"value": sum(row["value"] for row in rows) / k, "stderr": stderr}


def suites(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """One table a suite, in the order of the rows: {"title", "metrics", "better", "axis", "rows", "folded"}.

    The first metric of a suite is the one drawn. Rows whose task is not "all" or "all ..." are `folded`, best first.
    """
    return [_suite(name, [row for row in rows if row["suite"] == name]) for name in dict.fromkeys(row["suite"] for row in rows)]


def _cell(row: Row) -> str:
    if row.get("value") is None:
        return "–"
    return numerals.score(row["metric"], row["value"], row.get("stderr"))


def _suite(name: str, rows: Sequence[Row]) -> dict[str, Any]:
    metrics = list(dict.fromkeys(row["metric"] for row in rows))
    grouped: dict[tuple[str, str], dict[str, Row]] = {}
    for row in rows:
        grouped.setdefault((row["task"], row.get("by", "model")), {})[row["metric"]] = row
    scale = _scale([row for row in rows if row["metric"] == metrics[0] and row.get("value") is not None])
    lines = [_line(task, by, cells, metrics, scale) for (task, by), cells in grouped.items()]
    main = [line for line in lines if line["task"].startswith("all")]
    folded = [line for line in lines if not line["task"].startswith("all")]
    higher = not metrics[0].startswith(LOWER)
    folded.sort(key=lambda line: math.inf if line["value"] is None else -line["value"] if higher else line["value"])
    chance = next((row["chance"] for row in rows if row.get("chance") is not None), None)
    return {
        "title": title(name),
        "metrics": [metric.partition(" (")[0] if " minus " in metric else metric for metric in metrics],
        "better": "higher is better" if higher else "lower is better",
        "chance": None if chance is None else numerals.score(metrics[0], chance),
        "axis": [_end(metrics[0], end) for end in scale] if scale else [],
        "rows": main or folded,
        "folded": folded if main else [],
    }


def _line(task: str, by: str, cells: dict[str, Row], metrics: Sequence[str], scale: tuple[float, float] | None) -> dict[str, Any]:
    first = cells.get(metrics[0], {})
    value = first.get("value")
    plot: str = first.get("reason") or ""
    if value is not None and scale is not None:
        plot = plots.interval(value, first.get("stderr"), *scale, chance=first.get("chance"), own=by == "model")
    return {
        "task": task,
        "by": by,
        "value": value,
        "plot": plot,
        "n": max((row.get("n") or 0 for row in cells.values()), default=0),
        "cells": [_cell(cells[metric]) if metric in cells else "" for metric in metrics],
    }


def _scale(rows: Sequence[Row]) -> tuple[float, float] | None:
    """0 to 1 for fractions; else all intervals with a third of their span on either side, but not below 0 for what cannot be."""
    finite = [row for row in rows if math.isfinite(row["value"])]
    if not finite:
        return None
    if numerals.is_fraction(finite[0]["metric"]):
        return 0.0, 1.0
    margins = [(row["value"], (row.get("stderr") or 0.0) * numerals.INTERVAL) for row in finite]
    low, high = min(value - margin for value, margin in margins), max(value + margin for value, margin in margins)
    pad = (high - low) / 3 or abs(high) * 0.1 or 1.0
    return max(0.0, low - pad) if min(value for value, _ in margins) >= 0 else low - pad, high + pad


def _end(metric: str, value: float) -> str:
    return f"{value * 100:.0f} %" if numerals.is_fraction(metric) else numerals.number(value)
