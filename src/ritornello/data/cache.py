"""Folders that exist whole or not at all: built beside their place, then renamed into it."""

import errno
import glob
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ritornello.errors import InputError

PREFIX = ".tmp-"
STALE = 24 * 3600  # seconds after which what a killed process left behind is swept away


def default_cache() -> Path:
    """$XDG_CACHE_HOME/ritornello, or ~/.cache/ritornello."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ritornello"


@contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """A temporary folder that becomes `target` when the block ends well, and vanishes otherwise.

    Of two processes that build the same target the first wins and the other's work is dropped; the content must
    therefore be a function of the target's name. Raises InputError where it cannot be written, or the disk is full.
    """
    with scratch(target.parent) as folder:
        yield folder
        try:
            os.rename(folder, target)
        except OSError as error:
            if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
                raise


@contextmanager
def named_folder(target: Path) -> Iterator[Path]:
    """As `new_folder`, for a folder that a user named: InputError if it exists or cannot be written.

    What a killed process left behind is swept away when the same target is written a day later.
    """
    if target.exists():
        raise InputError(f"{target} exists; choose another --out, or remove it")
    parent, prefix = target.absolute().parent, f".{target.name}.part-"
    try:
        parent.mkdir(parents=True, exist_ok=True)
        _sweep(parent, prefix)
        around = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
    except OSError as error:
        raise InputError(f"{target}: cannot be written: {error.strerror or error}") from error
    folder = around / target.name
    try:
        folder.mkdir()  # with the permissions a user's folders have, which those of a temporary one are not
        yield folder
        for file in folder.iterdir():
            with open(file, "rb") as opened:
                os.fsync(opened.fileno())
        os.rename(folder, target)
    except OSError as error:
        raise InputError(f"{target}: cannot be written: {error.strerror or error}; nothing was left there") from error
    finally:
        shutil.rmtree(around, ignore_errors=True)


@contextmanager
def scratch(parent: Path) -> Iterator[Path]:
    """A temporary folder below `parent`, removed when the block ends."""
    try:
        parent.mkdir(parents=True, exist_ok=True)
        _sweep(parent, PREFIX)
        folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent))
    except OSError as error:
        raise InputError(f"{parent}: the cache cannot be written: {error.strerror}; set XDG_CACHE_HOME to a folder that can") from error
    try:
        yield folder
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise InputError(f"{parent}: the cache cannot be written: {error.strerror}; free some space or set XDG_CACHE_HOME") from error
        raise
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _sweep(parent: Path, prefix: str) -> None:
    for folder in parent.glob(glob.escape(prefix) + "*"):
        with suppress(OSError):
            if time.time() - folder.stat().st_mtime > STALE:
                shutil.rmtree(folder, ignore_errors=True)
