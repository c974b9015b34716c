"""What each command of `ritornello` does, given its parsed options: one call, and what is printed; returns the exit code.

Nothing heavy is imported before a command needs it.
"""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ritornello.errors import InputError

OWN_FILES = {  # of `ritornello evaluate`
    "pairs": "minimal pairs: a JSON-lines file, or a folder of them",
    "text": "text to predict: bits per byte and perplexity",
    "statements": 'JSON lines {"statements": [...], "answer": 0}: is the right one the most probable?',
    "last_words": 'texts, a line each or JSON lines {"text": "..."}: is the last word foreseen?',
}


def train_run(options: dict[str, Any], began: float) -> int:
    from ritornello.experiments.console import Console
    from ritornello.experiments.run import dry_run, request, run_request
    from ritornello.experiments.training import Stopped

    quiet, as_json, dry = (options.pop(name) for name in ("quiet", "json", "dry_run"))
    overrides = tuple(options.pop("overrides"))
    if options["corpus"] is not None and "=" in options["corpus"] and not Path(options["corpus"]).exists():
        overrides, options["corpus"] = (options["corpus"], *overrides), None
    asked = request(options.pop("recipe"), overrides, **options)
    console = Console(quiet)
    if dry:
        config = dry_run(asked, console, began)
        print(json.dumps(config, indent=2, ensure_ascii=False) if as_json else config["plan"])
        return 0
    try:
        path = run_request(asked, console, began=began)
    except Stopped as stop:
        print(f"ritornello: {stop}", file=sys.stderr)
        return 128 + stop.signum
    _print_summary(path, as_json)
    return 0


def resume_run(options: dict[str, Any], began: float) -> int:
    from ritornello.experiments.console import Console
    from ritornello.experiments.run import resume
    from ritornello.experiments.training import Stopped

    try:
        path = resume(options["run"], Console(options["quiet"]), options["device"])
    except Stopped as stop:
        print(f"ritornello: {stop}", file=sys.stderr)
        return 128 + stop.signum
    _print_summary(path, options["json"])
    return 0


def distill_student(options: dict[str, Any], began: float) -> int:
    from ritornello.experiments.console import Console
    from ritornello.experiments.distill import asked_of, distill
    from ritornello.experiments.gains import table

    quiet, as_json, out, how = options.pop("quiet"), options.pop("json"), options["out"], _at_a_time(options.pop("jobs"))
    asked = asked_of(options)
    return _study(lambda: distill(asked, Console(quiet), how), table, Path(out), as_json)


def generate_text(options: dict[str, Any], began: float) -> int:
    from ritornello.folder import load
    from ritornello.serve.generate import stream
    from ritornello.serve.native import explain

    run, as_json, threads = (options.pop(name) for name in ("run", "json", "threads"))
    options.pop("quiet")
    _set_threads(threads or 1)
    loaded = load(run)
    pieces, text = stream(loaded, **options), options["prompt"]
    if not as_json:
        print(text, end="", flush=True)
    for piece in pieces:
        text += piece
        if not as_json:
            print(piece, end="", flush=True)
    print(json.dumps(options | {"text": text, "decoder": explain(loaded.model)}, ensure_ascii=False) if as_json else "")
    return 0


def evaluate_model(options: dict[str, Any], began: float) -> int:
    from ritornello.config import to_dict
    from ritornello.experiments.console import Console
    from ritornello.experiments.subjects import default_out
    from ritornello.experiments.suites import evaluate, shelf
    from ritornello.experiments.summary import scores, shelf_table

    model, quiet, as_json, threads = (options.pop(name) for name in ("model", "quiet", "json", "threads"))
    suites = [name for names in options.pop("suite") for name in names.split(",") if name]
    options["tasks"] = [name for name in options["tasks"].split(",") if name]
    options["seeds"] = _numbers("--seeds", options["seeds"])
    if not suites and not any(options[name] for name in OWN_FILES):
        found = shelf(options["data"])
        print(json.dumps(found, indent=2) if as_json else shelf_table(found))
        return 0
    if model is None:
        raise InputError("which model? give a run folder, or a Hugging Face model: ritornello evaluate MODEL --suite NAMES")
    _set_threads(threads)
    out = options.pop("out") or default_out(model)
    try:
        report = evaluate(model, suites, out=out, console=Console(quiet), **options)
    except KeyboardInterrupt:
        return _stopped(out)
    print(json.dumps(to_dict(report), indent=2, ensure_ascii=False) if as_json else scores(report, out))
    return 0 if any(row.value is not None for row in report.rows) else 2


def score_checkpoints(options: dict[str, Any], began: float) -> int:
    from ritornello.experiments.console import Console
    from ritornello.experiments.dynamics import dynamics

    quiet, as_json, threads = (options.pop(name) for name in ("quiet", "json", "threads"))
    options["suites"] = [name for names in options.pop("suite") for name in names.split(",") if name]
    _set_threads(threads)
    try:
        table = dynamics(options.pop("runs"), console=Console(quiet), **options)
    except KeyboardInterrupt:
        return _stopped(options["out"])
    print(json.dumps(table, indent=2, ensure_ascii=False) if as_json else options["out"] / "report.html")
    return 0


def compare_systems(options: dict[str, Any], began: float) -> int:
    from ritornello.experiments.compare import asked_of, compare, table
    from ritornello.experiments.console import Console

    quiet, as_json, jobs = (options.pop(name) for name in ("quiet", "json", "jobs"))
    how = _at_a_time(jobs)
    asked, out, data = asked_of(options)
    return _study(lambda: compare(asked, out, Console(quiet), how, data), table, out, as_json)


def sweep_settings(options: dict[str, Any], began: float) -> int:
    from ritornello.experiments.console import Console
    from ritornello.experiments.sweep import asked_of, sweep, table

    quiet, as_json, out, how = options.pop("quiet"), options.pop("json"), options.pop("out"), _at_a_time(options.pop("jobs"))
    trials, seed = options.pop("trials"), options.pop("seed")
    base, space = asked_of(options)
    return _study(lambda: sweep(base, space, trials, out, Console(quiet), how, seed), table, out, as_json)


def build_corpus(options: dict[str, Any], began: float) -> int:
    from ritornello.experiments.console import Console
    from ritornello.experiments.corpora import build, described, steps_table, table

    quiet, as_json, plan = (options.pop(name) for name in ("quiet", "json", "plan"))
    if plan is None:
        print(json.dumps(described(), indent=2) if as_json else steps_table())
        return 0
    try:
        manifest = build(plan, console=Console(quiet), **options)
    except KeyboardInterrupt:
        return _unwritten()
    print(json.dumps(manifest, indent=2, ensure_ascii=False) if as_json else table(manifest))
    return 0


def inspect_corpus(options: dict[str, Any], began: float) -> int:
    from ritornello.experiments.console import Console
    from ritornello.experiments.inspection import inspect, table

    quiet, as_json = (options.pop(name) for name in ("quiet", "json"))
    suites = tuple(name for name in (options.pop("overlap") or "").split(",") if name)
    found = inspect(options.pop("corpus"), suites=suites, console=Console(quiet), **options)
    print(json.dumps(found, indent=2, ensure_ascii=False) if as_json else table(found))
    return 0


def fetch_corpus(options: dict[str, Any], began: float) -> int:
    from ritornello.experiments.console import Console
    from ritornello.experiments.corpora import fetch, table

    quiet, as_json = (options.pop(name) for name in ("quiet", "json"))
    try:
        manifest = fetch(options.pop("name"), console=Console(quiet), **options)
    except KeyboardInterrupt:
        return _unwritten()
    print(json.dumps(manifest, indent=2, ensure_ascii=False) if as_json else table(manifest))
    return 0


def import_model(options: dict[str, Any], began: float) -> int:
    from ritornello.hf.convert import import_folder

    _print_summary(import_folder(options["folder"], options["out"], options["tokenizer"]), options["json"])
    return 0


def export_model(options: dict[str, Any], began: float) -> int:
    from ritornello.hf.convert import export_run
    from ritornello.hf.export import export_model, push

    if options["push"] is not None and options["to"] != "hf":
        raise InputError(f"--push goes with --to hf, whose folder has a card; found --to {options['to']}")
    if options["to"] == "hf":
        path = export_model(options["run"], options["out"], options["push"])
    else:
        path = export_run(options["run"], options["out"])
    found = {"path": str(path)} | ({} if options["push"] is None else {"address": push(path, options["push"])})
    print(json.dumps(found, ensure_ascii=False) if options["json"] else "\n".join(found.values()))
    return 0


def show_run(options: dict[str, Any], began: float) -> int:
    _print_summary(options["run"], options["json"])
    return 0


def list_runs(options: dict[str, Any], began: float) -> int:
    from ritornello.experiments.summary import listing, runs_below

    found = runs_below(options["folder"])
    print(json.dumps(found, indent=2, ensure_ascii=False) if options["json"] else listing(found, options["folder"]))
    return 0


def list_mixers(options: dict[str, Any], began: float) -> int:
    from ritornello.config import to_dict
    from ritornello.experiments.catalogue import catalogue, listing

    entries = catalogue(options["dim"])
    print(json.dumps(to_dict(entries), indent=2, ensure_ascii=False) if options["json"] else listing(entries, options["dim"]))
    return 0


def examine_machine(options: dict[str, Any], began: float) -> int:
    from ritornello.experiments.doctor import examine, page

    found = examine()
    print(json.dumps(found, indent=2, ensure_ascii=False) if options["json"] else page(found))
    return 0


def diagnose_mixers(options: dict[str, Any], began: float) -> int:
    from ritornello.diagnostics.diagnose import diagnose, table, trials
    from ritornello.diagnostics.trial import split
    from ritornello.experiments.console import Console
    from ritornello.experiments.summary import render
    from ritornello.provenance import cores

    quiet, as_json, jobs, out = (options.pop(name) for name in ("quiet", "json", "jobs", "out"))
    asked = trials(split(options.pop("mixers")), split(options.pop("tasks")), **options)
    _set_threads(1)
    try:
        rows = diagnose(asked, out, Console(quiet), cores() if jobs is None else jobs)
    except KeyboardInterrupt:
        return _stopped(out)
    print(json.dumps(rows, indent=2, ensure_ascii=False) if as_json else render(table(rows, asked[0].length)))
    return 0


def _print_summary(path: Path, as_json: bool) -> None:
    from ritornello.experiments.summary import summary, summary_data

    print(json.dumps(summary_data(path), indent=2, ensure_ascii=False) if as_json else summary(path))


def _numbers(option: str, words: str) -> list[int]:
    """ "1,2,3" as numbers."""
    found = [word.strip() for word in words.split(",") if word.strip()]
    if wrong := [word for word in found if not word.isdecimal()]:
        raise InputError(f"{option}: {wrong[0]!r} is no whole number; give them with commas between, such as 1,2,3")
    return list(dict.fromkeys(map(int, found)))


def _at_a_time(jobs: str) -> Any:
    """ "2" as a number, "ray" as it is."""
    if jobs != "ray" and not jobs.isdecimal():
        raise InputError(f"--jobs: {jobs!r} is neither a number nor ray")
    return jobs if jobs == "ray" else int(jobs)


def _study(work: Callable[[], Any], table: Callable[[Any, Path], str], out: Path, as_json: bool) -> int:
    """Do many runs kept in `out`, and print what came of them."""
    from ritornello.experiments.training import Stopped

    try:
        found = work()
    except KeyboardInterrupt:
        return _stopped(out)
    except Stopped as stop:
        _stopped(out)
        return 128 + stop.signum
    print(json.dumps(found, indent=2, ensure_ascii=False) if as_json else table(found, out))
    return 0


def _stopped(out: Path | str) -> int:
    print(f"\nritornello: stopped; what is finished is kept in {out}, and the same command goes on from there", file=sys.stderr)
    return 130


def _unwritten() -> int:
    print("\nritornello: stopped; nothing was written", file=sys.stderr)
    return 130


def _set_threads(threads: int | None) -> None:
    if threads is not None:
        import torch

        if threads < 1:
            raise InputError(f"--threads: {threads} is less than 1")
        torch.set_num_threads(threads)
