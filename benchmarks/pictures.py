"""The pictures of docs/results/speed.md as SVG, and the card that all pictures here are drawn on: readable alone, light or dark.

A drawing takes all rows and returns (what it shows, SVG), or None where its rows are missing.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from markupsafe import Markup

from ritornello.analysis.numerals import number, short

WIDTH = 760
LEFT, RIGHT, TOP = 62, 138, 100  # of what is drawn: room for the ticks, for the names of the lines, for the title
STYLE = """
svg { --paper: #fbfaf6; --ink: #1f1c19; --soft: #625b52; --grid: #e7e1d5;
  --c0: #17607a; --c1: #b3470e; --c2: #5b3f9e; --c3: #2f7d32; --c4: #a1286a; --c5: #7a5c00; --c6: #5c5c5c;
  --f0: #17607a; --f1: #5d9fb5; --f2: #a9cdd6; --f3: #d9b25f; --f4: #c98a4b; --f5: #b0607f; --f6: #8a6fa8; --f7: #7b9160; --f8: #b9b3a6;
  font: 13px system-ui, "Segoe UI", "Helvetica Neue", "Liberation Sans", sans-serif; }
@media (prefers-color-scheme: dark) {
  svg { --paper: #14171b; --ink: #ece8e0; --soft: #aaa499; --grid: #2b3037;
    --c0: #6fc3dc; --c1: #f2a05e; --c2: #b7a2f0; --c3: #86cf88; --c4: #f08fc0; --c5: #dcc15a; --c6: #b5b5b5;
    --f0: #3f9dbb; --f1: #2c6f86; --f2: #23505f; --f3: #c79b3f; --f4: #a96c33; --f5: #a44f72; --f6: #7c62a3; --f7: #6b8350; --f8: #5a5f66; }
}
.card { fill: var(--paper); }
text { fill: var(--ink); }
.soft, .tick { fill: var(--soft); }
.tick { font-size: 12px; }
.title { font: 500 21px "Iowan Old Style", "Palatino Linotype", Palatino, P052, Georgia, "Noto Serif", serif; }
.name { font-weight: 600; }
.end { text-anchor: end; }
.middle { text-anchor: middle; }
.grid { stroke: var(--grid); }
.line { fill: none; stroke-width: 2.4; stroke-linejoin: round; stroke-linecap: round; }
.level { stroke: var(--soft); stroke-dasharray: 4 4; }
.other { stroke-dasharray: 2 6; stroke-width: 3; }
"""


def by_length(rows: Iterable[dict[str, Any]]) -> tuple[str, str] | None:
    """Milliseconds of training a token against T."""
    lines = _lines(rows, "S18 plot", "mixer", "T", "ms_a_token")
    title = "Training: the time of a token against the length of the text"
    under = "Milliseconds a token, forward, backward and optimiser; B=1, one thread."
    return _log_log(lines, title, under, "tokens in a piece", "ms", "attention")


def by_context(rows: Iterable[dict[str, Any]]) -> tuple[str, str] | None:
    """Tokens a second while writing, against what was read before."""
    lines = _lines(rows, "S13 context", "who", "context", "tokens_per_second")
    title = "Writing: tokens a second against what was read before"
    under = "One row, one thread; HGRN2 with its state, a Llama of the same size with its cache."
    return _log_log(lines, title, under, "tokens before", "tokens/s", "Llama")


def step_parts(rows: Iterable[dict[str, Any]]) -> tuple[str, str] | None:
    """Where one training step's time goes, before and after, as stacked bars."""
    bars = _bars(rows)
    if not bars:
        return None
    parts = list(next(iter(bars.values())))
    left, room = 150, max(sum(bar.values()) for bar in bars.values()) / (WIDTH - 150 - 90)  # milliseconds a pixel
    out, y = [], TOP - 12
    for (when, precision), bar in bars.items():
        out += [words("end name", left - 12, y + 16, when), words("end tick", left - 12, y + 32, precision)]
        x = float(left)
        for index, (part, ms) in enumerate(bar.items()):
            shape = '<rect x="{:.1f}" y="{}" width="{:.1f}" height="36" style="fill:var(--f{})"><title>{}: {} ms</title></rect>'
            out.append(Markup(shape).format(x, y, max(0.0, ms / room - 1), index, part, number(ms)))
            x += ms / room
        out.append(words("name", x + 8, y + 23, f"{number(sum(bar.values()))} ms"))
        y += 54
    x, y = float(left), y + 10
    for index, part in enumerate(parts):
        width = 26 + 7 * len(part)
        if x + width > WIDTH - 20:
            x, y = float(left), y + 24
        out.append(Markup('<rect x="{}" y="{}" width="12" height="12" rx="2" style="fill:var(--f{})"/>').format(x, y, index))
        out.append(words("", x + 18, y + 11, part))
        x += width + 12
    title = "Where the time of one training step goes"
    under = "10M parameters, T=512, one thread. Before: plain torch, our chunk form. After: the tuned default."
    return f"{title}: {under}", card(title, under, out, y + 36)


def _bars(rows: Iterable[dict[str, Any]], most: int = 9) -> dict[tuple[str, str], dict[str, float]]:
    """(when, precision) -> part -> milliseconds, the largest part first; no more parts than can be told apart, the least are one."""
    bars: dict[tuple[str, str], dict[str, float]] = {}
    for row in rows:
        if row["row"] == "profile":
            bars.setdefault((row["when"], row["precision"]), {})[row["part"]] = row["ms"]
    parts = sorted(
        {part for bar in bars.values() for part in bar}, key=lambda part: (-max(bar.get(part, 0.0) for bar in bars.values()), part)
    )
    few, rest = (parts, []) if len(parts) <= most else (parts[: most - 1], parts[most - 1 :])
    return {
        name: {part: bar.get(part, 0.0) for part in few} | ({"smaller parts": sum(bar.get(part, 0.0) for part in rest)} if rest else {})
        for name, bar in sorted(bars.items(), key=lambda item: (item[0][0] != "before", item[0][1] != "float32"))
    }


PICTURES: dict[str, Callable[[Sequence[dict[str, Any]]], tuple[str, str] | None]] = {
    "scaling.svg": by_length,
    "context.svg": by_context,
    "step.svg": step_parts,
}


def _lines(rows: Iterable[dict[str, Any]], row: str, name: str, x: str, y: str) -> dict[str, list[tuple[float, float]]]:
    found: dict[str, list[tuple[float, float]]] = {}
    for each in rows:
        if each["row"] == row:
            found.setdefault(each[name], []).append((each[x], each[y]))
    return {name: sorted(points) for name, points in found.items()}


def _log_log(
    lines: dict[str, list[tuple[float, float]]], title: str, under: str, along: str, unit: str, other: str
) -> tuple[str, str] | None:
    """Lines over two logarithmic axes, each named at its end; `other`'s is dotted. A context of nothing stands at the left edge."""
    if not lines:
        return None
    height, bottom = 480, 480 - 56
    least = min(x for points in lines.values() for x, _ in points if x > 0)
    values = [y for points in lines.values() for _, y in points]
    across = _scale(least, max(x for points in lines.values() for x, _ in points), LEFT, WIDTH - RIGHT)
    down = _scale(min(values) / 1.25, max(values) * 1.25, bottom, TOP + 10)
    out = [words("tick", LEFT - 44, TOP - 10, unit), words("end tick", WIDTH - RIGHT, height - 14, along)]
    for mark in _marks(min(values) / 1.25, max(values) * 1.25):
        out.append(Markup('<line class="grid" x1="{}" x2="{}" y1="{y}" y2="{y}"/>').format(LEFT, WIDTH - RIGHT, y=f"{down(mark):.1f}"))
        out.append(words("end tick", LEFT - 8, down(mark) + 4, f"{mark:,g}"))
    for mark in _lengths({x for points in lines.values() for x, _ in points if x > 0}):
        out.append(words("middle tick", across(mark), bottom + 20, _binary(mark)))
    if any(x == 0 for points in lines.values() for x, _ in points):
        out.append(words("middle tick", across(least), bottom + 20, "0"))
    ends = []
    for index, (name, points) in enumerate(sorted(lines.items(), key=lambda line: (line[0] == other, line[0]))):
        path = "M" + "L".join(f"{across(max(x, least)):.1f} {down(y):.1f}" for x, y in points)
        out.append(
            Markup('<path class="line{}" style="stroke:var(--c{})" d="{}"/>').format(" other" if name == other else "", index % 7, path)
        )
        out += [
            Markup('<circle cx="{:.1f}" cy="{:.1f}" r="3.2" style="fill:var(--c{})"/>').format(across(max(x, least)), down(y), index % 7)
            for x, y in points
        ]
        ends.append((down(points[-1][1]), across(points[-1][0]), name, index % 7))
    for y, x, name, colour in _apart(ends):
        out.append(Markup('<text class="name" x="{:.1f}" y="{:.1f}" style="fill:var(--c{})">{}</text>').format(x + 11, y + 4, colour, name))
    return f"{title}. {under}", card(title, under, out, height)


def _scale(low: float, high: float, start: float, end: float) -> Callable[[float], float]:
    span = math.log(high / low) or 1.0
    return lambda value: start + (end - start) * math.log(value / low) / span


def _marks(low: float, high: float) -> list[float]:
    """1, 2 and 5 times the powers of ten between low and high, or the powers alone if those are many."""
    factors = (1, 2, 5) if high / low < 1000 else (1,)
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    return [mark for power in powers for factor in factors if low <= (mark := factor * 10.0**power) <= high]


def _lengths(values: set[float]) -> list[float]:
    """Where the axis of lengths is marked: at the values themselves if each is a power of two times the least, else at round numbers."""
    if all(math.log2(value / min(values)) % 1 == 0 for value in values):
        return sorted(values)[:: 1 + len(values) // 8]
    return _marks(min(values), max(values))


def _binary(size: float) -> str:
    """512, 1k, 32k, 1M: powers of two by their usual names."""
    for unit, name in ((2**20, "M"), (1024, "k")):
        if size >= unit and size % unit == 0 and size % 1000:
            return f"{size / unit:g}{name}"
    return short(size)


def _apart(ends: list[tuple[float, float, str, int]], gap: float = 16) -> list[tuple[float, float, str, int]]:
    """Names at the ends of lines, from top to bottom, moved so that none covers another of about the same place across."""
    placed: list[tuple[float, float, str, int]] = []
    for y, x, name, colour in sorted(ends):
        above = [other for other in placed if abs(other[1] - x) < 110]
        placed.append((max([y, *(other[0] + gap for other in above)]), x, name, colour))
    return placed


def words(kind: str, x: float, y: float, text: str) -> Markup:
    """A text at a place; `kind`: its classes above."""
    return Markup('<text class="{}" x="{:.1f}" y="{:.1f}">{}</text>').format(kind, x, y, text)


def card(title: str, under: str, parts: Sequence[Markup], height: float) -> str:
    """The picture: parts below a title, on paper of its own."""
    head = [words("title", 24, 38, title), words("soft", 24, 60, under)]
    frame = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {w} {h}" width="{w}" height="{h}" role="img" aria-label="{title}">'
    card = '<style>{style}</style><rect class="card" width="{w}" height="{h}" rx="10"/>\n{parts}\n</svg>\n'
    return str(
        Markup(frame + card).format(w=WIDTH, h=f"{height:g}", title=title, style=Markup(STYLE), parts=Markup("\n").join(head + list(parts)))
    )
