"""The decisions of an evaluation as one file, in the BabyLM challenge's schema.

    {"blimp": {"adjunct_island": {"predictions": [{"id": "adjunct_island_0", "pred": " Who ..."}, ...]}, ...}, "ewok": ...}

EWoK's decisions are numbers there, 1 or 2 for the target that was chosen. The texts that the challenge wants in their place are protected:
they are written into an archive with a password only, FILE.ewok.zip beside FILE.json.
"""

import json
from pathlib import Path
from typing import Any

from ritornello.config import read_file
from ritornello.errors import InputError
from ritornello.evals.ewok import ARCHIVE, PASSWORD, VOCABULARY, read_items
from ritornello.evals.protected import write_protected
from ritornello.evals.suite import suite
from ritornello.folder import write_json

PARTS = {  # the challenge's name -> our suite, the task if it is one alone, and how many subtasks there are
    "blimp": ("blimp", "*", 67),
    "blimp_supplement": ("supplement", "*", 5),
    "ewok": ("ewok", "*", 11),
    "entity_tracking": ("entity", "*", 18),
    "wug_adj": ("wug", "wug_adj_nominalization", 1),
    "wug_past": ("wug", "wug_past_tense", 1),
    "reading": ("reading", "reading", 1),
    "glue": ("glue-2025", "*", 7),
}

Subtasks = dict[str, dict[str, list[dict[str, Any]]]]


def write_predictions(evaluation: Path, file: Path, data: Path) -> list[str]:
    """Write the decisions that an evaluation's folder holds of whole suites; EWoK's with their texts go into an archive.

    They are those of the subject of its results.json: what may lie there of another is left. Returns what the challenge's file would have
    and this one lacks, a line each. InputError if there is no decision at all.
    """
    results = evaluation / "results.json"
    about = read_file(results)["subject"] if results.exists() else {}
    found = {name: part for name in PARTS if (part := _read(evaluation, name, about))}
    if not found:
        suites = ", ".join(sorted({ours for ours, _, _ in PARTS.values()}))
        raise InputError(f"{evaluation}: holds no decisions; evaluate one of {suites} first")
    write_json(file, found)
    if "ewok" in found:
        texts = json.dumps(with_texts(found["ewok"], data / suite("ewok").path), ensure_ascii=False)
        write_protected(file.with_suffix(".ewok.zip"), "predictions.json", texts.encode(), PASSWORD)
    counts = {name: len(found.get(name, {})) for name in PARTS}
    return [f"{name}: {counts[name]} of {whole} subtasks" for name, (_, _, whole) in PARTS.items() if counts[name] < whole]


def _read(evaluation: Path, name: str, about: dict[str, str]) -> Subtasks:
    """What the folder keeps of a part of the file, if it is this subject's."""
    ours, task, _ = PARTS[name]
    found: Subtasks = {}
    for path in sorted((evaluation / ours).glob(f"{task}.json")):
        kept = read_file(path)
        if kept["predictions"] and (kept["key"]["subject"], kept["key"]["protocol"]) == (about.get("sha256"), about.get("protocol")):
            found[path.stem] = {"predictions": kept["predictions"]}
    return found


def with_texts(decisions: Subtasks, folder: Path) -> Subtasks:
    """EWoK's decisions with the text of the chosen target in place of its number."""
    domains = read_items(folder / ARCHIVE, folder / VOCABULARY)
    found: Subtasks = {}
    for domain, part in decisions.items():
        items = domains[domain]
        if isinstance(items, InputError):
            raise items
        targets = [target for item in items for target in (item.targets, item.targets[::-1])]
        if len(targets) != len(part["predictions"]):
            raise InputError(f"{domain}: {len(part['predictions'])} decisions on {len(targets)} rows; evaluate ewok again with these files")
        made = zip(part["predictions"], targets, strict=True)
        found[domain] = {"predictions": [one | {"pred": f" {target[one['pred'] - 1]}"} for one, target in made]}
    return found
