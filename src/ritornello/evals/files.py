"""Benchmark files: JSON lines, plain, .gz or .xz; and whether they are the published ones.

A suite that checksums.json names (file -> SHA-256 of its uncompressed content) is exactly those files: one that is missing or changed is a
gap, others are left. A suite that it does not name is what its folder holds.
"""

import gzip
import hashlib
import json
import lzma
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from ritornello.errors import InputError
from ritornello.evals.scoring import Progress
from ritornello.evals.subject import Subject
from ritornello.evals.suite import Outcome, Task

OPENERS: dict[str, Callable[..., Any]] = {".gz": gzip.open, ".xz": lzma.open}


@dataclass(frozen=True)
class Record:
    """An object of a file of JSON lines."""

    where: str  # "x.jsonl:3"
    fields: dict[str, Any]

    def text(self, name: str, empty: bool = False) -> str:
        """The text of that name. InputError if there is none, or an empty one where that will not do."""
        value = self._known(name)
        if not isinstance(value, str) or not (value or empty):
            raise InputError(f"{self.where}: {name} must be a text, found {value!r}")
        return value

    def texts(self, name: str) -> list[str]:
        """The texts of that name, two or more. InputError otherwise."""
        value = self._known(name)
        if not isinstance(value, list) or len(value) < 2 or not all(isinstance(each, str) and each for each in value):
            raise InputError(f"{self.where}: {name} must be a list of two texts or more, found {json.dumps(value)[:80]}")
        return value

    def number(self, name: str) -> float:
        """The number of that name. InputError otherwise."""
        value = self._known(name)
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise InputError(f"{self.where}: {name} must be a number, found {value!r}")
        return float(value)

    def index(self, name: str, below: int) -> int:
        """The whole number of that name, from 0 to below - 1. InputError otherwise."""
        value = self._known(name)
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < below:
            raise InputError(f"{self.where}: {name} must be a whole number from 0 to {below - 1}, found {value!r}")
        return value

    def need(self, *names: str) -> None:
        """InputError if there is nothing of one of the names."""
        if missing := [name for name in names if name not in self.fields]:
            raise InputError(f"{self.where}: {' and '.join(missing)} missing; found {', '.join(self.fields) or 'nothing'}")

    def _known(self, name: str) -> Any:
        self.need(name)
        return self.fields[name]


def file_tasks(path: Path, make: Callable[[str, list[Record]], Sequence[Task]], published: str | None = None) -> list[Task]:
    """The tasks that `make` finds in each file of JSON lines, given its bare name and records; a gap for a file that cannot be used.

    `published`: the set in checksums.json that the files must be.
    """
    files = record_files(path)
    known = checksums()[published] if published else {}
    tasks: list[Task] = []
    for name in known or files:
        try:
            if name not in files:
                raise InputError(f"{path / name}.jsonl: missing; the published set has {len(known)} files")
            tasks += make(name, records(files[name], known.get(name)))
        except InputError as error:
            tasks.append(gap(name, str(error)))
    return tasks


def gap(name: str, reason: str) -> Task:
    """A task that cannot be read: run, it says why."""

    def run(subject: Subject, progress: Progress | None) -> Outcome:
        raise InputError(reason)

    return Task(name, "", run)


def record_files(path: Path) -> dict[str, Path]:
    """The files of JSON lines of a folder by bare name, or the one file. InputError if there is none, or two of one name."""
    if not path.exists():
        raise InputError(f"{path}: no such file or folder")
    if path.is_file():
        return {bare_name(path) or path.stem: path}
    inside = sorted(path.iterdir())
    found: dict[str, Path] = {}
    for file in inside:
        name = bare_name(file) if file.is_file() else ""
        if name in found:
            raise InputError(f"{path}: two files hold the subtask {name}; keep one of them")
        if name:
            found[name] = file
    if not found:
        folders = [folder.name for folder in inside if folder.is_dir() and any(bare_name(file) for file in folder.iterdir())]
        hint = f"; give one of its folders: {', '.join(folders)}" if folders else ""
        raise InputError(f"{path}: holds no .jsonl, .jsonl.gz or .jsonl.xz file{hint}")
    return found


def bare_name(path: Path) -> str:
    """The name of a file of JSON lines without its endings; empty for any other file."""
    name = path.name.removesuffix(path.suffix) if path.suffix in OPENERS else path.name
    return name.removesuffix(".jsonl") if name.endswith(".jsonl") else ""


def records(path: Path, published: str | None = None) -> list[Record]:
    """The objects of a file of JSON lines. `published`: the SHA-256 that its content must have. InputError with file and line."""
    lines = read_text(path, published).split("\n")
    found = [_record(line, f"{path}:{number}") for number, line in enumerate(lines, 1) if line.strip()]
    if not found:
        raise InputError(f"{path}: is empty")
    return found


def read_text(path: Path, published: str | None = None) -> str:
    """The UTF-8 text of a file, .gz and .xz opened. See `records`."""
    try:
        with OPENERS.get(path.suffix, open)(path, "rb") as file:
            content = file.read()
    except (OSError, EOFError, lzma.LZMAError, zlib.error) as error:
        raise InputError(f"{path}: cannot be read: {error}") from error
    if published and hashlib.sha256(content).hexdigest() != published:
        raise InputError(
            f"{path}: changed since it was published (SHA-256 {published[:12]}...); get it again, or evaluate it as a set of your own"
        )
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 text ({error.reason} at byte {error.start})") from error


@cache
def checksums() -> dict[str, dict[str, str]]:
    """SHA-256 of the files of the public sets, by suite and bare name."""
    return json.loads(resources.files(__package__).joinpath("checksums.json").read_text(encoding="utf-8"))


def _record(line: str, where: str) -> Record:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where}: not JSON: {error}") from error
    if not isinstance(found, dict):
        raise InputError(f"{where}: expected an object, found {type(found).__name__}")
    return Record(where, found)
