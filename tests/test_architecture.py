"""What may import what: see CONTRIBUTING.md. Later folders may import earlier ones; nothing imports the other way."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "src" / "ritornello"
GROUND = {"errors", "config", "provenance", "state"}
BELOW = {
    "errors": set(),
    "config": {"errors"},
    "provenance": {"errors"},
    "state": {"errors"},
    "_native": {"errors"},
    "jobs": {"errors"},
    "hub": {"errors"},
    "ops": GROUND | {"_native"},
    "mixers": GROUND | {"ops"},
    "model": GROUND | {"ops", "mixers"},
    "data": {"errors", "config", "hub"},
    "folder": GROUND | {"model", "data"},
    "hf": GROUND | {"hub", "mixers", "model", "data", "folder"},
    **dict.fromkeys(("evals", "analysis"), GROUND | {"mixers", "model", "data", "folder"}),
    "serve": GROUND | {"_native", "mixers", "model", "data", "folder"},
    "train": GROUND | {"ops", "mixers", "model", "data", "folder"},
    "experiments": GROUND | {"jobs", "_native", "ops", "mixers", "model", "data", "folder", "hf", "train", "evals", "analysis", "serve"},
    "diagnostics": GROUND | {"jobs", "mixers", "model", "data", "folder", "train", "evals", "analysis", "serve"},
    "commands": GROUND | {"diagnostics", "folder", "hf", "serve", "experiments"},
    "__main__": {"cli"},
    "cli": GROUND | {"commands", "diagnostics", "mixers", "train"},
}
FINE_TUNING = ("evals/finetune.py", "evals/glue.py")  # the one part of evaluation that trains
FILES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


def imported(path: Path) -> set[str]:
    """The parts of ritornello that a file imports, also inside functions."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {f"{node.module}.{name.name}" for name in node.names}
    return {name.split(".")[1] for name in found if name.startswith("ritornello.")} - {"__version__"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_one_way(path):
    part = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    also = {"train"} if path.relative_to(PACKAGE).as_posix() in FINE_TUNING else set()
    wrong = imported(path) - BELOW[part] - {part} - also
    assert not wrong, f"{part} may not import {', '.join(sorted(wrong))}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_nothing_reads_a_pickle(path):
    text = path.read_text(encoding="utf-8")
    for word in ("pickle", "torch.load(", "torch.save(", "allow_pickle=True", "yaml.load(", "except Exception"):
        assert word not in text, word
