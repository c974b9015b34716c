"""The page of a search for settings: the trials, best first, and held-out bits per byte over every setting.

`render` reads results.json of the folder alone, so a page can be made again at any time.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from ritornello.analysis import numerals, page, plots
from ritornello.config import read_file
from ritornello.errors import InputError

Trial = Mapping[str, Any]


def render(folder: Path) -> str:
    """The page as one HTML text. Raises InputError if the folder has no results.json."""
    file = Path(folder) / "results.json"
    if not file.exists():
        raise InputError(f"{file}: no such file; give the folder that `ritornello sweep` wrote")
    results = read_file(file)
    space, trials = results["asked"]["space"], results["trials"]
    scored = [trial for trial in trials if trial["bits_per_byte"] is not None]
    view = {
        "sentence": _sentence(trials, scored),
        "names": list(space),
        "rows": [_row(trial, space) for trial in trials],
        "charts": [(name, text, _chart(name, text, scored)) for name, text in space.items()] if scored else [],
        "base": page.flatten(results["asked"]["base"]),
        "seed": results["asked"]["seed"],
        "provenance": page.flatten(results["provenance"]),
        "command": results["provenance"].get("command"),
    }
    return page.environment().get_template("searching.html.j2").render(view)


def _sentence(trials: Sequence[Trial], scored: Sequence[Trial]) -> str:
    count = f"{len(trials)} trial{'s' * (len(trials) != 1)}"
    if not scored:
        return f"{count}, none of which has a score."
    best = scored[0]
    told = ", ".join(f"{name} {_short(value)}" for name, value in best["settings"].items())
    return f"Of {count} the best is {told}: {best['bits_per_byte']:.3f} bits per byte of unseen text, from one run with one seed."


def _row(trial: Trial, space: Mapping[str, str]) -> dict[str, Any]:
    return {
        "trial": trial["trial"],
        "bits": trial["failed"] or f"{trial['bits_per_byte']:.4f}",
        "settings": [_short(trial["settings"][name]) for name in space],
        "parameters": "–" if trial["parameters"] is None else f"{trial['parameters']:,}",
        "seconds": "–" if trial["seconds"] is None else numerals.duration(trial["seconds"]),
    }


def _chart(name: str, text: str, trials: Sequence[Trial]) -> Markup:
    """A dot for each trial: bits per byte over a setting, on a logarithmic axis where it was searched on one, or by choice."""
    choices = [_short(value) for value in dict.fromkeys(trial["settings"][name] for trial in trials)] if "|" in text else []
    log = text.endswith(":log")

    def across(value: Any) -> float:
        return float(choices.index(_short(value))) if choices else math.log10(value) if log else float(value)

    def write(mark: float) -> str:
        return choices[round(mark + low)] if choices else _short(10 ** (mark + low) if log else mark + low)

    places = [across(trial["settings"][name]) for trial in trials]
    low, high = (0.0, float(len(choices) - 1)) if choices else (min(places), max(places))
    marks = [float(index) for index in range(len(choices))] if choices else [0.0, (high - low) / 2, high - low]
    bits = [trial["bits_per_byte"] for trial in trials]
    pad = (max(bits) - min(bits)) * 0.1 or 0.05
    dots = [(place - low, value) for place, value in zip(places, bits, strict=True)]
    return plots.curve(
        lines=[],
        dots=("held", dots),
        level=None,
        x=(name, max(high - low, 1e-9), marks, write),
        y=("bits per byte", min(bits) - pad, max(bits) + pad),
        title=f"Bits per byte over {name}; the best trial has {_short(trials[0]['settings'][name])}.",
    )


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
