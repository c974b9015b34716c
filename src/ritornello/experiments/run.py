"""The whole way: read text, train a tokenizer, train a model, evaluate, write a folder with a page.

path = run("text.txt", minutes=3)
resume(path)                                        after a stop of any kind
"""

import contextlib
import re
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from ritornello import folder
from ritornello.analysis.page import render
from ritornello.config import from_dict, override, read_file, to_dict
from ritornello.errors import InputError
from ritornello.evals.pairs import count_tokens
from ritornello.experiments.console import Console
from ritornello.experiments.evaluation import report, suites
from ritornello.experiments.machine import pick_device
from ritornello.experiments.material import Material, gather, gather_again
from ritornello.experiments.plan import in_steps, plan
from ritornello.experiments.settings import EvaluateConfig, Request, RunConfig
from ritornello.experiments.training import announce_words, train
from ritornello.provenance import collect

DEFAULT_MINUTES = 3.0


def request(recipe: Path | None = None, overrides: tuple[str, ...] = (), **given: Any) -> Request:
    """A Request from a TOML recipe, settings that are not None, and `a.b=c` overrides, later ones over earlier ones."""
    table = read_file(recipe) if recipe is not None else {}
    table |= {name: value for name, value in given.items() if value is not None}
    return from_dict(Request, override(table, list(overrides)))


def run(
    corpus: str | Path | None = None, *, recipe: Path | None = None, overrides: tuple[str, ...] = (), quiet: bool = False, **settings: Any
) -> Path:
    """From a text to a report: a whole run, and the path of its folder.

    `settings` are the options of `ritornello run` by name (minutes, steps, mixer, dim, ...): the fields of `Request`.
    Raises InputError for anything that cannot be used, `Stopped` if a signal asked to stop (the run is saved).
    """
    return run_request(request(recipe, overrides, corpus=str(corpus) if corpus is not None else None, **settings), Console(quiet))


def run_request(asked: Request, console: Console, *, began: float | None = None) -> Path:
    """Do what was asked. `began` is the `time.monotonic()` from which the user's minutes count."""
    began = time.monotonic() if began is None else began
    path = _new_folder(asked)
    try:
        with folder.locked(path):
            config, material, seconds = prepare(asked, console, began)
            begin(path, config, material)
            console.say(config.plan)
            return _go(path, config, material, console, seconds, began)
    finally:
        if not (path / "config.json").exists():
            _remove_empty(path)


def begin(path: Path, config: RunConfig, material: Material) -> None:
    """Settle a run in its folder, config.json last; `resume` does the rest."""
    path.mkdir(parents=True, exist_ok=True)
    material.tokenizer.save(path / "tokenizer.json")
    made_by = collect(material.corpus.sources, config.licence, config.train.threads)
    folder.write_json(path / "provenance.json", to_dict(made_by))
    folder.write_json(path / "config.json", to_dict(config))


def dry_run(asked: Request, console: Console, began: float) -> dict[str, Any]:
    """The config that a run would have, as plain values; nothing is written but the cache."""
    return to_dict(prepare(asked, console, began)[0])


def prepare(asked: Request, console: Console, began: float) -> tuple[RunConfig, Material, dict[str, float]]:
    """The resolved config, the material, and the seconds each stage took. Writes nothing but the cache."""
    minutes = asked.minutes or DEFAULT_MINUTES

    def left() -> float:
        return began + 60 * minutes - time.monotonic()

    material = gather(asked, console)
    asked = in_steps(asked, material)
    seconds = {"read": time.monotonic() - began}
    fixed: dict[str, Any] = {"pairs": asked.pairs, "protocol": asked.protocol}
    if asked.steps is None:  # evaluation may take only so much of the time
        fixed["held_out_tokens"] = min(EvaluateConfig.held_out_tokens, round(20_000 * minutes))
        fixed["validation_tokens"] = min(EvaluateConfig.validation_tokens, round(10_000 * minutes))
        fixed["ngram_tokens"] = min(EvaluateConfig.ngram_tokens, round(1_000_000 * minutes))
    checks = from_dict(EvaluateConfig, fixed | asked.evaluate, "evaluate")
    pair_tokens = sum(
        count_tokens(material.tokenizer, subtasks, checks.protocol) for subtasks in suites(checks, material, console).values()
    )
    before = time.monotonic()
    if asked.steps is None:
        console.progress("measuring this machine's speed")
    config = plan(asked, material, checks, pair_tokens, left)
    announce_words(config, material, console)
    return config, material, seconds | {"probe": time.monotonic() - before}


def resume(path: Path, console: Console | None = None, device: str | None = None) -> Path:
    """Go on with a run that was stopped, to the weights it would have had. InputError if there is nothing to go on with.

    `device`: where to go on, if not where it began; between processor and GPU the weights agree up to rounding only.
    """
    console, began = console or Console(quiet=True), time.monotonic()
    config = from_dict(RunConfig, folder.read_config(path))
    config = replace(config, train=replace(config.train, device=pick_device(device or config.train.device)))
    if config.imported is not None:
        raise InputError(f"{path}: imported, so there is nothing to resume; go on learning from it with: ritornello run TEXT --from {path}")
    with folder.locked(path):
        if (path / "report.html").exists():
            raise InputError(f"{path}: this run is finished; look at {path / 'report.html'}, or begin another with --from {path}")
        material = gather_again(path, config, console)
        return _go(path, config, material, console, {"read": time.monotonic() - began}, began)


def _go(path: Path, config: RunConfig, material: Material, console: Console, seconds: dict[str, float], began: float) -> Path:
    """Train from wherever the folder stands, evaluate, write the page."""
    model, trained, kept = train(path, config, material, console)
    folder.write_tensors(path / "model.safetensors", folder.weights(model), {"step": config.train.steps})
    before = time.monotonic()
    results = report(model, config, material, suites(config.evaluate, material, Console(quiet=True)), console)
    seconds |= {"train": trained, "evaluate": time.monotonic() - before, "total": time.monotonic() - began}
    tokens = config.train.steps * config.train.batch * config.train.length
    results["cost"] |= {"train_tokens_per_second": round(tokens / max(trained, 1e-9), 1), "seconds": seconds}
    results["weights"] = kept
    results["words_seen"] = round(tokens * material.words_per_target)
    folder.write_json(path / "results.json", {"format": folder.FORMAT} | results)
    folder.write_bytes(path / "report.html", render(path).encode())
    console.say(f"done in {(time.monotonic() - began) / 60:.1f} minutes: {path / 'report.html'}")
    return path


def _new_folder(asked: Request) -> Path:
    """A folder of the run's own: the one asked for, which must not hold anything yet, or the next free one under runs/."""
    if asked.out is not None:
        path = Path(asked.out)
        if path.exists() and (not path.is_dir() or any(each.name != ".lock" for each in path.iterdir())):
            hint = f"go on with: ritornello resume {path}; or choose" if (path / "config.json").exists() else "choose"
            raise InputError(f"{path} exists; {hint} another --out")
        path.mkdir(parents=True, exist_ok=True)
        return path
    stem = Path(asked.corpus or "python-docs").name.split(".")[0].strip("*? ") or "text"
    base = Path("runs") / f"{stem}-{re.sub(r'[^a-z0-9]+', '-', asked.mixer or 'hgrn2').strip('-')}"
    for number in range(1, 10_000):
        path = base.with_name(f"{base.name}-{number}")
        try:
            path.mkdir(parents=True)
        except FileExistsError:
            continue
        return path
    raise InputError(f"{base}-1 to -9999 exist; choose an --out")


def _remove_empty(path: Path) -> None:
    """Take back a folder in which nothing was settled."""
    for name in (".lock", "tokenizer.json", "provenance.json"):
        (path / name).unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        path.rmdir()
