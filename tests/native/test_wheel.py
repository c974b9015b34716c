"""A wheel built where a compiler is carries the kernels and needs none; built without one it is pure Python. The sources are in both."""

import importlib.util
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from ritornello._native import library

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.skipif(importlib.util.find_spec("hatchling") is None, reason="hatchling is not installed")


@pytest.fixture
def project(tmp_path):
    """The project with so few and small sources that all instruction sets compile in a moment."""
    folder = tmp_path / "project"
    package = folder / "src" / "ritornello"
    (package / "_native").mkdir(parents=True)
    for name in ("pyproject.toml", "README.md", "LICENSE", "build_native.py"):
        shutil.copy(ROOT / name, folder)
    for name in ("__init__.py", "errors.py", "_native/__init__.py", "_native/library.py", "_native/lanes.h", "_native/about.cpp"):
        shutil.copy(ROOT / "src" / "ritornello" / name, package / name)
    return folder


def build(project: Path, target: str, path: str | None = None) -> tuple[Path, str]:
    """What hatchling makes of the project, and what it said."""
    environment = os.environ | ({} if path is None else {"PATH": path})
    done = subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", target],
        cwd=project,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (made,) = (project / "dist").iterdir()
    return made, done.stdout + done.stderr


@pytest.mark.skipif(library.compiler() is None, reason="no C++ compiler found")
def test_a_wheel_carries_every_instruction_set(project, tmp_path):
    made, _ = build(project, "wheel")
    assert "-py3-none-" in made.name
    assert not made.name.endswith("-any.whl")
    with zipfile.ZipFile(made) as archive:
        archive.extractall(tmp_path / "site")
    native = tmp_path / "site" / "ritornello" / "_native"
    assert {path.name for path in native.glob("*.cpp")} == {"about.cpp"}
    if library.instruction_set() != "base":
        assert {path.name for path in native.glob("*.so")} == {f"ritornello-{name}.so" for name in library.ISAS}
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); from ritornello._native.library import active, HERE; print(HERE, active(), sep='|')"
    )
    environment = os.environ | {"PATH": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "cache")}  # no compiler there
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "site")], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == f"{native}|prebuilt for {library.instruction_set()}"
    assert not list(project.rglob("*.so"))


def test_without_a_compiler_a_wheel_is_pure_and_says_so(project, tmp_path):
    made, said = build(project, "wheel", path=str(tmp_path))
    assert made.name.endswith("-py3-none-any.whl")
    assert "no C++ compiler found" in said
    with zipfile.ZipFile(made) as archive:
        assert not [name for name in archive.namelist() if name.endswith(".so")]


def test_a_source_distribution_carries_the_sources(project):
    made, _ = build(project, "sdist")
    with tarfile.open(made) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"build_native.py", "src/ritornello/_native/about.cpp", "src/ritornello/_native/lanes.h"} <= names
