"""Corpora that are made: built from a plan, or fetched by name. See data/mixture.py and data/fetch.py for what is written."""

import os
from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.table import Table

from ritornello.data import fetch as fetching
from ritornello.data.cleaning import described
from ritornello.data.mixture import build_mixture, read_plan
from ritornello.experiments.console import Console
from ritornello.experiments.suites import DATA
from ritornello.experiments.summary import render
from ritornello.folder import words_of


def build(
    plan: str | Path,
    *,
    out: str | Path | None = None,
    words: str | None = None,
    seed: int | None = None,
    data: str | Path | None = None,
    console: Console | None = None,
) -> dict[str, Any]:
    """Build the corpus of a plan in the new folder `out`, and return its manifest with the folder's path.

    `words` and `seed` take the place of the plan's own. Its files are looked for beside it, then in `data`, RITORNELLO_DATA if not given.
    Raises InputError for what cannot be used.
    """
    plan, console = Path(plan), console or Console(quiet=True)
    asked = read_plan(plan, words=None if words is None else words_of(words), seed=seed)
    folders = [plan.parent, *(Path(folder) for folder in [data or os.environ.get(DATA)] if folder)]
    target = Path(out) if out is not None else Path("corpora") / plan.stem
    return {"path": str(target)} | build_mixture(asked, target, folders, say=console.say)


def fetch(name: str, *, out: str | Path | None = None, console: Console | None = None, **options: Any) -> dict[str, Any]:
    """Fetch a public corpus into the new folder `out`, and return its manifest with the folder's path. See data/fetch.py."""
    console = console or Console(quiet=True)
    target = Path(out) if out is not None else Path("corpora") / Path(name).name
    return {"path": str(target)} | fetching.fetch(name, target, say=console.progress, **options)


def table(manifest: dict[str, Any]) -> str:
    """What a manifest says, for a terminal."""
    sources = manifest["sources"]
    kept = [name for name in ("file", "asked", "words", "documents", "rows", "nbytes") if any(name in each for each in sources.values())]
    shown = Table(box=None, pad_edge=False)
    for name in ("source", *kept):
        shown.add_column(name, justify="left" if name in ("source", "file") else "right")
    for name, facts in sources.items():
        shown.add_row(escape(name), *(f"{facts[key]:,}" if isinstance(facts[key], int) else escape(facts[key]) for key in kept))
    removed = [
        f"{name}: left out {gone['documents']:,} documents of {gone['words']:,} words: {reason}"
        for name, facts in sources.items()
        for reason, gone in facts.get("removed", {}).items()
    ]
    total = [f"{manifest['words']:,} words in {manifest['documents']:,} documents"] if "words" in manifest else []
    return "\n".join([render(shown), *removed, *total, f"learn from it with: ritornello run {manifest['path']}"])


def steps_table() -> str:
    """The cleaning steps that a plan can name."""
    shown = Table(box=None, pad_edge=False)
    for name in ("step", "what it does to a document"):
        shown.add_column(name)
    for name, meaning in described().items():
        shown.add_row(name, escape(meaning))
    return "\n".join([render(shown), "build a corpus with: ritornello data build PLAN.toml; plans of ours are in recipes/data"])
