"""The pictures of docs/results/babyhgrn.md: systems, or switches, one below the other, on held-out text and on BLiMP."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from markupsafe import Markup

from benchmarks.pictures import WIDTH, card, words
from ritornello.analysis import numerals
from ritornello.experiments.statistics import Estimate, Scores

NAMES, GAP, EDGE = 196, 36, 24  # pixels: for the names of the rows, between the panels, beside them
ROW, TOP = 30, 122  # pixels: of a row, above the first


class Mark(NamedTuple):
    """A row in a panel: a dot, a line from low to high if there is one, and what lies behind it as small rings."""

    value: float
    low: float | None = None
    high: float | None = None
    rings: tuple[float, ...] = ()
    clear: bool = True  # drawn in colour: what can be told


class Panel(NamedTuple):
    """One scale for all rows, with a dashed line at a level worth comparing with."""

    title: str
    marks: Mapping[str, Mark]
    level: tuple[str, float] | None = None


def of_systems(found: Scores, percent: bool) -> Mark:
    """A system's mean among its seeds."""
    times = 100 if percent else 1
    means = [times * sum(row.values()) / len(row) for row in found.values()]
    return Mark(sum(means) / len(means), rings=tuple(means))


def of_difference(found: Estimate, percent: bool) -> Mark:
    """A difference with its interval, in colour where that leaves out 0."""
    times = 100 if percent else 1
    if found.low is None or found.high is None:
        return Mark(times * found.value, clear=False)
    return Mark(times * found.value, times * found.low, times * found.high, clear=found.low > 0 or found.high < 0)


def draw(title: str, under: str, rows: Sequence[str], panels: Sequence[Panel]) -> str:
    """The picture: a line for each row, a column for each panel."""
    across = (WIDTH - NAMES - EDGE - GAP * (len(panels) - 1)) / len(panels)
    bottom = TOP + ROW * len(rows)
    parts = [words("end name", NAMES - 16, TOP + ROW * (at + 0.5) + 4, name) for at, name in enumerate(rows)]
    for number, panel in enumerate(panels):
        parts += _panel(panel, rows, NAMES + number * (across + GAP), across, bottom)
    return card(title, under, parts, bottom + 48)


def _panel(panel: Panel, rows: Sequence[str], left: float, across: float, bottom: float) -> list[Markup]:
    reached = [each for mark in panel.marks.values() for each in (mark.value, mark.low, mark.high, *mark.rings) if each is not None]
    reached += [panel.level[1]] if panel.level else []
    low, high = min(reached), max(reached)
    margin = 0.06 * (high - low or 1.0)
    low, high = low - margin, high + margin

    def x(value: float) -> float:
        return left + across * (value - low) / (high - low)

    parts = [words("soft", left, TOP - 34, panel.title)]
    marks = numerals.ticks(low, high, about=4)
    for mark, text in zip(marks, numerals.aligned(marks), strict=True):
        parts.append(_line("grid", x(mark), TOP - 8, x(mark), bottom))
        parts.append(words("middle tick", x(mark), bottom + 20, text.replace("-", "−")))
    if panel.level:
        name, value = panel.level
        parts.append(_line("level", x(value), TOP - 8, x(value), bottom))
        side = "end tick" if x(value) > left + across / 2 else "tick"
        parts += [words(side, x(value), TOP - 14, name)] if name else []
    for at, row in enumerate(rows):
        if row in panel.marks:
            parts += _mark(panel.marks[row], x, TOP + ROW * (at + 0.5))
    return parts


def _mark(mark: Mark, x: Callable[[float], float], y: float) -> list[Markup]:
    colour = "--c0" if mark.clear else "--c6"
    ring = Markup('<circle cx="{:.1f}" cy="{:.1f}" r="3" style="fill:none;stroke:var({});opacity:.55"/>')
    parts = [ring.format(x(each), y, colour) for each in mark.rings]
    if mark.low is not None and mark.high is not None:
        line = '<line x1="{:.1f}" x2="{:.1f}" y1="{y:.1f}" y2="{y:.1f}" style="stroke:var({});stroke-width:2.4;stroke-linecap:round"/>'
        parts.append(Markup(line).format(x(mark.low), x(mark.high), colour, y=y))
    return [*parts, Markup('<circle cx="{:.1f}" cy="{:.1f}" r="5" style="fill:var({})"/>').format(x(mark.value), y, colour)]


def _line(kind: str, x1: float, y1: float, x2: float, y2: float) -> Markup:
    return Markup('<line class="{}" x1="{:.1f}" y1="{:.1f}" x2="{:.1f}" y2="{:.1f}"/>').format(kind, x1, y1, x2, y2)
