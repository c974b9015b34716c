"""Messages that teach: what was asked, what was found, what would do.

`InputError` is the one error a user can cause. Commands print it as a single line and exit with
code 2; anything else that escapes is a bug of ours and keeps its traceback.
"""

from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any


class InputError(ValueError):
    """Something the caller handed over cannot be used. The message is one line and names the way out."""


def unknown(kind: str, name: str, known: Iterable[str]) -> InputError:
    """The error for a name that is not among `known`: proposes the nearest and lists them all."""
    names = sorted(known)
    near = get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return InputError(f"unknown {kind} {name!r}.{hint} Known: {', '.join(names) or 'none'}.")


def divide(whole: int, part: int, what: str) -> int:
    """whole / part, which must come out even; else an InputError names the nearest sizes that do."""
    if part > 0 and whole > 0 and whole % part == 0:
        return whole // part
    below = whole // part * part if part > 0 else 0
    near = " or ".join(str(size) for size in (below, below + part) if size > 0)
    raise InputError(f"{what}: {whole} does not divide into parts of {part}" + (f"; use {near}" if part > 0 else "; a part is 1 or more"))


def expect_shape(tensor: Any, shape: tuple[int | None, ...], what: str) -> None:
    """Raise InputError unless `tensor.shape` equals `shape`; None stands for any size."""
    found = tuple(tensor.shape)
    if len(found) != len(shape) or any(want is not None and want != size for want, size in zip(shape, found, strict=True)):
        wanted = ", ".join("any" if size is None else str(size) for size in shape)
        raise InputError(f"{what}: expected shape ({wanted}), found {found}")
