"""The page of a distillation: students beside their control, what each seed came to, learning by computation, and what differs.

`render` reads distill.json of the folder alone, so a page can be made again at any time.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from ritornello.analysis import numerals, page, plots, scores
from ritornello.analysis.dynamics import colour
from ritornello.config import read_file
from ritornello.errors import InputError

Table = Mapping[str, Any]
BITS, CONTROL = "bits_per_byte", "control"


def render(folder: Path) -> str:
    """The page as one HTML text. Raises InputError if the folder has no distill.json."""
    file = Path(folder) / "distill.json"
    if not file.exists():
        raise InputError(f"{file}: no such file; give the folder that `ritornello distill` wrote")
    found = read_file(file)
    systems, rows = found["systems"], found["rows"]
    names = [each["system"] for each in systems]
    metrics = sorted({name: None for each in systems for name in each["scores"]}, key=lambda name: name != BITS)
    leads = _leads(found)
    view = {
        "lead": leads[0] if leads else None,
        "leads": leads[1:],
        "scope": f"Bits per byte are of the held-out text of {found['held_out']}; lower is better.",
        "metrics": [_title(name) for name in metrics],
        "systems": [_system(each, metrics) | {"colour": colour(names, each["system"])} for each in systems],
        "teachers": [(row["name"].removeprefix("teacher "), f"{row['parameters']:,}", _bits(row)) for row in rows if "system" not in row],
        "forests": [forest for name in metrics if (forest := _forest(name, found["gains"]))],
        "curve": _curve(rows, names),
        "key": [(name, colour(names, name)) for name in names],
        "control": CONTROL in names,
        "differ": [(name, *(page.flatten({name: each})[0][1] for each in pair)) for name, pair in found["differences"].items()],
        "runs": [_run(row, metrics) for row in rows if "system" in row],
        "provenance": page.flatten(found["provenance"]),
        "command": found["command"],
    }
    return page.environment().get_template("teaching.html.j2").render(view)


def _title(name: str) -> str:
    return "bits per byte" if name == BITS else scores.title(name)


def _plain(name: str, value: float, sign: str = "") -> str:
    """Without its unit: three places of bits, one of per cent."""
    return (f"{value:{sign}.3f}" if name == BITS else f"{100 * value:{sign}.1f}").replace("-", "−")


def _interval(name: str, found: Table, sign: str = "") -> str:
    return f"[{_plain(name, found['low'], sign)}, {_plain(name, found['high'], sign)}]"


def _leads(found: Table) -> list[str]:
    """What can be said, of held-out text first; of one run each only how far it lies from its control."""
    gains = sorted(found["gains"], key=lambda gain: gain["score"] != BITS)
    if any(gain["low"] is not None for gain in gains):
        return [gain["sentence"][0].upper() + gain["sentence"][1:] for gain in gains]
    apart = [(row["name"], row["minus_control"]["value"]) for row in found["rows"] if "minus_control" in row]
    said = "{} lies {} bits per byte {} the control; one run each says nothing of other seeds."
    return [said.format(name, _plain(BITS, abs(value)), "below" if value < 0 else "above") for name, value in apart]


def _system(each: Table, metrics: Sequence[str]) -> dict[str, Any]:
    """A row of the table: means with their deviation and interval, then what it cost."""
    cells = []
    for name in metrics:
        value = each["scores"].get(name)
        spread = "" if value is None or value["sd"] is None else f"sd {_plain(name, value['sd'])}"
        interval = "" if value is None or value["low"] is None else _interval(name, value)
        cells.append(("–" if value is None else _plain(name, value["value"]), spread, interval))
    return {
        "system": each["system"],
        "alpha": f"{each['alpha']:g}",
        "cells": cells,
        "seeds": each["seeds"],
        "failed": each["failed"],
        "parameters": f"{each['parameters']:,}",
        "steps": f"{each['steps']:,}",
        "flop": numerals.power(each["flop"]),
    }


def _bits(row: Table) -> str:
    return numerals.score("bits per byte", row[BITS], row["stderr"])


def _run(row: Table, metrics: Sequence[str]) -> dict[str, Any]:
    """A run of one seed: where its own page is, and its scores."""
    apart = row.get("minus_control")
    told = [row["scores"].get(name) for name in metrics if name != BITS]
    return {
        "name": row["name"],
        "page": None if "failed" in row else f"{Path(row['path']).name}/report.html",
        "bits": row["failed"] if "failed" in row else _plain(BITS, row[BITS]),
        "apart": "" if apart is None else _plain(BITS, apart["value"], "+"),
        "scores": ["–" if value is None else _plain("", value) for value in told],
        "seconds": numerals.duration(row["seconds"]),
    }


def _forest(name: str, gains: Sequence[Table]) -> dict[str, Any] | None:
    """How far each kind of student lies from the control, drawn about the dashed line of no difference; nothing of single runs."""
    own = [gain for gain in gains if gain["score"] == name and gain["low"] is not None]
    if not own:
        return None
    wide = 1.1 * max(abs(end) for gain in own for end in (gain["low"], gain["high"])) or 1.0
    rows = [
        {
            "pair": f"{gain['system']} − control",
            "value": _plain(name, gain["value"], "+"),
            "interval": _interval(name, gain, "+"),
            "plot": plots.between(gain["value"], gain["low"], gain["high"], -wide, wide, level=0.0),
            "sentence": gain["sentence"],
        }
        for gain in own
    ]
    unit, better = ("bits per byte", "lower is better") if name == BITS else ("points", "higher is better")
    return {"title": _title(name), "better": better, "rows": rows, "ends": [_plain(name, -wide, "+"), f"{_plain(name, wide, '+')} {unit}"]}


def _curve(rows: Sequence[Table], names: Sequence[str]) -> Markup | None:
    """Held-out bits per byte by FLOP: the mean of the seeds, and a band from the lowest to the highest."""
    lines: list[tuple[str, Sequence[plots.Point]]] = []
    told = []
    for system in names:
        curves = [row["curve"] for row in rows if row.get("system") == system and row.get("curve")]
        if own := plots.averaged(curves, colour(names, system)):
            flop, bits = own[-1][1][-1]
            told.append(f"{system} {bits:.3f} after {numerals.power(flop)} FLOP")
            lines += own
    if not lines:
        return None
    lines.sort(key=lambda line: line[0].startswith("line"))
    right, ends = max(at for _, line in lines for at, _ in line), [bits for _, line in lines for _, bits in line]
    pad = (max(ends) - min(ends)) * 0.08 or 0.05
    return plots.curve(
        lines=lines,
        dots=None,
        level=None,
        x=("FLOP", right, numerals.ticks(0, right, 4), lambda mark: f"{mark:g}".replace("e+", "e")),
        y=("bits per byte", min(ends) - pad, max(ends) + pad),
        title=f"Held-out bits per byte by FLOP: {'; '.join(told)}.",
    )
