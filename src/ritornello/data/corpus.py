"""A corpus: one flat file of UTF-8 text in the cache, and the spans of its documents, parted into training and held-out text.

Everything is streamed, so memory does not grow with the corpus. The cache folder's name is a hash of the raw files and of
how they are read: what lies there under that name is right, whoever wrote it.
"""

import hashlib
import json
import mmap
import shutil
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from glob import has_magic
from pathlib import Path
from typing import Literal

import numpy as np

from ritornello.data import builtin
from ritornello.data.build import build
from ritornello.data.cache import default_cache, new_folder, scratch
from ritornello.data.documents import ROWS, parted, spans
from ritornello.data.sources import Format, Part, Source, find, parts, stem
from ritornello.errors import InputError, unknown

FORMAT = 2  # of the cache folder
Parts = Generator[Part, None, None]
MODES = ("auto", "blank", "file", "line")

Split = Literal["train", "held_out"]
Say = Callable[[str], None]


@dataclass(frozen=True, eq=False)
class Corpus:
    """Text on disk, memory-mapped, cut into documents. The two splits together hold every document once."""

    folder: Path
    name: str
    documents: str  # the kind in use: "blank", "file", "line", or "record" where all are rows of tables
    sources: dict[str, str]  # raw file -> sha256
    key: str  # names the cache folder
    words: int  # whitespace tokens; see documents.py for scripts without spaces
    nbytes: int  # UTF-8 bytes of all documents
    train: np.ndarray = field(repr=False)  # (n, 2) int64 byte spans, one row a document
    held_out: np.ndarray = field(repr=False)  # (m, 2) int64
    buffer: mmap.mmap = field(repr=False)

    def text(self, span: np.ndarray | tuple[int, int]) -> str:
        """The text of one span (2,)."""
        start, end = map(int, span)
        return self.buffer[start:end].decode("utf-8")

    def whole(self) -> np.ndarray:
        """Spans (n, 2) of all documents in the order of the text; those that were parted for holding out are whole again."""
        table = np.concatenate([self.train, self.held_out])
        table = table[np.argsort(table[:, 0], kind="stable")]
        begins = np.append(True, table[1:, 0] != table[:-1, 1])  # documents have a newline between them, parts of one do not
        return np.stack([table[begins, 0], table[np.append(begins[1:], True), 1]], 1)

    def pieces(self, split: Split, size: int = 1 << 16) -> Iterator[tuple[int, str]]:
        """(row of the document in the split, text), in order; a document of more than `size` bytes comes in several pieces.

        It is parted before a space where one is near, so that the tokens of the pieces are those of the whole.
        """
        table = self.train if split == "train" else self.held_out
        size = max(size, 4)  # a code point may take as much
        for at in range(0, len(table), ROWS):
            for row, (start, end) in enumerate(table[at : at + ROWS].tolist(), at):
                for first, last in parted(self.buffer, start, end, size):
                    yield row, self.buffer[first:last].decode("utf-8")


def read_corpus(
    spec: str | None,
    *,
    documents: str = "auto",
    encoding: str = "utf-8",
    column: str = "text",
    cache: Path | None = None,
    progress: Say | None = None,
) -> Corpus:
    """The corpus behind a path, folder, glob or "-"; None stands for the documentation inside Python.

    documents: what one document is. "auto" takes rows of tables as they are, and parts files of text at blank lines if the
    median block between them has 200 words or more. Raises InputError, one line, for anything that is not a usable corpus.
    """
    if documents not in MODES:
        raise unknown("kind of documents", documents, MODES)
    root, say = cache or default_cache(), progress or (lambda line: None)
    if spec is None:
        say("reading the documentation inside Python")
        return _cached_or_built(builtin.NAME, builtin.NAME, builtin.sources(), builtin.parts(), [documents], root)
    form = Format(encoding, column)
    with scratch(root / "corpora") as spool:
        found = find(spec, spool)
        hashes = {source.name: source.sha256() for source in found}
        label = found[0].name if spec == "-" else spec
        return _cached_or_built(_name(spec), label, hashes, _parts(found, form, say), [documents, *form], root)


def cached(key: str, cache: Path | None = None) -> Corpus | None:
    """The corpus of that key, if the cache holds it whole."""
    folder = (cache or default_cache()) / "corpora" / key
    try:
        facts = json.loads((folder / "corpus.json").read_text(encoding="utf-8"))
        with open(folder / "text", "rb") as file:
            buffer = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        size = facts.pop("size")
        corpus = Corpus(folder=folder, key=key, buffer=buffer, train=spans(folder / "train"), held_out=spans(folder / "held_out"), **facts)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    total = sum(int((table[:, 1] - table[:, 0]).sum()) for table in (corpus.train, corpus.held_out))
    return corpus if size == len(buffer) and corpus.nbytes == total else None


def verify_sources(spec: str | None, sources: dict[str, str], *, key: str, cache: Path | None = None) -> None:
    """Raise InputError if a raw file is no longer what it was when a run read it: `sources` and `key` are its corpus's.

    Files that are gone or new do not matter while the cache holds that corpus; nor does standard input, or Python's own
    documentation after an upgrade.
    """
    kept = cached(key, cache) is not None
    if spec is None and (kept or sources == builtin.sources()):
        return
    found = _present(spec)
    for name, sha256 in sources.items():
        if name in found and found[name].sha256() != sha256:
            raise _changed(str(found[name].path), "restore it")
        if name not in found and not kept:
            raise _changed(f"{name} is gone", "restore it")
    new = sorted(set(found) - set(sources))
    if new and not kept:
        raise _changed(f"{found[new[0]].path} is new", "remove it")


def _changed(what: str, remedy: str) -> InputError:
    return InputError(f"corpus changed since the run began: {what}; {remedy}, or start anew with --from RUN")


def _present(spec: str | None) -> dict[str, Source]:
    """The raw files that can still be read, by name."""
    if spec is None or spec == "-" or Path(spec).is_fifo():
        return {}
    try:
        return {source.name: source for source in find(spec, Path())}
    except InputError:
        return {}


def _parts(found: list[Source], form: Format, say: Say) -> Parts:
    for source in found:
        say(f"reading {source.name}")
        yield from parts(source, form)


def _name(spec: str) -> str:
    if spec == "-":
        return "stdin"
    path = Path(spec).absolute()
    while has_magic(path.name) and not path.exists():
        path = path.parent
    return stem(path.name) or "corpus"


def _cached_or_built(name: str, label: str, sources: dict[str, str], parts: Parts, options: list[str], root: Path) -> Corpus:
    key = hashlib.sha256(json.dumps([FORMAT, name, options, sorted(sources.items())]).encode()).hexdigest()[:32]
    folder = root / "corpora" / key
    existed = folder.exists()
    corpus = cached(key, root)
    if corpus is None:
        if existed:  # folders appear whole, so this one was damaged later
            shutil.rmtree(folder)
        with new_folder(folder) as fresh, closing(parts):  # a part that cannot be read must not leave its file open
            facts = build(fresh, parts, options[0], label)
            (fresh / "corpus.json").write_text(json.dumps({"name": name, "sources": sources, **facts._asdict()}), encoding="utf-8")
        corpus = cached(key, root)
    if corpus is None:
        raise InputError(f"{root}: the cache was changed while it was being read; try again")
    return corpus
