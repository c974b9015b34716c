"""What the processes of test_jobs.py do; a module of few imports, so that they start at once."""

import os
import time
from pathlib import Path

from ritornello.errors import InputError


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
