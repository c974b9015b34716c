"""What a corpus holds: words, documents, sources, scripts, lengths, copies, and what a tokenizer makes of it. One pass, piece by piece.

types            different words, in lower case; type_token is their share of all words, hapax the share of them that occur once
lengths          words of a document: quantiles
scripts          shares of the characters: letters by script, as Unicode names them; digits, signs, spaces
copies           documents that nearly copy an earlier one (data/duplicates.py), and which texts have most of them
"""

import unicodedata
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from rich.markup import escape
from rich.table import Table

from ritornello.config import read_file
from ritornello.data.corpus import Corpus, read_corpus
from ritornello.data.documents import parted
from ritornello.data.duplicates import Duplicates
from ritornello.data.sources import MANIFEST, Format, find, parts
from ritornello.data.tokenizers import ByteTokenizer, Tokenizer, load_tokenizer
from ritornello.data.words import count, words
from ritornello.errors import InputError
from ritornello.experiments.console import Console
from ritornello.experiments.overlap import overlap, there
from ritornello.experiments.suites import data_folder
from ritornello.experiments.summary import render

PIECE = 1 << 18  # bytes looked at at a time
QUANTILES = {"least": 0, "5 %": 0.05, "25 %": 0.25, "median": 0.5, "75 %": 0.75, "95 %": 0.95, "most": 1}
SHOWN = 5  # texts with most copies
FILES = 30  # shown in the table
LARGEST = 1 << 24  # bytes of a document that is compared with others: both are held whole


def inspect(
    spec: str | None,
    *,
    documents: str = "auto",
    encoding: str = "utf-8",
    column: str = "text",
    tokenizer: str | None = None,
    similarity: float = 0.8,
    suites: tuple[str, ...] = (),
    data: str | Path | None = None,
    console: Console | None = None,
) -> dict[str, Any]:
    """All of the above as plain values. `tokenizer`: "bytes", a tokenizer.json or a run; `suites`: whose overlap to count, or "all".

    `spec` and how to read it are those of a run. Raises InputError for what cannot be read.
    """
    console = console or Console(quiet=True)
    folder = data_folder(data) if suites else None
    made_by = _tokenizer(tokenizer)
    corpus = read_corpus(spec, documents=documents, encoding=encoding, column=column, progress=console.progress)
    found: dict[str, Any] = {"name": corpus.name, "words": corpus.words, "documents": len(corpus.whole()), "nbytes": corpus.nbytes}
    found |= {"each_is_a": corpus.documents, "held_out": len(corpus.held_out), "sources": _sources(spec, corpus)}
    contents, lengths = _contents(corpus, made_by, console)
    found |= contents
    if len(corpus.sources) > 1 and not any("words" in source for source in found["sources"]):
        _count_sources(found["sources"], str(spec), Format(encoding, column), corpus, lengths)
    found["copies"] = _copies(corpus, similarity, console)
    if folder is not None:
        names = [each for name in suites for each in (there(folder) if name == "all" else [name])]
        found["overlap"] = overlap(corpus, list(dict.fromkeys(names)), folder, console)
    return found


def _tokenizer(name: str | None) -> tuple[str, Tokenizer] | None:
    if name is None:
        return None
    if name == "bytes":
        return name, ByteTokenizer()
    path = Path(name)
    return name, load_tokenizer(path / "tokenizer.json" if path.is_dir() else path)


def _sources(spec: str | None, corpus: Corpus) -> list[dict[str, Any]]:
    """Each raw file, with what a manifest says of it where there is one."""
    path = Path(spec) / MANIFEST if spec not in (None, "-") else None
    told = {}
    if path is not None and path.is_file():
        try:
            told = {facts["file"]: {"source": name} | facts for name, facts in read_file(path)["sources"].items()}
        except (KeyError, TypeError, AttributeError) as error:
            raise InputError(f"{path}: not a manifest of `ritornello data build`; remove it from the corpus, or restore it") from error
    kept = ("source", "words", "documents", "nbytes", "licence")
    found = []
    for name, sha256 in corpus.sources.items():
        facts = told.get(name, {})
        if facts and facts.get("sha256") != sha256:
            raise InputError(f"{name}: changed since {path} was written; build the corpus again")
        found.append({"file": name, "sha256": sha256} | {key: facts[key] for key in kept if key in facts})
    return found


def _count_sources(sources: list[dict[str, Any]], spec: str, form: Format, corpus: Corpus, lengths: np.ndarray) -> None:
    """Give each raw file its words and documents, by where it ends in the corpus's text: parts one after another, two newlines each."""
    ends, end = [], 0
    for source in find(spec, Path()):
        for part in parts(source, form):
            size = sum(len(piece.encode()) for piece in part.pieces)
            end += size + 2 if size else 0
        ends.append(end)
    which = np.searchsorted(ends, corpus.whole()[:, 0], side="right")
    for number, told in enumerate(sources):
        told["words"], told["documents"] = int(lengths[which == number].sum()), int((which == number).sum())


def _pieces(corpus: Corpus) -> Iterator[tuple[int, str]]:
    """(document, text) of all documents, in pieces."""
    for number, (start, end) in enumerate(corpus.whole().tolist()):
        for first, last in parted(corpus.buffer, start, end, PIECE):
            yield number, corpus.text((first, last))


def _contents(corpus: Corpus, tokenizer: tuple[str, Tokenizer] | None, console: Console) -> tuple[dict[str, Any], np.ndarray]:
    """What one pass over the text finds, and the words of each document (n,)."""
    types: Counter[str] = Counter()
    signs: Counter[str] = Counter()
    lengths = np.zeros(len(corpus.whole()), np.int64)
    tokens = 0
    for number, text in _pieces(corpus):
        types.update(words(text))
        signs.update(text)
        lengths[number] += count(text)
        if tokenizer is not None:
            tokens += sum(map(len, tokenizer[1].encode_many([text])))
        console.progress(f"looking at document {number + 1:,} of {len(lengths):,}")
    total = max(1, types.total())
    found: dict[str, Any] = {"types": len(types), "type_token": len(types) / total}
    found["hapax"] = sum(times == 1 for times in types.values()) / max(1, len(types))
    found["lengths"] = {name: int(np.quantile(lengths, share, method="inverted_cdf")) for name, share in QUANTILES.items()}
    found |= {"characters": signs.total(), "scripts": _scripts(signs)}
    if tokenizer is not None:
        name, made_by = tokenizer
        per = {"tokens_per_word": tokens / corpus.words, "bytes_per_token": corpus.nbytes / max(1, tokens)}
        found["tokenizer"] = {"name": name, "size": made_by.size, "tokens": tokens} | per
    return found, lengths


def _scripts(signs: Counter[str]) -> dict[str, float]:
    """Shares of the characters, most first."""
    found: Counter[str] = Counter()
    for sign, times in signs.items():
        kind = unicodedata.category(sign)[0]
        script = unicodedata.name(sign, "UNNAMED").partition(" ")[0].title() if kind in "LM" else None
        found[script or {"N": "digits", "Z": "spaces", "C": "spaces"}.get(kind, "signs")] += times
    return {name: times / found.total() for name, times in found.most_common()}


def _copies(corpus: Corpus, similarity: float, console: Console) -> dict[str, Any]:
    spans = corpus.whole()
    seen = Duplicates(lambda number: corpus.text(spans[number]), similarity)
    of: Counter[int] = Counter()
    copied, small = 0, spans[:, 1] - spans[:, 0] <= LARGEST
    for number in np.flatnonzero(small).tolist():
        text = corpus.text(spans[number])
        original = seen.copy_of(number, text)
        if original is not None:
            of[original] += 1
            copied += count(text)
        console.progress(f"comparing document {number + 1:,} of {len(spans):,}")
    most = [{"copies": times, "begins": _begins(corpus.text(spans[number]))} for number, times in of.most_common(SHOWN)]
    return {"similarity": similarity, "documents": of.total(), "words": copied, "most": most, "too_large": int((~small).sum())}


def _begins(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 80 else line[:79] + "…"


def table(found: dict[str, Any]) -> str:
    """What was found, for a terminal."""
    parts = [
        f"{found['name']}: {found['words']:,} words in {found['documents']:,} documents (each a {found['each_is_a']}), "
        f"{found['nbytes']:,} bytes, {found['characters']:,} characters; {found['held_out']:,} parts held out",
        f"{found['types']:,} different words ({100 * found['type_token']:.2f} % of all), {100 * found['hapax']:.0f} % of them once",
        "words of a document: " + ", ".join(f"{name} {words:,}" for name, words in found["lengths"].items()),
        "characters: " + ", ".join(f"{name} {100 * share:.1f} %" for name, share in list(found["scripts"].items())[:10]),
    ]
    copies = found["copies"]
    parts.append(f"near-duplicates ({copies['similarity']:g} alike or more): {copies['documents']:,} documents, {copies['words']:,} words")
    if copies["too_large"]:
        parts[-1] += f"; {copies['too_large']:,} documents are too large to compare"
    parts += [f"  {each['copies']:,} of: {each['begins']}" for each in copies["most"]]
    if "tokenizer" in found:
        made_by = found["tokenizer"]
        parts.append(
            f"tokens of {made_by['name']} ({made_by['size']:,} ids): {made_by['tokens']:,}, "
            f"{made_by['tokens_per_word']:.2f} a word, {made_by['bytes_per_token']:.2f} bytes each"
        )
    parts += ["", render(_grid(found["sources"][:FILES], ("file", "source", "words", "documents", "nbytes", "licence")))]
    if len(found["sources"]) > FILES:
        parts.append(f"and {len(found['sources']) - FILES:,} more files; --json lists them all")
    if "overlap" in found:
        parts += ["", overlap_table(found["overlap"])]
    return "\n".join(parts)


def overlap_table(rows: list[dict[str, Any]]) -> str:
    """Shares of items; what could not be read below."""
    shown = Table(box=None, pad_edge=False)
    names = ("8 words in a row", "13 words", "in whole", "with an unseen word")
    for name in ("suite", "items", *names):
        shown.add_column(name, justify="left" if name == "suite" else "right")
    for row in rows:
        if "reason" not in row:
            shares = (row[f"{name}_share"] for name in ("overlap_8", "overlap_13", "whole", "unseen_word"))
            shown.add_row(row["suite"], f"{row['items']:,}", *(f"{100 * share:.2f} %" for share in shares))
    gaps = [f"{row['suite']}: left out: {row['reason']}" for row in rows if "reason" in row]
    return "\n".join(["items of each evaluation set that stand in the training text, or hold a word it lacks:", render(shown), *gaps])


def _grid(rows: list[dict[str, Any]], names: tuple[str, ...]) -> Table:
    """The columns that any row has something for."""
    shown = Table(box=None, pad_edge=False)
    kept = [name for name in names if any(row.get(name) is not None for row in rows)]
    for name in kept:
        shown.add_column(name, justify="right" if name in ("words", "documents", "nbytes") else "left")
    for row in rows:
        values = (row.get(name) for name in kept)
        shown.add_row(*("" if value is None else f"{value:,}" if isinstance(value, int) else escape(str(value)) for value in values))
    return shown
