"""A corpus out of several sources, by ratio to a budget of words: a plan in, a folder that `ritornello run` reads out.

    words = 1_000_000
    [sources.childes]
    share = 29
    files = ["childes.train"]
    clean = ["speaker-tags", "whitespace"]

Each source gives its share of the budget, in whole documents drawn in an order that follows from the seed and the source's name. The
last of them is cut at the end of a line or sentence, so a source is short of its share by less than one. Documents are cleaned before
they are counted; one that is then empty, or nearly copies a document taken before it from any source, is left out.

FOLDER/01-childes.jsonl   a document a line, {"text": ...}; files stand in the plan's order
FOLDER/manifest.json      words, documents, bytes and checksums by source; what was done to them; what was left out and why

The same plan and the same files give the same bytes. Words are whitespace tokens; see data/words.py for scripts without spaces.
"""

import json
import re
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from glob import has_magic, iglob
from pathlib import Path
from typing import Any, Literal

from ritornello import __version__
from ritornello.config import from_dict, read_file, to_dict
from ritornello.data.cache import named_folder
from ritornello.data.cleaning import check
from ritornello.data.corpus import read_corpus
from ritornello.data.drawing import Copies, Draw
from ritornello.data.resampling import Weight, bag
from ritornello.data.sources import MANIFEST, Source
from ritornello.errors import InputError

FORMAT = 1  # of the manifest
NAME = re.compile(r"[A-Za-z0-9_-]+")

Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class SourcePlan:
    """Where a part of the corpus comes from, and what is done to it."""

    files: tuple[str, ...]  # files, folders or globs, relative to the plan or the data folder
    share: float  # of the words, in whatever unit the other sources' shares are
    documents: Literal["auto", "blank", "file", "line"] = "auto"
    encoding: str = "utf-8"
    column: str = "text"
    longest: int | None = None  # words; a longer document is parted at line ends
    clean: tuple[str, ...] = ()  # steps of data/cleaning.py, in order
    licence: str | None = None  # a note, passed on

    def check(self, where: str) -> None:
        """InputError, which begins with `where`, for what cannot be."""
        if not 0 < self.share < float("inf"):
            raise InputError(f"{where}.share: {self.share:g} is not a positive number")
        if not self.files:
            raise InputError(f"{where}.files: none; name at least one file, folder or glob")
        if self.longest is not None and self.longest < 1:
            raise InputError(f"{where}.longest: {self.longest} is less than 1 word")
        check(self.clean, f"{where}.clean")


@dataclass(frozen=True, kw_only=True)
class Resample:
    """Draw documents that resemble a text; see data/resampling.py."""

    files: tuple[str, ...]  # the text
    weight: Weight = "document"


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a corpus is to be."""

    words: int
    sources: dict[str, SourcePlan]
    seed: int = 0
    shortage: Literal["leave", "redistribute"] = "leave"  # the words that a source lacks: do without, or take them from the others
    duplicates: float | None = None  # the similarity from which a document counts as a copy; None: copies stay
    resample: Resample | None = None

    def __post_init__(self) -> None:
        if self.words < 1:
            raise InputError(f"words: {self.words} is less than 1")
        if not self.sources:
            raise InputError("sources: none; give at least one [sources.NAME] with files and a share")
        for name, source in self.sources.items():
            if not NAME.fullmatch(name):
                raise InputError(f"sources.{name}: the name becomes a file's; use letters, digits, - and _")
            source.check(f"sources.{name}")


def read_plan(path: Path, **given: Any) -> Plan:
    """The plan in a .toml or .json file, with settings that are not None put over its own."""
    try:
        return from_dict(Plan, read_file(path) | {name: value for name, value in given.items() if value is not None})
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error


def build_mixture(plan: Plan, out: Path, folders: Sequence[Path], *, cache: Path | None = None, say: Say | None = None) -> dict[str, Any]:
    """Write the corpus to the new folder `out` and return its manifest. `folders`: where the plan's files are looked for, in turn.

    Raises InputError for what cannot be used, and then there is no `out`.
    """
    say = say or (lambda line: None)
    places = {name: [_locate(file, folders, name) for file in source.files] for name, source in plan.sources.items()}
    target = None
    if plan.resample is not None:
        wanted = [read_corpus(_locate(file, folders, "resample"), cache=cache) for file in plan.resample.files]
        target = bag(corpus.text(span) for corpus in wanted for span in corpus.whole())
    whole = sum(source.share for source in plan.sources.values())
    with named_folder(out) as folder, ExitStack() as open_files:
        copies = Copies(plan.duplicates) if plan.duplicates is not None else None
        draws = []
        for number, (name, source) in enumerate(plan.sources.items(), 1):
            say(f"reading {name}")
            corpora = [
                read_corpus(place, documents=source.documents, encoding=source.encoding, column=source.column, cache=cache)
                for place in places[name]
            ]
            file = open_files.enter_context(open(folder / f"{number:02}-{name}.jsonl", "wb"))
            draw = Draw(name, corpora, file, asked=plan.words * source.share / whole, clean=source.clean, longest=source.longest)
            draw.arrange(plan.seed, target, plan.resample.weight if plan.resample else "document")
            say(f"drawing {draw.asked:,.0f} words from {name}")
            draw.take(copies)
            draws.append(draw)
        for draw in draws:
            if draw.is_used_up and draw.lacking >= 1:
                rest = "the other sources give the rest" if plan.shortage == "redistribute" else "the corpus is so much shorter"
                say(f"{draw.name}: used up at {draw.words:,} of the {draw.asked:,.0f} words asked for; {rest}")
        if plan.shortage == "redistribute":
            _redistribute(draws, copies)
        for draw in draws:
            draw.finish()
        open_files.close()
        manifest = _manifest(plan, draws)
        (folder / MANIFEST).write_text(json.dumps(manifest, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return manifest


def _locate(file: str, folders: Sequence[Path], name: str) -> str:
    """The file, folder or glob in the first of the folders that has it."""
    for folder in folders:
        path = folder / file
        if path.exists() or (has_magic(file) and any(True for _ in iglob(str(path), recursive=True))):
            return str(path)
    raise InputError(f"{name}: no {file} in {' nor in '.join(map(str, folders))}; give the data's folder with --data or RITORNELLO_DATA")


def _redistribute(draws: Sequence[Draw], copies: Copies | None) -> None:
    """What used-up sources lack is asked of the others, by their shares, until it is there or all are used up."""
    while True:
        lacking = sum(draw.lacking for draw in draws if draw.is_used_up)
        for draw in draws:
            if draw.is_used_up:
                draw.goal -= draw.lacking
        rest = [draw for draw in draws if not draw.is_used_up or draw.words > draw.goal]  # more to draw, or to leave uncut
        if lacking < 1 or not rest:
            return
        whole = sum(draw.asked for draw in rest)
        for draw in rest:
            draw.goal += lacking * draw.asked / whole
            draw.take(copies)


def _manifest(plan: Plan, draws: Sequence[Draw]) -> dict[str, Any]:
    sources: dict[str, dict[str, Any]] = {}
    for draw, (name, source) in zip(draws, plan.sources.items(), strict=True):
        path = Path(draw.file.name)
        facts = {"file": path.name, "sha256": Source(path.name, path).sha256(), "nbytes": path.stat().st_size}
        origin = {file: corpus.sources for file, corpus in zip(source.files, draw.corpora, strict=True)}
        sources[name] = facts | draw.facts() | {"from": origin, "licence": source.licence}
    totals = {key: sum(each[key] for each in sources.values()) for key in ("words", "documents", "nbytes")}
    return {"format": FORMAT, "ritornello": __version__} | totals | {"sources": sources, "plan": to_dict(plan)}
