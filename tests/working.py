"""What other processes of tests do and need; a module of few imports, so that they start at once."""

import os
import shutil
import time
from pathlib import Path

from ritornello.data.cache import default_cache
from ritornello.errors import InputError


def share_kernels(cache: Path) -> None:
    """Give a cache folder of one's own the kernels that were compiled before, so that a new process need not compile them again."""
    if (default_cache() / "native").is_dir():
        shutil.copytree(default_cache() / "native", cache / "ritornello" / "native")


def nap(file: str) -> None:
    """Say who sleeps, and sleep."""
    Path(file).write_text(str(os.getpid()), encoding="utf-8")
    time.sleep(60)


def later(file: str | None) -> None:
    """The first job, None, is done at once."""
    if file is not None:
        nap(file)


def refuse(job: str) -> None:
    raise InputError(f"{job} is too many; use few")
