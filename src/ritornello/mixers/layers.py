"""Patterns of layers: "hgrn2*5 attention" is five HGRN2 layers below one of attention.

A pattern is mixer names from bottom to top; *N repeats a name or a group in brackets, as in "(rglru*2 window)*4".
"""

import re
from collections.abc import Sequence
from itertools import groupby

from ritornello.errors import InputError, unknown
from ritornello.mixers import CHANNEL, MIXERS

MOST = 1000  # layers


def expand(pattern: str, count: int | None = None) -> tuple[str, ...]:
    """The names of all layers, bottom first; with `count` the pattern goes round until there are so many.

    InputError for a name that is no mixer, or a pattern that cannot be read.
    """
    names, rest = _names(re.findall(r"\w+|\S", pattern[: 10 * MOST]), pattern)
    if rest or not names:
        raise _malformed(pattern)
    if count is None:
        return tuple(names)
    if count < len(names):
        raise InputError(f"layers: {pattern!r} has {len(names)} of them, more than the {count} asked for")
    return tuple(names[index % len(names)] for index in range(count))


def describe(names: Sequence[str]) -> str:
    """The shortest pattern without brackets: "hgrn2*5 attention"."""
    runs = [(name, len(list(same))) for name, same in groupby(names)]
    return " ".join(name if count == 1 else f"{name}*{count}" for name, count in runs)


def _names(tokens: list[str], pattern: str, depth: int = 0) -> tuple[list[str], list[str]]:
    """Names up to the closing bracket or the end, and the tokens after them."""
    names: list[str] = []
    while tokens and tokens[0] != ")":
        head, *tokens = tokens
        part = [head]
        if head == "(" and depth < 9:
            part, tokens = _names(tokens, pattern, depth + 1)
            if tokens[:1] != [")"]:
                raise _malformed(pattern)
            tokens = tokens[1:]
        elif not head.isidentifier():
            raise _malformed(pattern)
        elif head not in MIXERS:
            raise unknown("mixer", head, sorted(set(MIXERS) - CHANNEL))
        if tokens[:1] == ["*"]:
            times = "".join(tokens[1:2])
            if not times.isdecimal() or not 1 <= int(times[:6]) <= MOST:
                raise _malformed(pattern)
            part, tokens = part * int(times), tokens[2:]
        names += part
        if len(names) > MOST:
            raise InputError(f"layers: {pattern!r} has more than {MOST}")
    return names, tokens


def _malformed(pattern: str) -> InputError:
    return InputError(
        f"layers: cannot read {pattern!r}; write names from bottom to top, such as 'hgrn2*5 attention' or '(rglru*2 window)*4'"
    )
