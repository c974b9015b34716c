"""A search for settings: Optuna proposes, runs answer with held-out bits per byte.

OUT/sweep.json              what is searched, and how
OUT/journal.log             Optuna's: every proposal and answer, each written before the next
OUT/runs/0007/              a run folder for each trial, with failed.json where numbers ran out
OUT/results.jsonl           a line for each finished trial
OUT/results.json            the trials, best first; OUT/report.html shows them

A setting is a range, `train.lr=1e-4..1e-2:log` or `dim=64..256:32` (in steps), or a choice, `mixer=hgrn2|lstm`. A proposal is a function of
the seed and of the answers before it (the tree-structured Parzen estimator of Bergstra et al. 2011), so a search that was killed goes on as
if it had not been: what it was at is finished first. Settings that cannot be, such as a width that heads do not divide, fail and are kept.
"""

import json
import shutil
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from rich.markup import escape
from rich.table import Table

from ritornello import folder, provenance
from ritornello.analysis.searching import render
from ritornello.config import dotted, from_dict, override, read_file, to_dict
from ritornello.data.corpus import read_corpus
from ritornello.errors import InputError
from ritornello.experiments.console import Console, Within
from ritornello.experiments.record import record
from ritornello.experiments.run import resume, run_request
from ritornello.experiments.settings import Request
from ritornello.experiments.summary import render as plain
from ritornello.experiments.training import Stopped
from ritornello.jobs import How, at_a_time, spread
from ritornello.train.loop import Diverged

Value = float | int | str


@dataclass(frozen=True)
class Range:
    """Numbers from low to high; whole ones if both ends are."""

    low: float
    high: float
    log: bool = False
    step: int | None = None

    @property
    def whole(self) -> bool:
        return isinstance(self.low, int) and isinstance(self.high, int)

    def propose(self, trial: Any, name: str) -> Value:
        if self.step is not None:
            found: Value = trial.suggest_int(name, self.low, self.high, step=self.step)
        else:
            found = (trial.suggest_int if self.whole else trial.suggest_float)(name, self.low, self.high, log=self.log)
        return found


@dataclass(frozen=True)
class Choice:
    values: tuple[Value, ...]

    def propose(self, trial: Any, name: str) -> Value:
        found: Value = trial.suggest_categorical(name, list(self.values))
        return found


class Job(NamedTuple):
    path: Path
    settings: str  # of a Request, as JSON


def parse(name: str, text: str) -> Range | Choice:
    """ "64..256", "64..256:32", "1e-4..1e-2:log" or "hgrn2|lstm". InputError for anything else."""
    if "|" in text:
        return Choice(tuple(_value(each) for each in text.split("|")))
    ends, colon, scale = text.partition(":")
    low, dots, high = ends.partition("..")
    numbers, step = [_value(low), _value(high)], _value(scale)
    stepped = isinstance(step, int) and step > 0 and all(isinstance(each, int) for each in numbers)
    if not dots or (colon and scale != "log" and not stepped) or any(isinstance(each, str) for each in numbers):
        raise InputError(f"{name}: {text!r} is no range; write 64..256, 64..256:32, 1e-4..1e-2:log or hgrn2|lstm")
    found = Range(numbers[0], numbers[1], scale == "log", step if stepped else None)  # type: ignore[arg-type]
    if not found.low < found.high or (found.log and found.low <= 0):
        raise InputError(f"{name}: {text!r} has its ends in no order{' above 0' * found.log}; the lower comes first")
    return found


def space_of(file: Path | None, words: Sequence[str]) -> dict[str, str]:
    """Ranges by setting, from a TOML file of dotted or nested keys and from KEY=RANGE words, later ones over earlier ones."""
    table = dotted(read_file(file)) if file is not None else {}
    table |= {name: text for name, _, text in (word.partition("=") for word in words)}
    for name, text in table.items():
        if not isinstance(text, str):
            raise InputError(f'{file}: {name}: {text!r} is no range; write "64..256", "1e-4..1e-2:log" or "hgrn2|lstm"')
        parse(name, text)
    if not table:
        raise InputError("nothing to search: give settings with their ranges, such as train.lr=1e-4..1e-2:log")
    return table


def asked_of(options: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """The settings that stay and the ranges, as the options of `ritornello sweep` name them."""
    words = [*options["words"], *options["overrides"]]
    if bad := [word for word in words if "=" not in word]:
        raise InputError(f"{bad[0]!r} is neither KEY=VALUE nor KEY=LOW..HIGH")
    ranged = [word for word in words if ".." in word or "|" in word]
    base = override(read_file(options["recipe"]) if options["recipe"] else {}, [word for word in words if word not in ranged])
    given = {name: options[name] for name in ("corpus", "steps", "minutes", "threads") if options[name] is not None}
    return base | given, space_of(options["space"], ranged)


def sweep(
    base: Mapping[str, Any], space: Mapping[str, str], trials: int, out: Path, console: Console, how: How = 1, seed: int = 0
) -> dict[str, Any]:
    """Run trials until there are so many, and return what came out. `base`: the settings that stay, as keys of `Request`.

    Raises InputError, also where a folder holds another search, `Stopped` or KeyboardInterrupt: the same call goes on.
    """
    count, ranges = at_a_time(how), {name: parse(name, text) for name, text in space.items()}
    if trials < 1:
        raise InputError(f"--trials: {trials} is less than 1")
    request = from_dict(Request, dict(base))
    read_corpus(request.corpus, documents=request.documents, encoding=request.encoding, column=request.column)  # or no trial can be
    out.mkdir(parents=True, exist_ok=True)
    with folder.locked(out):
        _settle(out, {"space": dict(space), "base": dict(base), "seed": seed})
        search = _open(out)
        while (left := trials - sum(trial.state.is_finished() for trial in search.trials)) > 0:
            asked = [trial for trial in search.trials if not trial.state.is_finished()]
            if not asked:
                for _ in range(min(count, left)):
                    _propose(search, ranges, seed)
                continue
            jobs = {Job(_path(out, trial.number), _settings(base, trial.params)): trial for trial in asked}
            _answer(search, jobs, console, how)
            _publish(search, out)
        return _publish(search, out)


def _settle(out: Path, asked: dict[str, Any]) -> None:
    file = out / "sweep.json"
    if file.exists() and read_file(file) != json.loads(json.dumps(asked)):
        raise InputError(f"{out}: holds a search of other settings; go on with those, or choose another --out")
    folder.write_json(file, asked)


def _open(out: Path) -> Any:
    """Optuna's study, whose journal lies in the folder."""
    try:
        import optuna
        from optuna.storages.journal import JournalFileBackend
    except ImportError as error:
        raise InputError("sweep: Optuna is not installed; pip install 'ritornello[sweep]'") from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    storage = optuna.storages.JournalStorage(JournalFileBackend(str(out / "journal.log")))
    return optuna.create_study(storage=storage, study_name="sweep", direction="minimize", load_if_exists=True)


def _propose(search: Any, ranges: Mapping[str, Range | Choice], seed: int) -> None:
    import optuna

    search.sampler = optuna.samplers.TPESampler(seed=(seed << 20) + len(search.trials))
    trial = search.ask()
    for name, each in ranges.items():
        each.propose(trial, name)


def _settings(base: Mapping[str, Any], params: Mapping[str, Any]) -> str:
    table = override(dict(base), [f"{name}={json.dumps(value)}" for name, value in params.items()])
    return json.dumps(table)


def _answer(search: Any, jobs: Mapping[Job, Any], console: Console, how: How) -> None:
    import optuna

    function = partial(_here, console=console) if how == 1 else _elsewhere
    with closing(spread(function, list(jobs), how)) as results:
        for job, (bits, reason) in results:
            trial = jobs[job]
            state = optuna.trial.TrialState.FAIL if bits is None else optuna.trial.TrialState.COMPLETE
            search.tell(trial.number, bits, state=state)
            told = ", ".join(f"{name} {_short(value)}" for name, value in trial.params.items())
            console.say(f"trial {trial.number}: {told}: " + (f"failed: {reason}" if bits is None else f"{bits:.4f} bits per byte"))


def attempt(job: Job, console: Console) -> tuple[float | None, str | None]:
    """Held-out bits per byte of the trial's run, which begins, goes on, or has been finished; or None and why it failed."""
    failed = job.path / "failed.json"
    try:
        if not (job.path / "config.json").exists() and not failed.exists():
            shutil.rmtree(job.path, ignore_errors=True)
            run_request(from_dict(Request, json.loads(job.settings) | {"out": str(job.path)}), console)
        elif not (job.path / "report.html").exists() and not failed.exists():
            resume(job.path, console)
    except InputError as error:
        settled = (job.path / "config.json").exists()
        if settled and not isinstance(error.__cause__, Diverged):
            raise
        job.path.mkdir(parents=True, exist_ok=True)
        folder.write_json(failed, {"reason": str(error.__cause__ if settled else error)})
    if failed.exists():
        return None, str(read_file(failed)["reason"])
    return float(read_file(job.path / "results.json")["headline"]["bits_per_byte"]), None


def _here(job: Job, console: Console) -> tuple[float | None, str | None]:
    return attempt(job, Within(console, f"trial {int(job.path.name)}"))


def _elsewhere(job: Job) -> tuple[float | None, str | None]:
    try:
        return attempt(job, Console(quiet=True))
    except Stopped as stop:
        raise KeyboardInterrupt from stop


def _publish(search: Any, out: Path) -> dict[str, Any]:
    """Write results.jsonl, results.json and the page of what is finished."""
    lines, trials = [], []
    for trial in search.trials:
        path = _path(out, trial.number)
        if trial.state.is_finished():
            failed = read_file(path / "failed.json")["reason"] if (path / "failed.json").exists() else None
            about: dict[str, Any] = dict.fromkeys(("parameters", "steps", "seconds"))
            if (path / "config.json").exists():
                lines.append(record(path, out.resolve().name, f"trial {trial.number}", failed=failed))
                about = {name: lines[-1][name] for name in about}
            trials.append({"trial": trial.number, "settings": trial.params, "bits_per_byte": trial.value, "failed": failed} | about)
    trials.sort(key=lambda each: (each["bits_per_byte"] is None, each["bits_per_byte"]))
    made_by = provenance.collect()
    results = {"asked": read_file(out / "sweep.json"), "trials": trials, "provenance": to_dict(made_by)}
    folder.write_bytes(out / "results.jsonl", "".join(json.dumps(each, ensure_ascii=False) + "\n" for each in lines).encode())
    folder.write_json(out / "results.json", results)
    folder.write_bytes(out / "report.html", render(out).encode())
    return results


def table(results: Mapping[str, Any], out: Path) -> str:
    """The trials, best first, and how to train with the best settings."""
    names = list(results["asked"]["space"])
    shown = Table(box=None, pad_edge=False)
    for name in ("trial", "bits per byte", *names, "parameters", "seconds"):
        shown.add_column(escape(name), justify="right")
    for each in results["trials"]:
        bits = "failed" if each["bits_per_byte"] is None else f"{each['bits_per_byte']:.4f}"
        settings = [escape(_short(each["settings"][name])) for name in names]
        cost = ["–" if each[name] is None else format(each[name], form) for name, form in (("parameters", ","), ("seconds", ".0f"))]
        shown.add_row(str(each["trial"]), bits, *settings, *cost)
    best = results["trials"][0]
    lines = [plain(shown)]
    if best["bits_per_byte"] is not None:
        words = " ".join(f"{name}={json.dumps(value)}" for name, value in best["settings"].items())
        lines.append(f"best: {words}; its run is {_path(out, best['trial'])}")
    return "\n".join([*lines, f"page: {out / 'report.html'}"])


def _path(out: Path, trial: int) -> Path:
    return out / "runs" / f"{trial:04d}"


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _value(text: str) -> Value:
    text = text.strip()
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
