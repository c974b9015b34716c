"""docs/results/log.md: every run of runs.jsonl, the newest first, with what it was, what it cost and what it scored. Failures too."""

from collections.abc import Sequence
from typing import Any

from ritornello.analysis.numerals import duration, number

Line = dict[str, Any]  # of experiments/record.py
HEAD = """# Log of runs

Every run of a study, newest study first and in it the newest run, failures too; written by `python -m benchmarks.quality --render` from
[`runs.jsonl`](runs.jsonl), and a test holds them together. Scores are those of the official rules in per cent, unweighted means over
subtasks; held-out text is in bits per byte, lower is better, beside a modified Kneser-Ney n-gram's on the same text. Words are those
seen, each pass anew.
"""
SCORES = {"bits_per_byte": "bits per byte", "ngram_bits_per_byte": "n-gram"}
FIRST = (
    "bits_per_byte",
    "ngram_bits_per_byte",
    "blimp",
    "blimp (official-2024)",
    "blimp-fast",
    "supplement",
    "supplement-fast",
    "ewok",
    "bear",
    "entity",
)


def render(lines: Sequence[Line]) -> str:
    """The page."""
    if not lines:
        return f"{HEAD}\nThere are no runs yet.\n"
    studies = list(dict.fromkeys(line["study"] for line in reversed(lines)))
    failed = sum(line["failed"] is not None for line in lines)
    count = f"{len(lines)} run{'s' * (len(lines) > 1)} of {len(studies)} stud{'ies' if len(studies) > 1 else 'y'}, {failed} failed."
    return "\n".join([HEAD, count, *(_study(name, [line for line in lines if line["study"] == name]) for name in studies)])


def _study(name: str, lines: Sequence[Line]) -> str:
    """A table of the runs of one study, newest first; what all of them share is told once, above it."""
    shared = dict(lines[0]["config"])
    for line in lines:
        shared = {key: value for key, value in shared.items() if line["config"].get(key, ...) == value}
    found = {score for line in lines for score in line["scores"]}
    scores = [score for score in FIRST if score in found] + sorted(found - set(FIRST))
    titles = [
        "started (UTC)",
        "system",
        "seed",
        "words",
        "parameters",
        "steps",
        "PFLOP",
        "time",
        *(SCORES.get(each, each) for each in scores),
    ]
    rows = ["| " + " | ".join([*titles, "what differs"]) + " |", "| --- | --- | " + "---: | " * (len(titles) - 2) + "--- |"]
    corpora = ", ".join(
        f"{corpus} (SHA-256 {sha[:12]})" for corpus, sha in dict.fromkeys((line["corpus"], line["data_sha256"]) for line in lines)
    )
    commits = ", ".join(dict.fromkeys(str(line["commit"]) for line in lines))
    machines = "; ".join(dict.fromkeys(line["machine"] for line in lines if line.get("machine")))  # older lines do not say
    about = [f"On {corpora}; commit {commits}{f'; {machines}' if machines else ''}."]
    if shared:
        about.append(f"All of them: {_settings(shared)}.")
    for line in reversed(lines):
        own = {key: value for key, value in line["config"].items() if key not in shared}
        said = f"**failed: {line['failed']}**" if line["failed"] is not None else ""
        cells = [
            (line["started"] or "")[:16].replace("T", " "),
            line["system"],
            str(line["seed"]),
            number(line["words"]),
            number(line["parameters"]),
            f"{line['steps']:,}",
            f"{line['flop'] / 1e15:.2g}",
            duration(line["seconds"]),
            *(_score(each, line["scores"].get(each)) for each in scores),
            "; ".join(part for part in (said, _settings(own)) if part),
        ]
        rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(["", f"## {name}", "", *about, "", *rows, ""])


def _settings(values: dict[str, Any]) -> str:
    return ", ".join(f"`{key}={value}`" for key, value in values.items())


def _score(name: str, value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:.3f}" if "bits" in name else f"{100 * value:.1f}"
