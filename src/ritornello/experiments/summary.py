"""A run in the terminal: its summary, and a list of runs."""

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ritornello import folder
from ritornello.analysis.numerals import duration, nbytes, score
from ritornello.config import from_dict, read_file, to_dict
from ritornello.errors import InputError
from ritornello.evals.published import CAVEAT, PUBLISHED
from ritornello.evals.report import Report
from ritornello.experiments.settings import RunConfig
from ritornello.mixers.layers import describe


def summary_data(path: Path) -> dict[str, Any]:
    """config.json and results.json of a run, the results None if it is not finished, and where training stands."""
    config = to_dict(from_dict(RunConfig, folder.read_config(path)))
    results = read_file(path / "results.json") if (path / "results.json").exists() else None
    log = path / "log.jsonl"
    step = log.read_bytes().count(b"\n") if log.exists() else 0
    return {"path": str(path), "config": config, "step": step, "results": results}


def summary(path: Path) -> str:
    """A run's plan, scores and cost as text for a terminal."""
    data = summary_data(path)
    lines = [data["config"]["plan"]]
    if data["config"]["imported"] is not None:
        return "\n".join(
            [*lines, f"Nothing was trained here. Use it with: ritornello generate {path}, or ritornello run TEXT --from {path}"]
        )
    if data["results"] is None:
        return "\n".join(
            [*lines, f"Not finished: step {data['step']:,} of {data['config']['train']['steps']:,}; go on with: ritornello resume {path}"]
        )
    try:
        return "\n".join([*lines, "", table(data["results"]["rows"]), _cost(data["results"]["cost"]), f"page: {path / 'report.html'}"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"{path / 'results.json'}: damaged ({type(error).__name__}: {error}); restore it") from error


def _cost(cost: dict[str, Any]) -> str:
    return (
        f"{cost['parameters']:,} parameters, {cost['train_tokens_per_second']:,.0f} tokens/s in training, "
        f"{cost['generate_tokens_per_second']:,.0f} in writing, {duration(cost['seconds']['total'])} in all; state of a sequence at a "
        f"million tokens: {nbytes(cost['state_bytes']['1000000'])} (a transformer's: {nbytes(cost['kv_bytes']['1000000'])})"
    )


def table(rows: list[dict[str, Any]]) -> str:
    """Rows of a report as a table; of a suite with subtasks only the means over them, the page has the rest."""
    shown = Table(box=None, pad_edge=False)
    for name in ("suite", "task", "metric", "by"):
        shown.add_column(name)
    for name in ("value", "n", "chance"):
        shown.add_column(name, justify="right")
    for row in rows:
        if not row["task"].startswith("all"):
            continue
        value = row["reason"] if row["value"] is None else score(row["metric"], row["value"], row["stderr"])
        chance = "" if row["chance"] is None else score(row["metric"], row["chance"])
        shown.add_row(*(escape(str(row[name])) for name in ("suite", "task", "metric", "by")), escape(value), f"{row['n']:,}", chance)
    return render(shown)


def scores(report: Report, out: Path) -> str:
    """An evaluation as a table: of each suite the means over its tasks, the main figure first and published ones beside it; below, what
    has no value, and why."""
    systems = [each for each in PUBLISHED if each.source.endswith("table 2")]
    shown = Table(box=None, pad_edge=False)
    for name in ("suite", "mean over", "metric"):
        shown.add_column(name)
    beside = [system for system in systems if any(row.suite in system.scores for row in report.rows)]
    for name in ("value (95 %)", "n", "chance", *(system.system for system in beside)):
        shown.add_column(escape(name), justify="right")
    last = None
    for row in report.rows:
        if not row.task.startswith("all"):
            continue
        value = "no value" if row.value is None else score(row.metric, row.value, row.stderr)
        chance = "" if row.chance is None else score(row.metric, row.chance)
        over = {"all": "tasks"}.get(row.task, row.task.removeprefix("all "))
        theirs = [f"{100 * system.scores[row.suite]:.1f}" if row.suite != last and row.suite in system.scores else "" for system in beside]
        shown.add_row(
            escape("" if row.suite == last else row.suite), escape(over), escape(row.metric), value, f"{row.n:,}", chance, *theirs
        )
        last = row.suite
    gaps = [f"no value: {row.suite}, {row.task}: {row.reason}" for row in report.rows if row.value is None]
    told = [f"To the right: arXiv:2412.15978, table 2, trained on 10M words of BabyLM. {CAVEAT}"] * bool(beside)
    return "\n".join([render(shown), *told, *dict.fromkeys(gaps), f"kept in {out}"])


def shelf_table(suites: list[dict[str, Any]]) -> str:
    """The suites there are, and whether the data folder has their files."""
    shown = Table(box=None, pad_edge=False)
    for name in ("suite", "files", "there"):
        shown.add_column(name)
    for each in suites:
        there = {True: "yes", False: "no", None: "?"}[each["there"]]
        shown.add_row(each["suite"], escape(each["path"]), there)
    how = "score a model with: ritornello evaluate MODEL --suite NAME,NAME --data FOLDER"
    return "\n".join([render(shown), how])


def runs_below(path: Path) -> list[dict[str, Any]]:
    """Every run folder in a folder, oldest first."""
    if not path.is_dir():
        raise InputError(f"{path}: no such folder; runs are kept in runs/ below where they were started")
    found = []
    for config in sorted(path.glob("*/config.json"), key=lambda file: file.stat().st_mtime):
        try:
            found.append(summary_data(config.parent))
        except InputError as error:
            found.append({"path": str(config.parent), "problem": str(error)})
    return found


def listing(runs: list[dict[str, Any]], path: Path) -> str:
    """The runs as a table."""
    if not runs:
        return f"no runs in {path}; make one with: ritornello run TEXT"
    shown = Table(box=None, pad_edge=False)
    for name in ("run", "text", "model", "steps", "bits a byte"):
        shown.add_column(name, justify="right" if name in ("steps", "bits a byte") else "left")
    for run in runs:
        if "problem" in run:
            shown.add_row(escape(run["path"]), escape(run["problem"]), "", "", "")
            continue
        config, results = run["config"], run["results"]
        model = f"{describe(config['model']['layers'])}, {config['model']['dim']} wide"
        bits = f"{results['headline']['bits_per_byte']:.3f}" if results else "unfinished" if config["imported"] is None else "imported"
        steps = f"{run['step']:,} of {config['train']['steps']:,}"
        shown.add_row(escape(run["path"]), escape(config["corpus"]["name"]), model, steps, bits)
    return render(shown)


def render(shown: Table) -> str:
    """A table as plain lines, as wide as it needs."""
    console = Console(width=200, no_color=True, highlight=False)
    with console.capture() as capture:
        console.print(shown)
    return "\n".join(line.rstrip() for line in capture.get().splitlines())
