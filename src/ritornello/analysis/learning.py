"""The learning curve: log.jsonl, one line a step, as two charts of at most a few hundred points.

The line is a centred mean over a fiftieth of the run, the band behind it what the single
steps reach, the dots the held-out text at each validation.
"""

import json
import math
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

from ritornello.analysis import numerals, plots
from ritornello.errors import InputError

POINTS = 200  # buckets a curve is thinned to
START = 0.06  # the share of the run whose losses, far above the rest, do not decide the scale
Spot = tuple[float, float, float]  # words, seconds, loss


def read_log(path: Path) -> list[dict[str, Any]]:
    """The records in order of their step. Where a run was resumed at an earlier step, what it did the first time is left out.

    A last line that a kill cut short is left out; any other line that is not JSON raises InputError.
    """
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").splitlines()
    records: list[dict[str, Any]] = []
    for index, line in enumerate(lines):
        try:
            record = json.loads(line)
            step = int(record["step"])
        except (json.JSONDecodeError, TypeError, KeyError) as error:
            if index + 1 < len(lines):
                raise InputError(f"{path}: line {index + 1} is not a JSON object with a step; delete it or start again") from error
            break
        while records and records[-1]["step"] >= step:
            records.pop()
        records.append(record)
    return records


def charts(log: Sequence[dict[str, Any]], baseline: tuple[str, float] | None) -> dict[str, Any]:
    """{"words", "time": SVG, "unit", "cut": whether the start is above the picture, "data": what the read-out needs}, or {"reason"}.

    In bits per byte if the log has them, else in bits per token and without the held-out dots and `baseline` (name, bits per byte).
    """
    unit, train = "bits per byte", _spots(log, "bits_per_byte")
    held = _spots(log, "held_out_bits_per_byte")
    if not train:
        unit, held, baseline = "bits per token", [], None
        train = [(words, seconds, loss / math.log(2)) for words, seconds, loss in _spots(log, "loss")]
    if not train:
        return {"reason": "log.jsonl holds no finished step."}
    smooth, band = _smooth(train), _band(train) if len(train) >= 100 else []
    held = held[:: math.ceil(len(held) / POINTS)] if held else held
    low, high = _range(smooth, band, held, baseline)
    charts = {"unit": unit, "cut": any(spot[2] > high for spot in train), "held": bool(held), "band": bool(band), "baseline": baseline}
    scales = {"words": max(train[-1][0], 1.0), "seconds": max(train[-1][1], 1e-9)}
    marks = (numerals.ticks(0, scales["words"], 5), numerals.time_ticks(scales["seconds"]))
    for axis, (key, label) in enumerate((("words", "words read"), ("time", "time, minutes:seconds"))):
        picked = [[(spot[axis], spot[2]) for spot in spots] for spots in (band, smooth, held)]
        charts[key] = plots.curve(
            lines=[("band", picked[0]), ("smooth", picked[1])],
            dots=("held", picked[2]) if held else None,
            level=(f"{baseline[0]}: {numerals.number(baseline[1])}", baseline[1]) if baseline else None,
            x=(label, scales[("words", "seconds")[axis]], marks[axis], (numerals.short, numerals.clock)[axis]),
            y=(unit, low, high),
            title=_describe(unit, label, smooth, held, baseline),
        )
    charts["data"] = {"low": low, "high": high, "unit": unit, **scales, "train": _plain(smooth), "held": _plain(held)}
    return charts


def _spots(log: Sequence[dict[str, Any]], key: str) -> list[Spot]:
    """(words, seconds, value) of the records that hold a finite value."""
    found = [(record.get("words") or 0, record.get("seconds") or 0, record.get(key)) for record in log]
    return [(float(words), float(seconds), float(value)) for words, seconds, value in found if value is not None and math.isfinite(value)]


def _smooth(spots: Sequence[Spot]) -> list[Spot]:
    """The centred mean over a fiftieth of the run, at POINTS places or fewer, the last step among them."""
    half, last = len(spots) // 100, len(spots) - 1
    sums = [0.0, *accumulate(spot[2] for spot in spots)]
    stride = math.ceil(len(spots) / POINTS)
    places = sorted({*range(0, len(spots), stride), last})
    points = []
    for place in places:
        before = min(half, place)
        after = min(before, last - place)  # symmetric at the steep start, not at the flat end
        points.append((*spots[place][:2], (sums[place + after + 1] - sums[place - before]) / (before + after + 1)))
    return points


def _band(spots: Sequence[Spot]) -> list[Spot]:
    """The outline of what single steps reach: the lowest of every few steps, then back along the highest."""
    stride = max(4, math.ceil(len(spots) / (POINTS // 2)))
    buckets = [spots[start : start + stride] for start in range(0, len(spots), stride)]
    middles = [bucket[len(bucket) // 2][:2] for bucket in buckets]
    middles[0], middles[-1] = spots[0][:2], spots[-1][:2]
    lowest = [(*middle, min(spot[2] for spot in bucket)) for middle, bucket in zip(middles, buckets, strict=True)]
    highest = [(*middle, max(spot[2] for spot in bucket)) for middle, bucket in zip(middles, buckets, strict=True)]
    return lowest + highest[::-1]


def _range(smooth: Sequence[Spot], band: Sequence[Spot], held: Sequence[Spot], baseline: tuple[str, float] | None) -> tuple[float, float]:
    """The lowest and highest loss to show: everything but the highest losses of the start."""
    begin = smooth[-1][0] * START if len(smooth) > 10 else 0.0
    level = [baseline[1]] if baseline else []
    shown = [spot[2] for spot in (*smooth, *held) if spot[0] >= begin] + level
    low = min([*shown, *(spot[2] for spot in band)])
    margin = (max(shown) - low) * 0.08 or 0.5
    return max(0.0, low - margin), max(shown) + margin


def _describe(unit: str, label: str, smooth: Sequence[Spot], held: Sequence[Spot], baseline: tuple[str, float] | None) -> str:
    text = f"Line chart of {unit} over {label}. Training falls from {numerals.number(smooth[0][2])} to {numerals.number(smooth[-1][2])}"
    text += f"; held-out text ends at {numerals.number(held[-1][2])}" if held else ""
    return text + (f"; {baseline[0]} is at {numerals.number(baseline[1])}." if baseline else ".")


def _plain(spots: Sequence[Spot]) -> list[list[float]]:
    return [[round(words), round(seconds, 1), round(value, 3)] for words, seconds, value in spots]
