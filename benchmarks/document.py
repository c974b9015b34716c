"""docs/results/speed.json: every row of the speed topics, the runs they came from, and what they say about the targets.

    {"runs": {"kernels 2026-11-21T13:00:00+00:00": {machine, versions, commit, command}},
     "targets": [{"target", "what", "against", "floor", "aim", "measured", "verdict", "why", "run"}],
     "rows": [{"topic", "part", "run", ...}]}

A part of a topic that runs again replaces its own rows and no others, so each row names its run. speed.md and the pictures beside it
are made from this file; `check` finds where they are not.
"""

import json
from pathlib import Path
from typing import Any

from benchmarks import pictures, table, targets

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "docs" / "results"
SPEED = FOLDER / "speed.json"


def load() -> dict[str, Any]:
    return json.loads(SPEED.read_text(encoding="utf-8")) if SPEED.exists() else {"runs": {}, "rows": []}


def keep(rows: list[dict[str, Any]], made_by: dict[str, Any]) -> None:
    """One part's rows in place of those it left before."""
    old, own = load(), (rows[0]["topic"], rows[0]["part"])
    run = f"{own[0]} {made_by['started']}"
    write(
        [row for row in old["rows"] if (row["topic"], row["part"]) != own] + [row | {"run": run} for row in rows],
        old["runs"] | {run: made_by},
    )


def write(rows: list[dict[str, Any]], runs: dict[str, Any]) -> None:
    """The document, its page and its pictures; only runs that a row names stay."""
    judged = targets.judge(rows)
    found = {"runs": {name: runs[name] for name in sorted({row["run"] for row in rows})}, "targets": judged, "rows": rows}
    SPEED.write_text(_one_a_line(found), encoding="utf-8")
    for name, text in made_from(found).items():
        (FOLDER / name).write_text(text, encoding="utf-8")


def made_from(found: dict[str, Any]) -> dict[str, str]:
    """File name -> text of all that is made from the document."""
    drawn = {name: drawing for name, draw in pictures.PICTURES.items() if (drawing := draw(found["rows"])) is not None}
    captions = {name: caption for name, (caption, _) in drawn.items()}
    return {"speed.md": table.render(found, captions)} | {name: svg for name, (_, svg) in drawn.items()}


def check() -> list[str]:
    """What does not agree, a line each."""
    found = load()
    if "targets" not in found:
        return [f"{SPEED.name} is not there; run python -m benchmarks"]
    lines = targets.unsaid(targets.judge(found["rows"]))
    if found["targets"] != targets.judge(found["rows"]):
        lines.append(f"{SPEED.name}: its targets are not what its rows and benchmarks/targets.py say; run python -m benchmarks --render")
    if lost := sorted({row["run"] for row in found["rows"]} ^ set(found["runs"])):
        lines.append(f"{SPEED.name}: runs without rows, or rows without a run: {', '.join(lost)}")
    made = made_from(found)
    stale = [name for name, text in made.items() if not (FOLDER / name).exists() or (FOLDER / name).read_text(encoding="utf-8") != text]
    left = [path.name for name in pictures.PICTURES if name not in made and (path := FOLDER / name).exists()]
    return lines + [f"{name} is not what {SPEED.name} renders to; run python -m benchmarks --render" for name in stale + left]


def _one_a_line(found: dict[str, Any]) -> str:
    """JSON with a line for each row, so that a difference between two versions can be read."""
    runs = ",\n".join(f"  {json.dumps(name)}: {json.dumps(run)}" for name, run in found["runs"].items())
    lists = [f'"{name}": [\n' + ",\n".join(f"  {json.dumps(line)}" for line in found[name]) + "\n]" for name in ("targets", "rows")]
    return f'{{"runs": {{\n{runs}\n}},\n' + ",\n".join(lists) + "}\n"
