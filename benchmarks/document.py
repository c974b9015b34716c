"""docs/results/speed.json: every row of the speed topics, and the runs they came from.

    {"runs": {"kernels 2026-11-21T13:00:00+00:00": {machine, versions, commit, command}}, "rows": [{"topic", "part", "run", ...}]}

A part of a topic that runs again replaces its own rows and no others, so each row has a run of its own.
"""

import json
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
SPEED = ROOT / "docs" / "results" / "speed.json"


def load() -> dict[str, Any]:
    return json.loads(SPEED.read_text(encoding="utf-8")) if SPEED.exists() else {"runs": {}, "rows": []}


def keep(rows: list[dict[str, Any]], made_by: dict[str, Any]) -> None:
    """One part's rows in place of those it left before."""
    if not rows:
        return
    old, own = load(), (rows[0]["topic"], rows[0]["part"])
    run = f"{own[0]} {made_by['started']}"
    kept = [row for row in old["rows"] if (row["topic"], row["part"]) != own] + [row | {"run": run} for row in rows]
    runs = old["runs"] | {run: made_by}
    write({"runs": {name: runs[name] for name in sorted({row["run"] for row in kept})}, "rows": kept})


def write(found: dict[str, Any]) -> None:
    """One line a row, so that a difference between two versions can be read."""
    runs = ",\n".join(f"  {json.dumps(name)}: {json.dumps(run)}" for name, run in found["runs"].items())
    rows = ",\n".join(f"  {json.dumps(row)}" for row in found["rows"])
    SPEED.write_text(f'{{"runs": {{\n{runs}\n}}, "rows": [\n{rows}\n]}}\n', encoding="utf-8")
