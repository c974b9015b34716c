"""How numbers are written for people: 1.23, 8.3M, 4,400, 12.1 ± 0.3, 64 KB, 2.4 minutes."""

import math
from collections.abc import Sequence

INTERVAL = 1.96  # standard errors on either side of a 95 % interval
FRACTIONS = ("accuracy", "ties", "F1", "MCC")  # metrics that begin so are at most 1 and are written in per cent


def number(value: float) -> str:
    """Three figures or so: 0.0032, 1.23, 45.6, 4,400; whole numbers below 100,000 in full; 203k, 8.3M above."""
    if not math.isfinite(value):
        return str(value)
    size = abs(value)
    if size >= 99_999.5:
        return _scaled(value, ("", "k", "M", "G", "T"))
    if size >= 1000 or value == int(value):
        return f"{value:,.0f}"
    if size >= 100:
        return f"{value:.0f}"
    if size >= 10:
        return f"{value:.1f}"
    return f"{value:.2f}" if size >= 0.1 else f"{value:.2g}"


def short(value: float) -> str:
    """For a tile or an axis: 950, 4.4k, 1.2M."""
    return _scaled(value, ("", "k", "M", "G", "T")) if abs(value) >= 999.5 else number(value)


def power(value: float) -> str:
    """For what has many digits: 1.23e15."""
    mantissa, _, exponent = f"{value:.2e}".partition("e")
    return f"{mantissa}e{int(exponent)}"


def nbytes(value: float) -> str:
    """Bytes in powers of 1,000: 512 bytes, 65.5 KB, 2.1 GB."""
    return f"{value:,.0f} bytes" if value < 999.5 else _scaled(value, ("", " KB", " MB", " GB", " TB", " PB"))


def duration(seconds: float) -> str:
    """4.2 seconds, 2.4 minutes, 1.5 hours."""
    value, unit = (seconds, "seconds") if seconds < 99.5 else (seconds / 60, "minutes") if seconds < 5970 else (seconds / 3600, "hours")
    return f"{value:.1f}".removesuffix(".0") + f" {unit}"


def clock(seconds: float) -> str:
    """For an axis: 0:45, 12:30, 1:05:00."""
    whole = round(seconds)
    hours, minutes = whole // 3600, whole // 60 % 60
    return f"{hours}:{minutes:02}:{whole % 60:02}" if hours else f"{minutes}:{whole % 60:02}"


def score(metric: str, value: float, stderr: float | None = None) -> str:
    """A value with its 95 % interval, to the interval's precision: 2.012 ± 0.004, 71.2 ± 0.4 %; fractions in per cent."""
    percent = is_fraction(metric)
    value = value * 100 if percent else value
    margin = None if stderr is None or not math.isfinite(stderr) else stderr * INTERVAL * (100 if percent else 1)
    unit = " %" if percent else ""
    if not margin:
        return f"{value:.1f}{unit}" if percent else number(value)
    power = math.floor(math.log10(margin))
    digits = 1 if percent else min(6, max(0, -power + (margin < 2 * 10**power)))  # one figure of the margin, two if the first is a 1
    return f"{value:,.{digits}f} ± {margin:,.{digits}f}{unit}".replace("-", "−")


def is_fraction(metric: str) -> bool:
    """Whether values of this metric lie between 0 and 1."""
    return metric.startswith(FRACTIONS)


def ticks(low: float, high: float, about: int = 6) -> list[float]:
    """Round numbers between low and high, a step of 1, 2 or 5 times a power of ten."""
    if not high > low:
        return [low]
    rough = (high - low) / about
    power = 10 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * 0.75)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(index * step, 12) for index in range(first, last + 1)]


def aligned(values: Sequence[float]) -> list[str]:
    """Tick labels with equally many digits after the point: 1.8, 2.0, 2.2."""
    texts = [f"{value:g}" for value in values]
    digits = max((len(text.partition(".")[2]) for text in texts), default=0)
    return [f"{value:,.{digits}f}" for value in values]


def time_ticks(high: float, about: int = 5) -> list[float]:
    """Round times from 0 to `high` seconds: steps of seconds, minutes or hours that a clock knows."""
    steps = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 21600, 43200, 86400)
    step = next((step for step in steps if step * about >= high), 86400 * max(1, math.ceil(high / 86400 / about)))
    return [float(at) for at in range(0, math.floor(high) + 1, step)]


def _scaled(value: float, units: tuple[str, ...]) -> str:
    """Below 1,000 of some unit, with three figures at most."""
    power = 0
    while abs(value) >= 999.5 and power < len(units) - 1:
        value, power = value / 1000, power + 1
    digits = 0 if abs(value) >= 99.95 else 1
    return f"{value:.{digits}f}".removesuffix(".0") + units[power]
