"""Generated tasks with exact oracles that separate architectures. The names are known without importing torch."""

import importlib
from typing import TYPE_CHECKING

from ritornello.errors import unknown

if TYPE_CHECKING:
    from ritornello.diagnostics.task import Task

TASKS = {  # name: the file it stands in
    "parity": "groups",
    "n-parity": "window",
    "mod-sum": "groups",
    "even-pairs": "latches",
    "s3": "groups",
    "a5": "groups",
    "s5": "groups",
    "flip-flop": "latches",
    "anbn": "counters",
    "anbncn": "counters",
    "shuffle-dyck": "counters",
    "dyck": "dyck",
    "copy": "copying",
    "repeat": "copying",
    "selective-copy": "copying",
    "adding": "adding",
    "recall": "recall",
    "induction": "recall",
    "reber": "reber",
    "embedded-reber": "reber",
}


def task_named(name: str) -> "Task":
    """The task behind a name of TASKS; InputError with the nearest name if there is none."""
    if name not in TASKS:
        raise unknown("task", name, TASKS)
    return importlib.import_module(f"ritornello.diagnostics.{TASKS[name]}").TASKS[name]()
