"""Public corpora by name, through the `datasets` library: streamed into a folder that `ritornello data build` and `run` read.

    babylm-2026-10m, -100m    the six sources of the BabyLM challenge, a line a line
    babylm-2024-10m           a copy of the 2024 challenge's text, rows as they come
    babylm-2023-10m, -100m    a copy of the first challenge's text, a line a line
    OWNER/NAME, or a folder   any other dataset of the hub, or files of data on this disk

FOLDER/childes.txt            a source whose rows are lines, as they stand; .jsonl where a row is a document
FOLDER/manifest.json          where each came from, at which revision; words, rows, bytes, checksum, and a note on the licence

The folder appears when all of it is there. Nothing is fetched but data: no dataset's own code is run.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any, BinaryIO

from ritornello.data.cache import named_folder
from ritornello.data.documents import utf8
from ritornello.data.sources import MANIFEST, Source
from ritornello.errors import InputError
from ritornello.hub import reach

FORMAT = 1  # of the manifest
MOST_FILES = 1000
PARTS = ("bnc_spoken", "childes", "gutenberg", "open_subtitles", "simple_wiki", "switchboard")
LICENCE = "each source's own, as the challenge's page tells; CHILDES, Switchboard and the BNC are for research"


@dataclass(frozen=True)
class Public:
    """Where a public corpus lies, and what its rows are."""

    repository: str  # OWNER/NAME, or a folder
    files: Mapping[str, str] = field(default_factory=dict)  # source -> file, of a repository that has one for each
    revision: str | None = None  # None: the newest
    lines: bool = True  # a row is a line of a longer text, not a document
    licence: str | None = LICENCE


_FILES = {source: f"{source}.train.txt" for source in PARTS}
CORPORA = {
    "babylm-2026-10m": Public("BabyLM-community/BabyLM-2026-Strict-Small", _FILES, "c92ab16b4f08858304b0815706065b3354d8fc0a"),
    "babylm-2026-100m": Public("BabyLM-community/BabyLM-2026-Strict", _FILES),
    "babylm-2024-10m": Public("AlienKevin/BabyLM_2024_10M", lines=False),
    "babylm-2023-10m": Public("nilq/babylm-10M"),
    "babylm-2023-100m": Public("nilq/babylm-100M"),
}

Say = Callable[[str], None]


class _Sink:
    """A source's file while it grows."""

    def __init__(self, file: BinaryIO, lines: bool):
        self.file, self.lines, self.rows, self.words = file, lines, 0, 0

    def write(self, text: str, where: str) -> None:
        self.file.write(utf8(text if self.lines else json.dumps({"text": text}, ensure_ascii=False), where) + b"\n")
        self.rows += 1
        self.words += len(text.split())


def fetch(
    name: str, out: Path, *, split: str = "train", column: str = "text", by: str | None = None, say: Say | None = None
) -> dict[str, Any]:
    """Write the corpus of that name, dataset of the hub, or folder of data files to the new folder `out`; returns its manifest.

    `column` holds the text; rows go to a file for each value of the column `by`, such as "meta.pile_set_name". Raises InputError if it
    cannot be had, and then there is no `out`.
    """
    public = CORPORA.get(name) or _unnamed(name)
    sinks: dict[str, _Sink] = {}
    with named_folder(out) as folder:
        with ExitStack() as open_files:
            for number, (source, row) in enumerate(_rows(name, public, split), 1):
                part = source if by is None else str(_value(row, by, name))
                if part not in sinks:
                    if len(sinks) == MOST_FILES:
                        raise InputError(f"--by {by}: more than {MOST_FILES:,} different values, so no source; choose another column")
                    path = folder / _file(part, public.lines)
                    if path.exists():
                        raise InputError(f"--by {by}: {part!r} and another value would both be {path.name}; choose another column")
                    sinks[part] = _Sink(open_files.enter_context(open(path, "wb")), public.lines)
                text = _value(row, column, name)
                if not isinstance(text, str):
                    raise InputError(f"{name}: column {column!r} should hold text, found {type(text).__name__}; choose one with --column")
                sinks[part].write(text, f"{name}, row {number}")
                if say and number % 1000 == 0:
                    say(f"{number:,} rows of {name}")
        if not sinks:
            raise InputError(f"{name}: holds no rows")
        manifest = _manifest(name, public, sinks)
        (folder / MANIFEST).write_text(json.dumps(manifest, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return manifest


def _unnamed(name: str) -> Public:
    if not Path(name).is_dir() and not re.fullmatch(r"[\w.-]+/[\w.-]+", name):
        near = get_close_matches(name, CORPORA, n=1, cutoff=0.5)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise InputError(f"no corpus {name!r}.{hint} Known: {', '.join(CORPORA)}; or OWNER/NAME on the hub, or a folder of data files")
    return Public(name, lines=False, licence=None)


def _rows(name: str, public: Public, split: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """(source, row) of all rows, one at a time. Everything that a library or a network can do becomes one line."""
    try:
        from datasets import DownloadConfig, disable_progress_bars, load_dataset
        from datasets.exceptions import DatasetsError
        from huggingface_hub.errors import HfHubHTTPError
    except ImportError as error:
        raise InputError("fetching corpora needs the datasets library: pip install 'ritornello[data]'") from error
    disable_progress_bars()
    local = Path(public.repository).is_dir()
    if not local:
        reach(name, "cannot be fetched")
    repository = str(Path(public.repository).absolute()) if local else public.repository
    wanted = {"data_files": dict(public.files)} if public.files else {"split": split}
    try:
        found = load_dataset(repository, revision=public.revision, streaming=True, download_config=DownloadConfig(max_retries=1), **wanted)
        for source, rows in found.items() if public.files else [(Path(repository).name, found)]:
            for row in rows:
                yield source, row
    except (OSError, ValueError, KeyError, RuntimeError, DatasetsError, *HfHubHTTPError.__bases__) as error:  # of whatever speaks HTTP here
        if isinstance(error, InputError):
            raise
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise InputError(f"{name}: cannot be fetched: {reason}") from error


def _value(row: Any, column: str, name: str) -> Any:
    """The value of a column; "meta.name" is a field within one."""
    for key in column.split("."):
        if not isinstance(row, dict) or key not in row:
            known = ", ".join(map(repr, row)) if isinstance(row, dict) else type(row).__name__
            raise InputError(f"{name}: no column {column!r}; found {known}; choose one with --column")
        row = row[key]
    return row


def _file(source: str, lines: bool) -> str:
    return re.sub(r"[^\w.-]+", "-", source).strip("-.") + (".txt" if lines else ".jsonl")


def _manifest(name: str, public: Public, sinks: Mapping[str, _Sink]) -> dict[str, Any]:
    sources = {}
    for source, sink in sorted(sinks.items()):
        path = Path(sink.file.name)
        facts = {"file": path.name, "sha256": Source(path.name, path).sha256(), "nbytes": path.stat().st_size}
        sources[source] = facts | {"words": sink.words, "rows": sink.rows, "licence": public.licence}
    origin = {"name": name, "repository": Path(public.repository).name if Path(public.repository).is_dir() else public.repository}
    return {"format": FORMAT, "from": origin | {"revision": public.revision}, "sources": sources}
