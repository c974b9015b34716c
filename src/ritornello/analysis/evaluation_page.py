"""The page of an evaluation: every suite's main figure, published figures beside it, each task with its interval, and what is missing.

`render` reads results.json of the folder alone, so a page can be made again at any time.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from ritornello.analysis import numerals, page, plots, scores
from ritornello.analysis.phenomena import phenomenon
from ritornello.analysis.scores import Row
from ritornello.config import read_file
from ritornello.errors import InputError

COLUMNS = 3  # metrics a table has room for
GAP = "score"  # the metric of a task or suite that could not be scored at all


def render(folder: Path, published: Sequence[dict[str, Any]] = (), caveat: str = "") -> str:
    """The page as one HTML text. `published`: {"system", "words", "corpus", "scores" by suite, "source"}, accuracies from 0 to 1.

    Raises InputError if the folder has no results.json.
    """
    path = Path(folder) / "results.json"
    if not path.exists():
        raise InputError(f"{path}: no such file; give the folder that `ritornello evaluate` wrote")
    results = read_file(path)
    rows: list[Row] = results["rows"]
    suites = list(dict.fromkeys(row["suite"] for row in rows))
    heads = {suite: head for suite in suites if (head := _head([row for row in rows if row["suite"] == suite]))}
    subject = results.get("subject") or {}
    made_by = results.get("made_by") or {}
    view = {
        "name": subject.get("name") or "model",
        "protocol": subject.get("protocol"),
        "sentence": _sentence(heads, rows),
        "glance": [_glance(suite, head) for suite, head in heads.items()],
        "published": _published(heads, published),
        "caveat": caveat,
        "gaps": _gaps(rows),
        "suites": [_suite(suite, [row for row in rows if row["suite"] == suite]) for suite in heads],
        "seconds": [(scores.title(suite), numerals.duration(value)) for suite, value in (results.get("seconds") or {}).items()],
        "provenance": page.flatten({"subject": subject, **made_by}),
        "command": made_by.get("command"),
    }
    return page.environment().get_template("evaluation.html.j2").render(view)


def _head(rows: Sequence[Row]) -> Row | None:
    """The main figure of a suite: the first mean over its tasks, or the first of its figures; None if nothing was scored."""
    own = [row for row in rows if row["metric"] != GAP and row.get("by", "model") != "majority"]
    return next((row for row in own if row["task"].startswith("all")), own[0] if own else None)


def _gaps(rows: Sequence[Row]) -> list[tuple[str, str, str, str]]:
    """(suite, task, metrics, reason) of what has no value; metrics that lack it for the same reason are told together."""
    found: dict[tuple[str, str, str], list[str]] = {}
    for row in rows:
        if row["value"] is None:
            found.setdefault((scores.title(row["suite"]), row["task"], row["reason"]), []).append(row["metric"])
    told = {key: ", ".join(dict.fromkeys(metrics)) for key, metrics in found.items()}
    return [(suite, task, "not scored" if metrics == GAP else metrics, reason) for (suite, task, reason), metrics in told.items()]


def _sentence(heads: dict[str, Row], rows: Sequence[Row]) -> str:
    """The first accuracy there is, beside chance, and what is missing."""
    told = [(suite, row) for suite, row in heads.items() if numerals.is_fraction(row["metric"]) and row["value"] is not None]
    parts = []
    for suite, row in told[:1]:
        text = f"{numerals.score(row['metric'], row['value'])} on {scores.title(suite)}"
        parts.append(text + ("" if row["chance"] is None else f", where guessing gets {numerals.score(row['metric'], row['chance'])}"))
    if not told:
        parts.append("Nothing that can be right or wrong was scored")
    lost = len({(row["suite"], row["task"]) for row in rows if row["value"] is None})
    parts.append(f"{lost} result{'s have' if lost > 1 else ' has'} no value, and each says why" if lost else "nothing is missing")
    return "; ".join(parts) + "."


def _glance(suite: str, row: Row) -> dict[str, Any]:
    """A row of the first table: the main figure of a suite, drawn on 0 to 100 % where it is a share."""
    value, drawn = row["value"], Markup("")
    if value is not None and numerals.is_fraction(row["metric"]):
        drawn = plots.interval(value, row["stderr"], 0.0, 1.0, chance=row["chance"])
    return {
        "suite": scores.title(suite),
        "at": _anchor(suite),
        "metric": row["metric"] if row["task"] == "all" else f"{row['metric']}, {row['task'].removeprefix('all ')}",
        "value": None if value is None else numerals.score(row["metric"], value, row["stderr"]),
        "chance": "" if row["chance"] is None else numerals.score(row["metric"], row["chance"]),
        "n": f"{row['n']:,}" if row["n"] else "",
        "plot": drawn,
        "reason": row["reason"],
    }


def _published(heads: dict[str, Row], published: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """Strips and a table of the suites that others have figures for; None if there is none that was scored whole."""
    suites = [suite for suite, row in heads.items() if row["value"] is not None and any(suite in each["scores"] for each in published)]
    if not suites:
        return None
    systems = [each for each in published if any(suite in each["scores"] for suite in suites)]
    strips = []
    for suite in suites:
        row = heads[suite]
        others = [(_told(each, suite), each["scores"][suite]) for each in systems if suite in each["scores"]]
        values = [row["value"], *(value for _, value in others), *([] if row["chance"] is None else [row["chance"]])]
        low, high = max(0.0, min(values) - 0.03), min(1.0, max(values) + 0.03)
        strips.append(
            {
                "suite": scores.title(suite),
                "value": numerals.score(row["metric"], row["value"], row["stderr"]),
                "plot": plots.strip(row["value"], row["stderr"], others, low, high, row["chance"]),
                "axis": (f"{low * 100:.0f} %", f"{high * 100:.0f} %"),
            }
        )
    lines = [
        (each["system"], each["words"], each["corpus"], [_percent(each["scores"].get(suite)) for suite in suites], each["source"])
        for each in systems
    ]
    return {
        "strips": strips,
        "suites": [scores.title(suite) for suite in suites],
        "own": [_percent(heads[suite]["value"]) for suite in suites],
        "lines": lines,
    }


def _told(each: dict[str, Any], suite: str) -> str:
    return f"{each['system']}, {each['words']} words of {each['corpus']}: {_percent(each['scores'][suite])} %"


def _percent(value: float | None) -> str:
    return "" if value is None else f"{value * 100:.1f}"


def _suite(suite: str, rows: Sequence[Row]) -> dict[str, Any]:
    """A suite's tables: its means, its phenomena if it has any, its tasks, and the metrics that the tables have no room for."""
    kept = [row for row in rows if row["metric"] != GAP]
    metrics = list(dict.fromkeys(row["metric"] for row in kept))
    shown = [row for row in kept if row["metric"] in metrics[:COLUMNS]]
    rest = [row for row in kept if row["metric"] in metrics[COLUMNS:]]
    main = [row for row in rest if row["task"].startswith("all")] or rest
    (table,) = scores.suites(shown)
    groups = _phenomena(suite, shown)
    return table | {
        "at": _anchor(suite),
        "phenomena": scores.suites(groups)[0] if groups else None,
        "further": [(row["metric"], row["task"], row.get("by", "model"), _written(row), f"{row['n']:,}") for row in main],
        "gaps": [(row["task"], row["reason"]) for row in rows if row["metric"] == GAP],
    }


def _phenomena(suite: str, rows: Sequence[Row]) -> list[Row]:
    """The unweighted mean over the subtasks of each phenomenon; without a value where one of them has none."""
    found = []
    for metric in dict.fromkeys(row["metric"] for row in rows):
        groups: dict[str, list[Row]] = {}
        for row in rows:
            if row["metric"] == metric and (name := phenomenon(suite, row["task"])):
                groups.setdefault(name, []).append(row)
        found += [scores.mean(name, group) for name, group in groups.items()]
    return found


def _written(row: Row) -> str:
    return row["reason"] if row["value"] is None else numerals.score(row["metric"], row["value"], row["stderr"])


def _anchor(suite: str) -> str:
    return "suite-" + "".join(char if char.isalnum() else "-" for char in suite)
