"""Learning dynamics: scores as functions of the words that a model has seen, as three numbers and as a page.

Of a curve y(w) through checkpoints w_1 < ... < w_n, the best being the highest, or for losses the lowest:

best      max y and the fewest words it is reached at
reach     the fewest words of a checkpoint whose y is at least a threshold, nothing between checkpoints being guessed. If none is given it
          lies halfway between chance and the best of all runs, and is left out where that best is within 1.96 standard errors of chance
area      the mean of y over log w: 1 / log(w_n / w_1) times the integral of y d(log w) by the trapezoid rule, so that who learns early
          scores higher; compare it over the same checkpoints only

A line of the table is one number: run, mixer, seed, words, step, suite, task, phenomenon, metric, value, stderr, n, chance, reason.
"""

import json
import math
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from markupsafe import Markup

from ritornello.analysis import numerals, page, plots, scores
from ritornello.config import read_file
from ritornello.errors import InputError

Line = dict[str, Any]  # of the table
Point = tuple[float, float]  # words, value
TRAINING, HELD_OUT = "training text", "held-out text"  # suites of what the log of a run says; all other suites were evaluated
NOTICED = 0.01  # bits a byte by which held-out text must get worse to be told as overfitting
FEW = 12  # tasks that are drawn each for itself, where there are no phenomena
COLOURS = 10


def best(points: Sequence[Point], lower: bool = False) -> Point:
    """The best value and the fewest words it is reached at, as (words, value)."""
    return min(points, key=lambda point: (point[1] if lower else -point[1], point[0]))


def first_to_reach(points: Sequence[Point], threshold: float, lower: bool = False) -> float | None:
    """The fewest words of a checkpoint at least as good as the threshold, None if none is."""
    return min((words for words, value in points if (value <= threshold if lower else value >= threshold)), default=None)


def area(points: Sequence[Point]) -> float | None:
    """The mean value over log words by the trapezoid rule; None from fewer than two checkpoints."""
    ordered = sorted(points)
    if len(ordered) < 2:
        return None
    pieces = [math.log(b[0] / a[0]) * (a[1] + b[1]) / 2 for a, b in pairwise(ordered)]
    return math.fsum(pieces) / math.log(ordered[-1][0] / ordered[0][0])


def read_table(folder: Path) -> list[Line]:
    """The lines of table.jsonl. InputError if the folder has none."""
    path = Path(folder) / "table.jsonl"
    if not path.exists():
        raise InputError(f"{path}: no such file; give the folder that `ritornello dynamics` wrote")
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def render(folder: Path, threshold: float | None = None) -> str:
    """The page of a folder as one HTML text, made of its table alone. Raises InputError if it has none."""
    table = read_table(folder)
    found = Path(folder) / "provenance.json"
    provenance = read_file(found) if found.exists() else {}
    runs = list(dict.fromkeys(line["run"] for line in table))
    suites = [suite for suite in dict.fromkeys(line["suite"] for line in table) if suite not in (TRAINING, HELD_OUT)]
    view = {
        "sentence": _sentence(table, runs),
        "key": [(run, _about(table, run), colour(runs, run)) for run in runs],
        "losses": [chart for run in runs if (chart := _loss(run, [line for line in table if line["run"] == run]))],
        "suites": [_suite(suite, [line for line in table if line["suite"] == suite], runs, threshold) for suite in suites],
        "gaps": _gaps(table),
        "threshold": threshold,
        "provenance": page.flatten(provenance),
        "command": provenance.get("command"),
    }
    return page.environment().get_template("dynamics.html.j2").render(view)


def _sentence(table: Sequence[Line], runs: Sequence[str]) -> str:
    words = sorted({line["words"] for line in table if line["suite"] not in (TRAINING, HELD_OUT)})
    who = f"{len(runs)} run" + "s" * (len(runs) > 1)
    if not words:
        return f"What the log of {who} says; no checkpoint was evaluated."
    span = (
        f"from {numerals.short(words[0])} to {numerals.short(words[-1])} words" if len(words) > 1 else f"{numerals.short(words[0])} words"
    )
    return f"{who.capitalize()} at {len(words)} moment{'s' * (len(words) > 1)} of training, {span}."


def _about(table: Sequence[Line], run: str) -> str:
    line = next(line for line in table if line["run"] == run)
    return f"{line['mixer']}, seed {line['seed']}"


def colour(runs: Sequence[str], run: str) -> str:
    """The CSS classes of a run's line: one of ten colours, dashed from the eleventh run on."""
    index = runs.index(run)
    return f"c{index % COLOURS}" + " dashed" * (index >= COLOURS)


def _loss(run: str, table: Sequence[Line]) -> dict[str, Any] | None:
    """Training and held-out loss of a run over words, and what became of the held-out loss in the end."""
    train, held = (sorted((line["words"], line["value"]) for line in table if line["suite"] == suite) for suite in (TRAINING, HELD_OUT))
    if not held or not train:
        return None
    lowest, last = best(held, lower=True), held[-1]
    worse, gap = last[1] - lowest[1], numerals.number(last[1] - train[-1][1]).replace("-", "−")
    told = f"Held-out text is predicted best after {numerals.short(lowest[0])} words"
    if worse < NOTICED:
        told += f" and at the end, after {numerals.short(last[0])}, as well." if worse else ", at the end."
    else:
        told += f"; by the end, after {numerals.short(last[0])}, it needs {numerals.number(worse)} bits a byte more: overfitting."
    told += f" There it needs {gap} bits a byte more than training text."
    values = [value for _, value in (*train, *held)]
    svg = by_words([("line c0", train), ("line c1", held)], "bits per byte", None, (min(values), max(values)), f"{run}. {told}")
    return {"run": run, "told": told, "svg": svg}


def _suite(suite: str, table: Sequence[Line], runs: Sequence[str], threshold: float | None) -> dict[str, Any]:
    """A suite's main metric over words: the mean over its tasks large, then phenomena, or few tasks, small; and their three numbers."""
    means = [line for line in table if line["task"].startswith("all")] or table
    metric, whole = means[0]["metric"], means[0]["task"]
    lines = [line for line in table if line["metric"] == metric and line["value"] is not None]
    parts = _parts(lines)
    main = [line for line in lines if line["task"] == whole]
    large = _chart(scores.title(suite), main, metric, runs, threshold, _span(main))
    shared = _span([line for part in parts.values() for line in part])  # small charts have one scale
    small = [_chart(name, part, metric, runs, threshold, shared) for name, part in parts.items()]
    return {
        "title": scores.title(suite),
        "metric": metric,
        "large": large,
        "small": small,
        "of": "phenomenon" if any(line["phenomenon"] for line in lines) else "task",
        "rows": [row for chart in (large, *small) for row in chart["rows"]],
    }


def _parts(lines: Sequence[Line]) -> dict[str, list[Line]]:
    """The lines of each phenomenon, one a run and moment: the mean over its subtasks; or those of each task, if they are few."""
    groups: dict[str, dict[tuple[str, float], list[Line]]] = {}
    for line in lines:
        if not line["task"].startswith("all"):
            groups.setdefault(line["phenomenon"] or line["task"].replace("_", " "), {}).setdefault((line["run"], line["words"]), []).append(
                line
            )
    if len(groups) > FEW:
        return {}
    most = {name: max(len(each) for each in group.values()) for name, group in groups.items()}
    return {name: [scores.mean(name, each) for each in group.values() if len(each) == most[name]] for name, group in sorted(groups.items())}


def _span(lines: Sequence[Line]) -> tuple[float, float]:
    """The lowest and highest value of all intervals, and of chance."""
    margins = [(line["value"], numerals.INTERVAL * (line["stderr"] or 0.0)) for line in lines]
    chances = [line["chance"] for line in lines if line["chance"] is not None]
    ends = [value + sign * margin for value, margin in margins for sign in (-1, 1)] + chances
    return min(ends, default=0.0), max(ends, default=1.0)


def _chart(
    name: str, lines: Sequence[Line], metric: str, runs: Sequence[str], threshold: float | None, span: tuple[float, float]
) -> dict[str, Any]:
    """{"name", "svg", "rows"}: a line for each run with its 95 % interval as a shade, over words."""
    lower = metric.startswith(scores.LOWER)
    drawn: list[tuple[str, list[Point]]] = []
    curves = {run: sorted((line for line in lines if line["run"] == run), key=lambda line: line["words"]) for run in runs}
    curves = {run: curve for run, curve in curves.items() if curve}
    for run, curve in curves.items():
        margin = [numerals.INTERVAL * (line["stderr"] or 0.0) for line in curve]
        outline = [(line["words"], line["value"] - each) for line, each in zip(curve, margin, strict=True)]
        outline += [(line["words"], line["value"] + each) for line, each in reversed(list(zip(curve, margin, strict=True)))]
        drawn += [(f"spread {colour(runs, run)}", outline)] * (len(curve) > 1)
        points = [(line["words"], line["value"]) for line in curve]
        drawn.append((f"line {colour(runs, run)}", points * 2 if len(points) == 1 else points))  # a line of no length is a dot
    drawn.sort(key=lambda line: line[0].startswith("line"))
    chance = next((line["chance"] for line in lines if line["chance"] is not None), None)
    level = None if chance is None else (f"chance {numerals.score(metric, chance)}", chance)
    reach = threshold if threshold is not None else _halfway([line for curve in curves.values() for line in curve], chance, lower)
    rows = [_numbers(name, run, curve, metric, reach, lower) | {"colour": colour(runs, run)} for run, curve in curves.items()]
    told = f"{name}: " + "; ".join(f"{row['run']} {row['best']} at {row['at']} words" for row in rows)
    return {"name": name, "svg": by_words(drawn, metric, level, span, told) if drawn else "", "rows": rows}


def _halfway(lines: Sequence[Line], chance: float | None, lower: bool) -> float | None:
    """Halfway between chance and the best of all; None where the best cannot be told from chance."""
    if chance is None or lower or not lines:
        return None
    top = max(lines, key=lambda line: line["value"])
    return (chance + top["value"]) / 2 if top["value"] - numerals.INTERVAL * (top["stderr"] or 0.0) > chance else None


def _numbers(name: str, run: str, curve: Sequence[Line], metric: str, reach: float | None, lower: bool) -> dict[str, Any]:
    points = [(line["words"], line["value"]) for line in curve]
    at, value = best(points, lower)
    stderr = next(line["stderr"] for line in curve if line["words"] == at)
    first, mean = None if reach is None else first_to_reach(points, reach, lower), area(points)
    return {
        "name": name,
        "run": run,
        "best": numerals.score(metric, value, stderr),
        "at": numerals.short(at),
        "threshold": "–" if reach is None else numerals.score(metric, reach),
        "reach": "–" if reach is None else "not reached" if first is None else numerals.short(first),
        "area": "–" if mean is None else numerals.score(metric, mean),
    }


def by_words(
    lines: Sequence[tuple[str, Sequence[Point]]], metric: str, level: tuple[str, float] | None, span: tuple[float, float], title: str
) -> Markup:
    """Lines over words on a logarithmic axis; a share is drawn in per cent, and not below 0 or above 100."""
    share = numerals.is_fraction(metric)
    times = 100 if share else 1
    pad = (span[1] - span[0]) * 0.08 or 0.05
    low, high = span[0] - pad, span[1] + pad
    low, high = (max(0.0, low), min(1.0, high)) if share else (low, high)
    words = [point[0] for _, line in lines for point in line]
    start, end = math.log10(min(words)), math.log10(max(words))
    marks = [mark for mark in _decades(start, end) if start - 1e-9 <= mark <= end + 1e-9]
    return plots.curve(
        lines=[(kind, [(math.log10(at) - start, min(high, max(low, value)) * times) for at, value in line]) for kind, line in lines],
        dots=None,
        level=level and (level[0], level[1] * times),
        x=(
            "words seen",
            max(end - start, 1e-9),
            [mark - start for mark in marks],
            lambda mark: numerals.short(round(10 ** (mark + start))),
        ),
        y=(f"{metric}, %" if share else metric, low * times, high * times),
        title=title,
    )


def _decades(start: float, end: float) -> list[float]:
    """Logarithms of round numbers between: 1, 10, 100 ... if these are three or more, else also 2 and 5."""
    powers = range(math.floor(start), math.ceil(end) + 1)
    whole = [float(power) for power in powers if start <= power <= end]
    return whole if len(whole) > 2 else [power + math.log10(factor) for power in powers for factor in (1, 2, 5)]


def _gaps(table: Sequence[Line]) -> list[tuple[str, str]]:
    """(where, reason) of what has no value."""
    lost = [line for line in table if line["value"] is None]
    told = {
        (f"{line['run']} at {numerals.short(line['words'])} words: {scores.title(line['suite'])}, {line['task']}", line["reason"])
        for line in lost
    }
    return sorted(told)
