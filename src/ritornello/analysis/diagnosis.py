"""The page of a diagnosis: a heat-map of architecture against task, and every task's scores by length.

`render` reads what a diagnosis left in its folder: config.json says how all was trained, each line of cells.jsonl is one mixer
on one task with one seed. Cells that were trained otherwise stay in the file and are not shown.
"""

import json
import re
from collections.abc import Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any

from markupsafe import Markup

from ritornello.analysis import numerals, page, plots
from ritornello.config import read_file
from ritornello.errors import InputError

AT = 4  # the heat-map is read at this many training lengths
SOLVED = 0.95  # normalised score from which a task counts as solved
SURE = 0.98  # accuracy from which one of several questions counts as answered
COLOURS = 10
UNITS = {"accuracy": "accuracy", "exact": "strings wholly right", "explained": "variance explained"}

Cell = dict[str, Any]  # a trial and its points, as diagnostics.trial.run returns them


def read_cells(path: Path) -> list[Cell]:
    """The finished cells. A last line that a kill cut short is left out; any other that is not JSON raises InputError."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    cells: list[Cell] = []
    for number, line in enumerate(lines, 1):
        try:
            cell = json.loads(line)
            cells.append(cell | {"points": cell["points"]})
        except (json.JSONDecodeError, TypeError, KeyError) as error:
            if number < len(lines):
                raise InputError(f"{path}: line {number} is not a finished cell; delete it") from error
    return cells


def load(folder: Path) -> tuple[dict[str, Any], list[Cell]]:
    """The config of a diagnosis and its cells that were trained as it says."""
    folder = Path(folder)
    if not (folder / "config.json").exists():
        raise InputError(f"{folder}: no config.json there; give the folder that `ritornello diagnose` wrote")
    config = read_file(folder / "config.json")
    training = config["training"]
    cells = read_cells(folder / "cells.jsonl")
    return config, [cell for cell in cells if all(cell.get(name) == value for name, value in training.items())]


def normalised(score: float, chance: float) -> float:
    """0 at chance, 1 where everything is right; below 0 for worse than a constant."""
    return (score - chance) / (1 - chance)


def median(values: Sequence[float]) -> float:
    """The middle value, or the mean of the two in the middle."""
    ordered, half = sorted(values), len(values) // 2
    return ordered[half] if len(ordered) % 2 else (ordered[half - 1] + ordered[half]) / 2


def summarise(config: dict[str, Any], cells: Sequence[Cell]) -> list[dict[str, Any]]:
    """One row for each mixer and task that has cells, in the config's order: its score at each length over the seeds.

    {"mixer", "task", "seeds", "failed": reasons, "points": [{"length", "median", "low", "high", "best", "stderr", "n"}], "normalised":
    {"median", "low", "high"} at four training lengths, None if every seed failed}. `stderr` and n are of the first seed. Where several
    questions are asked at once, a point also has "answered": how many of the first ones the best seed answers, to 98 %.
    """
    rows = []
    for task in _order(config["tasks"], [cell["task"] for cell in cells]):
        for mixer in _order(config["mixers"], [cell["mixer"] for cell in cells]):
            own = sorted((cell for cell in cells if (cell["mixer"], cell["task"]) == (mixer, task)), key=lambda cell: cell["seed"])
            if own:
                rows.append(_summary(own, config["training"]["length"] * AT))
    return rows


def _summary(own: Sequence[Cell], at: int) -> dict[str, Any]:
    first = own[0]
    points = []
    for column in zip(*(cell["points"] for cell in own if cell["points"]), strict=True):
        scores = [point["score"] for point in column]
        spread = {"median": median(scores), "low": min(scores), "high": max(scores), "best": max(scores)}
        points.append({"length": column[0]["length"]} | spread | {"stderr": column[0]["stderr"], "n": column[0]["n"]})
        if "heads" in column[0]:
            points[-1]["answered"] = max(sum(1 for _ in takewhile(lambda score: score >= SURE, point["heads"])) for point in column)
    there = next((point for point in points if point["length"] == at), None)
    return {
        "mixer": first["mixer"],
        "task": first["task"],
        "seeds": sum(bool(cell["points"]) for cell in own),
        "failed": [f"seed {cell['seed']}: {cell['reason']}" for cell in own if cell.get("reason")],
        "parameters": first["parameters"],
        "seconds": sum(cell["seconds"] for cell in own),
        "points": points,
        "normalised": there and {name: normalised(there[name], first["chance"]) for name in ("median", "low", "high")},
    }


def render(folder: Path) -> str:
    """The page of a diagnosis folder as one HTML text. Raises InputError if it holds none."""
    folder = Path(folder)
    config, cells = load(folder)
    rows = summarise(config, cells)
    mixers, tasks = (list(dict.fromkeys(row[name] for row in rows)) for name in ("mixer", "task"))
    mixers = _order(config["mixers"], mixers)
    provenance = read_file(folder / "provenance.json") if (folder / "provenance.json").exists() else {}
    length = config["training"]["length"]
    view = {
        "length": length,
        "at": length * AT,
        "sentence": _sentence(rows, mixers, tasks, length),
        "tasks": tasks,
        "heat": [(_breakable(mixer), _colour(mixers, mixer), [_tile(rows, mixer, task) for task in tasks]) for mixer in mixers],
        "levels": range(page.LEVELS),
        "charts": [_chart(task, [row for row in rows if row["task"] == task], cells, mixers) for task in tasks],
        "convolved": [mixer for mixer in mixers if any(cell["mixer"] == mixer and cell["settings"].get("conv") for cell in cells)],
        "settings": page.flatten(config["training"]),
        "provenance": page.flatten(provenance),
        "command": provenance.get("command"),
    }
    return page.environment().get_template("diagnosis.html.j2").render(view)


def _order(first: Sequence[str], found: Sequence[str]) -> list[str]:
    """All of `found` once, those named first in that order."""
    return [name for name in dict.fromkeys([*first, *found]) if name in found]


def _colour(mixers: Sequence[str], mixer: str) -> str:
    """The CSS classes of a mixer's line: one of ten colours, dashed from the eleventh mixer on."""
    index = mixers.index(mixer)
    return f"c{index % COLOURS}" + " dashed" * (index >= COLOURS)


def _sentence(rows: Sequence[dict[str, Any]], mixers: Sequence[str], tasks: Sequence[str], length: int) -> str:
    """Who solves how many tasks, in one plain sentence."""
    solved = {mixer: 0 for mixer in mixers}
    for row in rows:
        solved[row["mixer"]] += bool(row["normalised"] and row["normalised"]["median"] >= SOLVED)
    if not rows:
        return "Nothing is finished yet."
    ranked = sorted(solved.items(), key=lambda pair: -pair[1])
    told = ", ".join(f"{mixer} {'solves ' * (place == 0)}{count}" for place, (mixer, count) in enumerate(ranked))
    what = f"{len(tasks)} task" + "s" * (len(tasks) > 1)
    return f"Trained on sequences of up to {length} steps and tested at {length * AT}. Of {what} {told}."


def _tile(rows: Sequence[dict[str, Any]], mixer: str, task: str) -> dict[str, Any]:
    """A cell of the heat-map: colour level, number, what stands below it."""
    row = next((row for row in rows if (row["mixer"], row["task"]) == (mixer, task)), None)
    if row is None or row["normalised"] is None:
        return {"level": None, "number": "–", "notes": ["not run"] if row is None else row["failed"]}
    value = row["normalised"]
    level = min(page.LEVELS - 1, max(0, round(value["median"] * (page.LEVELS - 1))))
    seeds = f"{row['seeds']} seed" + "s" * (row["seeds"] > 1)
    spread = [f"{_plain(value['low'])} to {_plain(value['high'])}"] * (row["seeds"] > 1)
    return {"level": level, "number": _plain(value["median"]), "notes": [*spread, seeds, *row["failed"]]}


def _chart(task: str, rows: Sequence[dict[str, Any]], cells: Sequence[Cell], mixers: Sequence[str]) -> dict[str, Any]:
    """{"task", "about", "svg", "key", "lengths", "rows"}: a line for each mixer over the lengths, doubling from mark to mark."""
    cell = next(cell for cell in cells if cell["task"] == task)
    unit, chance = UNITS[cell["metric"]], cell["chance"]
    drawn = [row for row in rows if row["points"]]
    lengths = [point["length"] for point in drawn[0]["points"]] if drawn else []
    lines: list[tuple[str, list[plots.Point]]] = []
    for row in drawn:
        colour, points = _colour(mixers, row["mixer"]), list(enumerate(row["points"]))
        if row["seeds"] > 1:
            outline = [(float(x), point["low"]) for x, point in points] + [(float(x), point["high"]) for x, point in reversed(points)]
            lines.append((f"spread {colour}", [(x, max(0.0, y)) for x, y in outline]))
        lines.append((f"line {colour}", [(float(x), max(0.0, point["median"])) for x, point in points]))
    lines.sort(key=lambda line: line[0].startswith("line"))  # lines lie above all shades
    told = "; ".join(f"{row['mixer']} {', '.join(_plain(point['median']) for point in row['points'])}" for row in drawn)
    svg = plots.curve(
        lines=lines,
        dots=None,
        level=(f"chance {_plain(chance)}", chance) if chance else None,
        x=("length", float(max(1, len(lengths) - 1)), list(range(len(lengths))), lambda mark: str(lengths[int(mark)])),
        y=(unit, -0.02, 1.03),
        title=f"{task}: {unit} at lengths {', '.join(map(str, lengths))}. {told}.",
    )
    ranked = sorted(drawn, key=lambda row: -row["normalised"]["median"])
    return {
        "task": task,
        "about": cell["about"],
        "unit": unit,
        "svg": svg if drawn else Markup(""),
        "key": [(row["mixer"], _colour(mixers, row["mixer"])) for row in ranked],
        "lengths": lengths,
        "asks": any("answered" in point for row in drawn for point in row["points"]),
        "rows": [_numbers(row, cell) for row in rows],
    }


def _numbers(row: dict[str, Any], cell: Cell) -> dict[str, Any]:
    """A row of a task's table. One seed: the 95 % interval over sequences; several: from the lowest to the highest."""

    def written(point: dict[str, Any]) -> str:
        answered = f", {point['answered']} questions" if "answered" in point else ""
        if row["seeds"] > 1:
            return f"{_plain(point['median'])} ({_plain(point['low'])} to {_plain(point['high'])}){answered}"
        return f"{_plain(point['median'])} ± {point['stderr'] * numerals.INTERVAL:.2f}{answered}"

    return {
        "mixer": row["mixer"],
        "cells": [written(point) for point in row["points"]],
        "n": row["points"][0]["n"] if row["points"] else 0,
        "seeds": row["seeds"],
        "parameters": f"{row['parameters']:,}",
        "seconds": numerals.number(round(row["seconds"])),
        "failed": "; ".join(row["failed"]),
    }


def _breakable(name: str) -> Markup:
    """A name with settings may go on in the next line behind a bracket, an equals sign or a comma."""
    return Markup("").join(Markup("{}<wbr>").format(part) for part in re.split(r"(?<=[(=,])", name))


def _plain(value: float) -> str:
    """Two places, a true minus, no -0.00."""
    text = f"{value:.2f}"
    return "0.00" if text == "-0.00" else text.replace("-", "−")
