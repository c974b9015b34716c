"""Charts as inline SVG that fit any width without a script.

Lines live in a nested SVG of 1,000 by 1,000 units that is stretched (strokes are not); dots, bars and
words are placed by per cent, so letters stay as large on a phone as on a desk.
"""

import math
from collections.abc import Callable, Sequence

from markupsafe import Markup

from ritornello.analysis import numerals

Point = tuple[float, float]


def curve(
    lines: Sequence[tuple[str, Sequence[Point]]],
    dots: tuple[str, Sequence[Point]] | None,
    level: tuple[str, float] | None,
    x: tuple[str, float, Sequence[float], Callable[[float], str]],
    y: tuple[str, float, float],
    title: str,
) -> Markup:
    """Lines (CSS class, points), dots, and a dashed level over x = (label, highest, ticks, how to write one) and y = (label, low, high).

    What lies above `high` is cut off.
    """
    label, right, marks, write = x
    unit, low, high = y

    def across(value: float) -> float:
        return value / right if right else 0.0

    def down(value: float) -> float:
        return 1 - (value - low) / (high - low)

    parts = [_text("unit", 0, 0, unit, dx=-38, dy=-14)]
    rungs = numerals.ticks(low, high)
    for mark, text in zip(rungs, numerals.aligned(rungs), strict=True):
        parts += [_rule("grid", (0, down(mark)), (1, down(mark))), _text("tick y", 0, down(mark), text, dx=-8, dy=4)]
    for mark in marks:
        parts += [_rule("grid down", (across(mark), 1), (across(mark), 1), dy=5), _text("tick x", across(mark), 1, write(mark), dy=20)]
    parts.append(_text("tick name", 1, 1, label, dy=40))
    paths = [Markup('<path class="{}" d="{}"/>').format(name, _path([(across(a), down(b)) for a, b in points])) for name, points in lines]
    parts.append(
        Markup('<svg class="stretch" viewBox="0 0 1000 1000" preserveAspectRatio="none" width="100%" height="100%">{}</svg>').format(
            Markup("").join(paths)
        )
    )
    if level is not None:
        parts += [_rule("level", (0, down(level[1])), (1, down(level[1]))), _text("level-name", 1, down(level[1]), level[0], dy=-7)]
    if dots is not None:
        parts += [_dot(dots[0], across(a), down(b), 3.5) for a, b in dots[1] if b <= high]
    parts.append(Markup('<g class="cursor" hidden><line y1="0" y2="100%"/><circle r="4"/></g>'))
    return Markup('<svg class="chart" role="img" aria-label="{}" width="100%" height="100%">{}</svg>').format(title, Markup("").join(parts))


def interval(value: float, stderr: float | None, low: float, high: float, chance: float | None = None, own: bool = True) -> Markup:
    """One row of an interval plot on the scale low..high: a dot with its 95 % interval, a dashed mark for chance."""
    margin = (stderr or 0.0) * numerals.INTERVAL
    begin, end = (value - margin, value + margin) if margin else (None, None)
    return between(value, begin, end, low, high, level=chance, own=own)


def averaged(curves: Sequence[Sequence[Point]], kind: str) -> list[tuple[str, Sequence[Point]]]:
    """Lines for `curve` of several runs that were measured at the same places: of more than one a band from the lowest to the highest, then
    the mean. As many points as the shortest has; nothing of curves without points.
    """
    columns = list(zip(*curves, strict=False))
    if not columns:
        return []
    places, values = [column[0][0] for column in columns], [[value for _, value in column] for column in columns]
    lines: list[tuple[str, Sequence[Point]]] = []
    if len(curves) > 1:
        low, high = ([(at, end(each)) for at, each in zip(places, values, strict=True)] for end in (min, max))
        lines.append((f"spread {kind}", low + high[::-1]))
    return [*lines, (f"line {kind}", [(at, sum(each) / len(each)) for at, each in zip(places, values, strict=True)])]


def between(
    value: float, begin: float | None, end: float | None, low: float, high: float, level: float | None = None, own: bool = True
) -> Markup:
    """One row of an interval plot on the scale low..high: a dot, its interval from begin to end if there is one, a dashed mark at a level.

    It repeats the number that stands beside it, so it is hidden from screen readers.
    """

    def across(at: float) -> float:
        return min(1.0, max(0.0, (at - low) / (high - low)))

    parts = [_rule("grid", (0, 0.5), (1, 0.5))]
    if level is not None:
        parts.append(_rule("chance", (across(level), 0), (across(level), 1)))
    if begin is not None and end is not None:
        parts.append(_rule("whisker", (across(begin), 0.5), (across(end), 0.5)))
    parts.append(_dot("dot", across(value), 0.5, 4.5))
    kind = "interval" if own else "interval other"
    return Markup('<svg class="{}" aria-hidden="true" width="100%" height="20">{}</svg>').format(kind, Markup("").join(parts))


def strip(value: float, stderr: float | None, others: Sequence[tuple[str, float]], low: float, high: float, chance: float | None) -> Markup:
    """One value with its 95 % interval among those of others, (name, value), which are told where one points at them."""

    def across(at: float) -> float:
        return min(1.0, max(0.0, (at - low) / (high - low)))

    margin = (stderr or 0.0) * numerals.INTERVAL
    parts = [_rule("grid", (0, 0.5), (1, 0.5))]
    if chance is not None:
        parts.append(_rule("chance", (across(chance), 0), (across(chance), 1)))
    other = Markup('<circle class="else" cx="{}" cy="50%" r="5"><title>{}</title></circle>')
    parts += [other.format(_percent(across(at)), name) for name, at in others]
    parts += [_rule("whisker", (across(value - margin), 0.5), (across(value + margin), 0.5)), _dot("dot", across(value), 0.5, 6.5)]
    return Markup('<svg class="interval strip" aria-hidden="true" width="100%" height="28">{}</svg>').format(Markup("").join(parts))


def log_bar(value: float, low: float, high: float, kind: str, title: str) -> Markup:
    """A bar on a logarithmic scale, with a line at every factor of 1,000."""
    grid = Markup("").join(_rule("grid", (at, 0), (at, 1)) for _, at in _thousands(low, high))
    bar = Markup('<rect class="{}" width="{}" height="14" y="4" rx="3"/>').format(kind, _percent(_log_share(value, low, high)))
    return Markup('<svg class="bar" role="img" aria-label="{}" width="100%" height="22">{}{}</svg>').format(title, grid, bar)


def log_axis(low: float, high: float) -> Markup:
    """The sizes that the lines of `log_bar` stand for."""
    names = Markup("").join(_text("tick", at, 0, numerals.nbytes(size), dy=12) for size, at in _thousands(low, high))
    return Markup('<svg class="bar" aria-hidden="true" width="100%" height="16">{}</svg>').format(names)


def staff(bits: Sequence[float], title: str) -> Markup:
    """Surprisals as a melody between repeat signs: a note a token, a step up for every bit or so, on five lines."""
    gap, left, top = 20, 40, 34  # pixels between notes, before the first note, above the upper line
    most = max(8.0, min(16.0, max(bits, default=8.0)))
    lines = [Markup('<line class="line" x1="0" x2="100%" y1="{0}" y2="{0}"/>').format(top + 10 * row) for row in range(5)]
    notes = [_note(left + gap * index, round(min(value, most) / most * 12), top) for index, value in enumerate(bits)]
    return Markup('<svg class="staff" role="img" aria-label="{}" width="100%" height="108">{}{}{}{}</svg>').format(
        title, Markup("").join(lines), Markup("").join(notes), _repeat(top, 0, "0"), _repeat(top, 1, "100%")
    )


def _note(x: float, step: int, top: int) -> Markup:
    """A note `step` half spaces above the place below the lowest line, with a stem, and a short line where it leaves the staff."""
    y = top + 50 - 5 * step
    side, tip = (x + 4.4, y - 26) if step < 6 else (x - 4.4, y + 26)
    ledger = Markup('<line class="line" x1="{0}" x2="{1}" y1="{2}" y2="{2}"/>').format(x - 8, x + 8, y) if y in (top - 10, top + 50) else ""
    return Markup(
        '{4}<line class="stem" x1="{2}" x2="{2}" y1="{1}" y2="{3}"/>'
        '<ellipse class="note" cx="{0}" cy="{1}" rx="5" ry="3.7" transform="rotate(-20 {0} {1})"/>'
    ).format(x, y, side, tip, ledger)


def _repeat(top: int, closing: int, x: str) -> Markup:
    """A repeat sign; the closing one stands at the right edge and covers notes that do not fit."""
    thick, thin, dots = ((0, 7, 13.5), (-4, -8.5, -13.5))[closing]
    line = '<line class="line" x1="-26" x2="0" y1="{0}" y2="{0}"/>'
    cover = ['<rect class="cover" x="-26" width="40" height="108"/>', *(line.format(top + 10 * row) for row in range(5))] if closing else []
    sign = '<rect x="{0}" y="{3}" width="4" height="40"/><rect x="{1}" y="{3}" width="1.5" height="40"/>'
    sign += '<circle cx="{2}" cy="{4}" r="2.2"/><circle cx="{2}" cy="{5}" r="2.2"/>'
    body = "".join(cover) + sign.format(thick, thin, dots, top, top + 15, top + 25)
    return Markup('<svg class="repeat" x="{}" overflow="visible">{}</svg>').format(x, Markup(body))  # noqa: S704


def _log_share(value: float, low: float, high: float) -> float:
    return min(1.0, max(0.004, math.log(value / low) / math.log(high / low)))


def _thousands(low: float, high: float) -> list[tuple[float, float]]:
    """(size, place on the scale) of every power of 1,000 between the ends."""
    powers = range(math.ceil(math.log10(low) / 3 - 1e-9), math.floor(math.log10(high) / 3 + 1e-9) + 1)
    return [(1000.0**power, _log_share(1000.0**power, low, high)) for power in powers]


def _percent(share: float) -> str:
    return f"{share * 100:.2f}".rstrip("0").rstrip(".") + "%"


def _rule(kind: str, start: Point, end: Point, dy: int = 0) -> Markup:
    ends = [_percent(value) for value in (start[0], end[0], start[1], end[1])]
    if dy:  # a tick of `dy` pixels below its start
        return Markup('<svg x="{0}" y="{2}" overflow="visible"><line class="{4}" y2="{5}"/></svg>').format(*ends, kind, dy)
    return Markup('<line class="{4}" x1="{0}" x2="{1}" y1="{2}" y2="{3}"/>').format(*ends, kind)


def _text(kind: str, x: float, y: float, text: str, dx: int = 0, dy: int = 0) -> Markup:
    return Markup('<text class="{}" x="{}" y="{}" dx="{}" dy="{}">{}</text>').format(kind, _percent(x), _percent(y), dx, dy, text)


def _dot(kind: str, x: float, y: float, radius: float) -> Markup:
    return Markup('<circle class="{}" cx="{}" cy="{}" r="{}"/>').format(kind, _percent(x), _percent(y), radius)


def _path(points: Sequence[Point]) -> str:
    return "M" + "L".join(f"{x * 1000:.1f} {y * 1000:.1f}" for x, y in points) if points else ""
