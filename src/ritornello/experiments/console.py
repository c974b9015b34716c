"""What a person sees while work goes on: lines, and one line that changes in place.

Everything goes to standard error; standard output is for results.
"""

import sys
import time
from typing import TextIO


class Console:
    """Says lines; `--quiet` silences them. On a terminal progress rewrites its line, elsewhere it prints one every 15 seconds."""

    def __init__(self, quiet: bool = False, stream: TextIO | None = None):
        self.quiet, self.stream = quiet, stream or sys.stderr
        self.live = self.stream.isatty()
        self.shown = 0  # width of the line that would be rewritten
        self.last = 0.0

    def say(self, line: str) -> None:
        """A line that stays."""
        if not self.quiet:
            self._clear()
            print(line, file=self.stream, flush=True)

    def progress(self, line: str) -> None:
        """Where the work stands; may be skipped."""
        now = time.monotonic()
        if self.quiet or now - self.last < (0.1 if self.live else 15.0):
            return
        self.last = now
        if self.live:
            self._clear()
            print(line, end="", file=self.stream, flush=True)
            self.shown = len(line)
        else:
            print(line, file=self.stream, flush=True)

    def _clear(self) -> None:
        if self.shown:
            print("\r" + " " * self.shown + "\r", end="", file=self.stream)
            self.shown = 0


class Within(Console):
    """For a run among many: all that it says is where it stands."""

    def __init__(self, outer: Console, name: str):
        super().__init__()
        self.outer, self.name = outer, name

    def say(self, line: str) -> None:
        self.progress(line)

    def progress(self, line: str) -> None:
        self.outer.progress(f"{self.name}: {line}")


def clock(seconds: float) -> str:
    """Time left, as a person reads it: "48 s", "3:05", "1:02:10"."""
    whole = int(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60}:{whole % 60:02d}"
    return f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d}"
