"""Ritornello: train, compare, look inside and stream recurrent language models.

import ritornello
path = ritornello.run("text.txt", minutes=3)       # train, evaluate, write a page
model = ritornello.load(path)                      # .model, .tokenizer, .config
print(ritornello.generate(model, "Once upon"))
"""

import importlib
from typing import Any

__version__ = "0.1.0"

_NAMES = {
    "run": "experiments.run",
    "resume": "experiments.run",
    "generate": "serve.generate",
    "evaluate": "experiments.suites",
    "load": "folder",
    "Loaded": "folder",
    "InputError": "errors",
    "LM": "model",
    "LMConfig": "model",
    "MIXERS": "mixers",
}
__all__ = [*_NAMES, "__version__"]


def __getattr__(name: str) -> Any:
    """Public names are imported when they are asked for: importing ritornello imports no torch."""
    if name not in _NAMES:
        raise AttributeError(f"module 'ritornello' has no attribute {name!r}")
    return getattr(importlib.import_module(f"ritornello.{_NAMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
