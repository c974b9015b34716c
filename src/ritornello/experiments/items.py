"""The texts of every evaluation set, item by item: what could stand in a training text. Of protected sets they never leave this process."""

import csv
import io
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

from ritornello.errors import InputError
from ritornello.evals.ewok import ARCHIVE, VOCABULARY
from ritornello.evals.ewok import read_items as read_ewok
from ritornello.evals.files import checksums, read_text, record_files, records
from ritornello.evals.glue import BENCHMARKS
from ritornello.evals.pairs import read_pairs

Item = tuple[str, ...]  # its texts


def read_items(name: str, path: Path) -> list[Item]:
    """The items of a suite whose files lie at `path`. InputError if they cannot be read, or are another suite's."""
    if name not in READERS:
        raise InputError(f"the same items as {name.partition('-')[0]}'s")
    return READERS[name](path)


def _pairs(path: Path) -> list[Item]:
    return [(pair.context + pair.good, pair.context + pair.bad) for pairs in read_pairs(path).values() for pair in pairs]


def _ewok(path: Path, filtered: bool) -> list[Item]:
    found: list[Item] = []
    for domain in read_ewok(path / ARCHIVE, path / VOCABULARY if filtered else None).values():
        if isinstance(domain, InputError):
            raise domain
        found += [(*item.contexts, *item.targets) for item in domain]
    return found


def _bear(path: Path) -> list[Item]:
    """Every fact in each of its relation's templates."""
    about = json.loads(read_text(_either(path, "metadata_relations.json")))
    found = []
    for name, file in record_files(path).items():
        for record in records(file):
            who, what = record.text("sub_label", empty=True), record.text("obj_label")
            found.append(tuple(template.replace("[Y]", what).replace("[X]", who) for template in about[name]["templates"]))
    return found


def _entity(path: Path) -> list[Item]:
    files = record_files(path).values()
    return [(record.text("input_prefix") + record.texts("options")[0],) for file in files for record in records(file)]


def _wug(path: Path) -> list[Item]:
    files = [file for name in checksums()["wug"] for file in record_files(path / name).values()]
    return [tuple(record.text("sentences").split("\t")) for file in files for record in records(file)]


def _reading(path: Path) -> list[Item]:
    """The sentences: each as far as its last word."""
    found = {}
    for word in csv.DictReader(io.StringIO(read_text(_either(path, "reading_data.csv")))):
        found[word["sent_id"]] = (f"{word['item']} {word['word']}",)
    return list(found.values())


def _glue(path: Path) -> list[Item]:
    """The items that are reported on: of the validation files."""
    found: list[Item] = []
    for benchmark in BENCHMARKS.values():
        for name in benchmark.report:
            try:
                file = _either(path, name)
            except InputError:
                continue  # not every folder has every task
            if name.endswith(".tsv"):
                rows = [line.split("\t") for line in read_text(file).split("\n") if line.strip()]
                found += [(cells[0] if len(cells) == 2 else cells[-1],) for cells in rows]
            else:
                found += [tuple(part.format(**record.fields) for part in benchmark.parts) for record in records(file)]
    if not found:
        raise InputError(f"{path}: holds none of GLUE's validation files")
    return found


def _either(path: Path, name: str) -> Path:
    """The file, plain or compressed."""
    place = next((each for each in (path / f"{name}.gz", path / name) if each.is_file()), None)
    if place is None:
        raise InputError(f"{path / name}: missing")
    return place


READERS: dict[str, Callable[[Path], list[Item]]] = {
    **dict.fromkeys(("blimp", "blimp-full", "blimp-fast", "supplement", "supplement-fast"), _pairs),
    "ewok": partial(_ewok, filtered=True),
    "ewok-full": partial(_ewok, filtered=False),
    "bear": _bear,
    "bear-big": _bear,
    "entity": _entity,
    "wug": _wug,
    "reading": _reading,
    "glue": _glue,
}
