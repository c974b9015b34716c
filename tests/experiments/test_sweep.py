"""A search for settings: what is a range, proposals that a kill does not change, failed trials kept."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from working import share_kernels

from ritornello import cli
from ritornello.analysis import searching
from ritornello.errors import InputError
from ritornello.experiments import sweep
from ritornello.experiments.console import Console
from ritornello.experiments.sweep import Choice, Range, parse

QUIET = Console(quiet=True)
SPACE = {"train.lr": "1e-3..1e-1:log", "dim": "16..32:4", "mixer": "mingru|minlstm"}
BASE = {"steps": 4, "batch": 4, "length": 32, "layers": 1, "threads": 1}
CHECKS = {"evaluate": {"validations": 1, "sample_tokens": 4, "ngram_tokens": 3000}}


@pytest.fixture
def text(tmp_path, monkeypatch) -> str:
    share_kernels(tmp_path / "cache")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    picks = torch.randint(26, (4000,), generator=torch.Generator().manual_seed(3)).tolist()
    (tmp_path / "text.txt").write_text("".join(chr(97 + pick) + " " * (pick < 5) for pick in picks), encoding="utf-8")
    return str(tmp_path / "text.txt")


@pytest.fixture
def made_up(monkeypatch) -> list[dict]:
    """The settings of the trials that are run; none is trained: the nearer the rate is to 0.01, the better, and above 0.05 it fails."""
    run = []

    def attempt(job, console):
        settings = json.loads(job.settings)
        rate = settings["train"]["lr"]
        run.append(settings)
        job.path.mkdir(parents=True)
        (job.path / "config.json").touch()
        if rate <= 0.05:
            return abs(rate - 0.01), None
        (job.path / "failed.json").write_text('{"reason": "a loss ran out of numbers"}')
        return None, "a loss ran out of numbers"

    monkeypatch.setattr(sweep, "attempt", attempt)
    monkeypatch.setattr(sweep, "read_corpus", lambda *_, **__: None)
    monkeypatch.setattr(sweep, "record", lambda path, *_, failed: {"parameters": 9, "steps": 4, "seconds": 1.0, "name": path.name})
    return run


def test_ranges():
    assert parse("dim", "64..256") == Range(64, 256)
    assert parse("dim", "64..256").whole
    assert parse("lr", "1e-4..1:log") == Range(1e-4, 1, True)
    assert not parse("lr", "1e-4..1").whole
    assert parse("dim", "64..256:32") == Range(64, 256, step=32)
    assert parse("mixer", "hgrn2|lstm|3") == Choice(("hgrn2", "lstm", 3))
    for text, message in (
        ("3", "is no range"),
        ("a..b", "is no range"),
        ("1..2:lin", "is no range"),
        ("1.5..2:3", "is no range"),
        ("2..1", "no order; the lower"),
        ("0..1:log", "no order above 0"),
    ):
        with pytest.raises(InputError, match=message):
            parse("lr", text)


def test_a_space_from_a_file_and_from_words(tmp_path):
    (tmp_path / "space.toml").write_text('dim = "8..16"\n[train]\nlr = "1e-3..1e-2"\n')
    assert sweep.space_of(tmp_path / "space.toml", ["dim=16..64"]) == {"dim": "16..64", "train.lr": "1e-3..1e-2"}
    (tmp_path / "space.toml").write_text("dim = 8\n")
    with pytest.raises(InputError, match="dim: 8 is no range"):
        sweep.space_of(tmp_path / "space.toml", [])
    with pytest.raises(InputError, match="nothing to search"):
        sweep.space_of(None, [])


def test_a_search_that_was_stopped_proposes_what_it_would_have(made_up, tmp_path):
    pytest.importorskip("optuna", reason="needs the extra sweep")
    whole = sweep.sweep(BASE, SPACE, 14, tmp_path / "whole", QUIET)
    proposed = list(made_up)
    made_up.clear()
    for trials in (3, 14):
        parts = sweep.sweep(BASE, SPACE, trials, tmp_path / "parts", QUIET)
    assert made_up == proposed
    assert parts["trials"] == whole["trials"]
    assert {settings["mixer"] for settings in proposed} == {"mingru", "minlstm"}
    assert {settings["dim"] for settings in proposed} <= {16, 20, 24, 28, 32}
    assert {settings["steps"] for settings in proposed} == {4}
    bits = [trial["bits_per_byte"] for trial in whole["trials"]]
    scored = [value for value in bits if value is not None]
    assert scored == sorted(scored)
    assert bits == scored + [None] * (14 - len(scored))
    assert 0 < len(scored) < 14
    other = sweep.sweep(BASE, SPACE, 1, tmp_path / "other", QUIET, seed=1)
    assert other["trials"][0]["settings"] != next(trial for trial in whole["trials"] if trial["trial"] == 0)["settings"]
    assert len(sweep.sweep(BASE, SPACE, 2, tmp_path / "whole", QUIET)["trials"]) == 14  # fewer than there are
    with pytest.raises(InputError, match="holds a search of other settings"):
        sweep.sweep(BASE | {"steps": 5}, SPACE, 20, tmp_path / "whole", QUIET)


def test_what_it_was_at_is_finished_first(made_up, tmp_path, monkeypatch):
    pytest.importorskip("optuna", reason="needs the extra sweep")
    answer = sweep.attempt

    def killed(job, console):
        if len(made_up) == 2:
            raise KeyboardInterrupt
        return answer(job, console)

    monkeypatch.setattr(sweep, "attempt", killed)
    with pytest.raises(KeyboardInterrupt):
        sweep.sweep(BASE, SPACE, 4, tmp_path / "killed", QUIET)
    monkeypatch.setattr(sweep, "attempt", answer)
    found = sweep.sweep(BASE, SPACE, 4, tmp_path / "killed", QUIET)
    settings = list(made_up)
    made_up.clear()
    assert sweep.sweep(BASE, SPACE, 4, tmp_path / "whole", QUIET)["trials"] == found["trials"]
    assert made_up == settings


def test_the_command_trains_and_shows(text, tmp_path, capsys):
    pytest.importorskip("optuna", reason="needs the extra sweep")
    sizes = [f"{name}={value}" for name, value in BASE.items() if name not in ("steps", "threads")]
    checks = [f"evaluate.{name}={value}" for name, value in CHECKS["evaluate"].items()]
    words = ["sweep", text, "train.lr=1e-3..1e-2:log", *sizes, *checks, "dim=16", "--steps", "4", "--threads", "1", "--trials", "2"]
    assert cli.main([*words, "--out", str(tmp_path / "out"), "--quiet"]) == 0
    printed = capsys.readouterr().out
    assert "best: train.lr=0.00" in printed
    lines = [json.loads(line) for line in (tmp_path / "out" / "results.jsonl").read_text().splitlines()]
    assert [line["system"] for line in lines] == ["trial 0", "trial 1"]
    best = min(line["scores"]["bits_per_byte"] for line in lines)
    assert json.loads((tmp_path / "out" / "results.json").read_text())["trials"][0]["bits_per_byte"] == best
    assert "Of 2 trials the best is train.lr 0.00" in (tmp_path / "out" / "report.html").read_text()


def test_a_trial_goes_on_where_its_run_was(text, tmp_path, monkeypatch):
    settings = BASE | CHECKS | {"corpus": text, "mixer": "mingru", "dim": 16}
    job = sweep.Job(tmp_path / "runs" / "0000", json.dumps(settings))
    job.path.mkdir(parents=True)
    (job.path / "tokenizer.json").write_text("{}")  # what a kill left before the run was settled
    bits, reason = sweep.attempt(job, QUIET)
    assert 0 < bits < 9
    assert reason is None
    (job.path / "report.html").unlink()
    monkeypatch.setattr(sweep, "run_request", None)
    assert sweep.attempt(job, QUIET) == (bits, None)
    shutil.rmtree(job.path)
    monkeypatch.undo()
    bits, reason = sweep.attempt(job._replace(settings=json.dumps(settings | {"lr": 1e30})), QUIET)
    assert bits is None
    assert "is not a finite number" in reason
    assert sweep.attempt(job, QUIET) == (None, reason)


def test_settings_that_cannot_be_fail_and_are_kept(text, tmp_path):
    job = sweep.Job(
        tmp_path / "runs" / "0000",
        json.dumps(BASE | {"corpus": text, "mixer": "hgrn2", "dim": 30, "model": {"mixers": {"hgrn2": {"head_dim": 16}}}}),
    )
    assert sweep.attempt(job, QUIET)[0] is None
    assert "30 does not divide" in sweep.attempt(job, QUIET)[1]
    search = SimpleNamespace(
        trials=[SimpleNamespace(number=0, state=SimpleNamespace(is_finished=lambda: True), params={"dim": 30}, value=None)]
    )
    (tmp_path / "sweep.json").write_text(json.dumps({"space": {"dim": "30..31"}, "base": {}, "seed": 0}))
    (trial,) = sweep._publish(search, tmp_path)["trials"]
    assert "30 does not divide" in trial["failed"]
    assert "failed" in sweep.table({"asked": {"space": {"dim": ""}}, "trials": [trial]}, tmp_path)


def test_a_page_of_trials_without_a_score(tmp_path):
    trial = {"trial": 0, "settings": {"mixer": "<b>"}, "bits_per_byte": None, "failed": "<i>", "parameters": 9, "steps": 4, "seconds": 1.0}
    asked = {"space": {"mixer": "<b>|c"}, "base": {}, "seed": 0}
    results = {"asked": asked, "trials": [trial], "provenance": {"command": "x"}}
    (tmp_path / "results.json").write_text(json.dumps(results))
    page = searching.render(tmp_path)
    assert "1 trial, none of which has a score." in page
    assert "<b>" not in page
    assert "<i>" not in page
    results["trials"].append(trial | {"bits_per_byte": 2.0, "failed": None})
    (tmp_path / "results.json").write_text(json.dumps(results))
    assert searching.render(tmp_path).count('class="held"') == 1
    with pytest.raises(InputError, match="give the folder that `ritornello sweep` wrote"):
        searching.render(tmp_path / "none")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["lr=1..0"], "lr: '1..0' has its ends in no order"),
        (["dim=16"], "nothing to search"),
        (["dim"], "'dim' is neither KEY=VALUE nor KEY=LOW..HIGH"),
        (["dim=16..32", "--trials", "0"], "--trials: 0 is less than 1"),
        (["dim=16..32", "dims=3"], "unknown field 'dims'. Did you mean 'dim'?"),
    ],
)
def test_mistakes_are_answered_in_one_line(words, message, text, tmp_path, capsys):
    assert cli.main(["sweep", text, *words, "--out", str(tmp_path / "out"), "--quiet"]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_corpus_that_cannot_be_read_is_no_failed_trial(text, tmp_path, capsys):
    assert cli.main(["sweep", "nowhere.txt", "dim=16..32", "--out", str(tmp_path / "out"), "--quiet"]) == 2
    assert "nowhere.txt" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_optuna_is_asked_for_by_name(text, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "optuna", None)
    assert cli.main(["sweep", text, "dim=16..32", "--out", str(tmp_path / "out"), "--quiet"]) == 2
    assert "pip install 'ritornello[sweep]'" in capsys.readouterr().err
    assert not Path(tmp_path / "out" / "runs").exists()
