"""docs/results/speed.md: the targets, what was measured, and where each figure comes from. Written from speed.json and nothing else."""

from typing import Any

from benchmarks.targets import GROUPS
from ritornello.analysis.numerals import nbytes

HEAD = """# Speed

Written by `python -m benchmarks` from [`speed.json`](speed.json); a test holds them together. Below a floor the work is not done; an aim is
what we want to be known for. A ratio (×) is how many times longer the other side takes, a share (%) is of the other side's speed or time,
an error is relative. Candidates take turns in one run, medians count, and nothing is timed before both sides are found to compute the same.
"""
COLUMNS = "| | what | beside | floor | aim | measured | |\n| --- | --- | --- | ---: | ---: | ---: | --- |"


def render(found: dict[str, Any], pictures: dict[str, str]) -> str:
    """The page of a document; `pictures`: file name -> what it shows, of those that there are."""
    judged = {line["target"]: line for line in found["targets"]}
    counts = {said: sum(line["verdict"] == said for line in judged.values()) for said in ("aim", "floor", "below the aim", "missed")}
    reached = f"{counts['aim']} reach the aim, {counts['floor']} the floor"
    short = f"{counts['below the aim']} have no floor and are below the aim, {counts['missed']} are missed"
    text = [HEAD, f"Of {len(judged)} figures {reached}, {short}; not measured here: {len(judged) - sum(counts.values())}.", ""]
    for file, caption in pictures.items():
        text += [f"![{caption}]({file})", ""]
    if memory := [row for row in found["rows"] if row.get("row") == "memory"]:
        text += ["## Memory of training", "", "| two steps in bfloat16 | GB |", "| --- | ---: |"]
        text += [*(f"| {row['what']} | {row['bytes'] / 1e9:.2f} |" for row in memory), ""]
    for name, targets in GROUPS.items():
        text += [f"## {name}", "", COLUMNS, *(_line(judged[target.name], target.lower) for target in targets), ""]
        notes: dict[str, list[str]] = {}
        for target in targets:
            notes.setdefault(judged[target.name]["why"], []).append(target.name)
        said = [f"- {', '.join(names)}: {why}." for why, names in notes.items() if why]
        text += [*said, ""] if said else []
    return "\n".join([*text, "## Where the figures come from", "", *_runs(found)]) + "\n"


def _line(line: dict[str, Any], lower: bool) -> str:
    def write(value: float, digits: str) -> str:
        if line["figure"] == "share":
            return f"{100 * value:.0f} %"
        return format(value, digits) + ("×" if line["figure"] == "ratio" else "")

    most, fine = "≤ " if lower else "", ".1e" if line["figure"] == "error" else ".3f" if lower else ".1f"
    bounds = ["" if bound is None else most + write(bound, "g") for bound in (line["floor"], line["aim"])]
    measured = f"**{write(line['measured'], fine)}**" if line["measured"] is not None else ""
    setting = ", ".join(f"{name} {value}" for name, value in (line["setting"] or {}).items() if value is not None)
    against = line["against"] + (f" ({setting})" if setting else "")
    said = line["verdict"] if line["verdict"] in ("aim", "floor") else f"*{line['verdict']}*"
    return f"| {line['target']} | {line['what']} | {against} | {' | '.join(bounds)} | {measured} | {said} |"


def _runs(found: dict[str, Any]) -> list[str]:
    machines: dict[str, list[str]] = {}
    for run in found["runs"].values():
        versions = ", ".join(f"{name} {version}" for name, version in run["versions"].items())
        memory, threads = nbytes(run["memory_bytes"]), "1 thread" if run["threads"] == 1 else f"{run['threads']} threads"
        machine = (
            f"{run['cpu']}, {run['cores']} cores, {memory} of memory, {run['gpu'] or 'no GPU'}; {run['system']}, Python {run['python']}"
        )
        line = f"| `{run['command']}` | {threads} | {run['commit']} | {run['started'][:16].replace('T', ' ')} |"
        machines.setdefault(f"{machine}, {versions}; kernels {run['kernels']}.", []).append(line)
    columns = ["| command | | commit | UTC |", "| --- | --- | --- | --- |"]
    return [line for machine, lines in machines.items() for line in (machine, "", *columns, *sorted(lines), "")][:-1]
