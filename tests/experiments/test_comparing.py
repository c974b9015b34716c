"""A comparison on a small text: equal budgets are equal, what is finished is not run again, what was killed comes to the same."""

import json
import shutil
import signal
import subprocess
import sys
import time
from itertools import count
from pathlib import Path

import pytest
import torch
from working import share_kernels

from ritornello import cli, folder
from ritornello.analysis.comparison import _seeds
from ritornello.config import read_file
from ritornello.errors import InputError
from ritornello.experiments import cells, compare
from ritornello.experiments.console import Console
from ritornello.experiments.flops import training_flop
from ritornello.experiments.study import study
from ritornello.model import parameters

RUN = {
    "batch": 4, "length": 32, "layers": 2, "threads": 1, "checkpoint_every": 3,
    "evaluate": {"validations": 3, "sample_tokens": 4, "ngram_tokens": 3000},
}  # fmt: skip
SMALL = {"systems": ["hgrn2", "mingru"], "seeds": 2, "budget": "words=300", "parameters": "12k", "run": RUN}
NAMES = {"runs", "study.json", "results.json", "results.jsonl", "report.html"}


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A text, and a finished comparison beside it."""
    path = tmp_path_factory.mktemp("compare")
    share_kernels(path / "cache")
    picks = torch.randint(26, (6000,), generator=torch.Generator().manual_seed(3)).tolist()
    (path / "text.txt").write_text("".join(chr(97 + pick) + " " * (pick < 5) for pick in picks), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(path / "cache"))
        compare.compare(asked(path), path / "whole")
    return path


@pytest.fixture(autouse=True)
def own_cache(place, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(place / "cache"))


@pytest.fixture
def trained(monkeypatch) -> list[str]:
    """The names of the runs that are trained from here on."""
    names, resume = [], cells.resume

    def counted(path, console):
        names.append(path.name)
        return resume(path, console)

    monkeypatch.setattr(cells, "resume", counted)
    return names


def asked(place: Path, **given):
    return study(**(SMALL | {"corpora": [str(place / "text.txt")]} | given))


def entrants(place: Path, tmp_path: Path, **given):
    return cells.contestants(asked(place, **given), tmp_path, 1, Console(quiet=True))


def lines(out: Path) -> list[dict]:
    return [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]


def scores(out: Path) -> dict:
    return {(line["system"], line["seed"], line["rate"]): (line["scores"], line["words"], line["failed"]) for line in lines(out)}


def test_what_a_comparison_leaves(place):
    out = place / "whole"
    assert {each.name for each in out.iterdir()} - {".lock"} == NAMES
    assert [(line["system"], line["seed"]) for line in lines(out)] == [("hgrn2", 0), ("mingru", 0), ("hgrn2", 1), ("mingru", 1)]
    (corpus,) = read_file(out / "results.json")["corpora"]
    first = corpus["systems"][0]
    of_seeds = [line["scores"]["bits_per_byte"] for line in lines(out) if line["system"] == "hgrn2"]
    assert first["scores"]["bits_per_byte"]["value"] == pytest.approx(sum(of_seeds) / 2)
    assert first["scores"]["bits_per_byte"]["sd"] > 0
    assert len(first["curves"]) == 2
    assert len(first["curves"][0]["points"]) == 3
    assert corpus["differences"][0]["value"] == pytest.approx(
        first["scores"]["bits_per_byte"]["value"] - corpus["systems"][1]["scores"]["bits_per_byte"]["value"]
    )
    assert {"model.layers", "model.dim"} <= set(corpus["settings"]["differ"])
    assert "train.seed" not in corpus["settings"]["same"]
    assert corpus["settings"]["same"]["train.batch"] == 4
    page = (out / "report.html").read_text()
    assert "hgrn2" in page
    assert "one tokenizer, and 2 seeds." in page


def test_the_page_of_a_study_that_was_stopped_tells_how_far_it_is():
    rows = [{"seeds": seeds, "failed": failed} for seeds, failed in (([0, 1], [2]), ([0, 1], []))]
    assert _seeds(4, rows) == "2 to 3 of 4 seeds so far"
    assert _seeds(1, [{"seeds": [], "failed": []}]) == "0 of 1 seed so far"
    assert _seeds(3, rows[:1]) == "3 seeds"


def test_machines_share_a_study(place, tmp_path, trained):
    out = tmp_path / "second"
    shutil.copytree(place / "whole", out)
    results = compare.compare(asked(place, first_seed=1, seeds=1), out)
    assert trained == []
    assert [row["seeds"] for row in results["corpora"][0]["systems"]] == [[1], [1]]
    tuned = compare._Hall(asked(place, first_seed=1), out, Console(quiet=True), 1, None, entrants(place, tmp_path))
    assert tuned.first(tuned.entrants[0], 0.01).config.train.seed == 1
    with pytest.raises(InputError, match="first_seed: -1 is negative"):
        asked(place, first_seed=-1)


def test_what_the_text_holds_of_the_benchmarks_is_told(place, tmp_path, real_data):
    given = {"suites": ["supplement"], "systems": ["hgrn2"]}
    study = asked(place, **given)
    hall = compare._Hall(study, tmp_path, Console(quiet=True), 1, str(real_data), entrants(place, tmp_path, **given))
    compare._settle(study, None, tmp_path, Console(quiet=True))
    (row,) = hall.publish()["corpora"][0]["overlap"]
    assert (row["suite"], row["items"]) == ("supplement", 5218)
    assert row["unseen_word"] > 5000  # a text of few words


def test_everything_but_the_architecture_is_equal(place, tmp_path):
    found = entrants(place, tmp_path, systems=["hgrn2", "mamba", "attention"], parameters="31k")
    configs = [each.config for each in found]
    for config in configs:
        assert parameters(config.model) == pytest.approx(31_000, rel=0.02)
        assert len(config.model.layers) == 2
    assert len({(config.train.steps, config.train.batch, config.train.length, config.tokenizer.sha256) for config in configs}) == 1
    words = configs[0].train.steps * 4 * 32 * found[0].material.words_per_target
    assert words == pytest.approx(300, abs=0.5 * 128 * found[0].material.words_per_target)


def test_equal_flop_is_equal_within_a_step(place, tmp_path, monkeypatch):
    asked_again = count(1)
    monkeypatch.setattr("ritornello.experiments.scaling.dropout", lambda passes: next(asked_again) / 100)
    found = entrants(place, tmp_path, systems=["hgrn2", "attention"], budget="flop=3e9")
    for each in found:
        step = training_flop(each.config.model, 32) * 128
        assert abs(each.config.train.steps * step - 3e9) <= step / 2
    assert len({each.config.model.dropout for each in found}) == 1


def test_equal_minutes_are_measured_once(place, tmp_path, monkeypatch):
    pace = iter([0.5, 0.25])
    monkeypatch.setattr(cells, "time_steps", lambda *_: next(pace))
    steps = [[each.config.train.steps for each in entrants(place, tmp_path, budget="minutes=2")] for _ in range(2)]
    assert steps == [[240, 480]] * 2


def test_without_a_size_the_first_system_sets_it(place, tmp_path):
    found = entrants(place, tmp_path, parameters=None, embedding=False, run=RUN | {"dim": 48})
    sizes = [parameters(each.config.model, embedding=False) for each in found]
    assert found[0].config.model.dim == 48
    assert sizes[1] == pytest.approx(sizes[0], rel=0.02)


@pytest.mark.parametrize("size", ["60k", None])
def test_some_of_the_systems_have_the_shape_they_have_among_all(place, tmp_path, size):
    given = {"systems": ["mingru", "attention", "hgrn2"], "parameters": size}
    whole = {each.system: each.config for each in entrants(place, tmp_path, **given)}
    (alone,) = entrants(place, tmp_path, only=["attention"], **given)
    assert alone.config == whole["attention"]
    by_itself = entrants(place, tmp_path, systems=["attention"], parameters=size)[0]
    assert by_itself.config.model != alone.config.model, "or the first system has no say in the shape"


def test_one_tokenizer_made_once(place, tmp_path, monkeypatch):
    bpe = RUN | {"tokenizer": "bpe", "vocab": 300}
    first = entrants(place, tmp_path, run=bpe)
    monkeypatch.setattr("ritornello.experiments.material.train_bpe", None)
    again = entrants(place, tmp_path, run=bpe)
    assert len({each.config.tokenizer for each in (*first, *again)}) == 1
    assert again[0].config.tokenizer.kind == "bpe"


def test_what_is_finished_is_not_run_again_and_a_larger_study_uses_it(place, tmp_path, trained):
    shutil.copytree(place / "whole", tmp_path / "whole")
    compare.compare(asked(place), tmp_path / "whole")
    assert trained == []
    assert (tmp_path / "whole" / "results.jsonl").read_bytes() == (place / "whole" / "results.jsonl").read_bytes()
    compare.compare(
        asked(place, systems=["mingru", "minlstm"], seeds=1, rates="0.004,0.008", text=[str(place / "text.txt")]), tmp_path / "whole"
    )
    assert len(trained) == 3  # mingru has been trained at one of the rates
    assert [line["seed"] for line in lines(tmp_path / "whole")] == [0] * 4
    assert all(line["scores"]["text.txt bits per byte"] > 0 for line in lines(tmp_path / "whole"))  # scored as well, without training


def test_kill_9_within_a_run_and_between_runs_changes_nothing(place, tmp_path):
    recipe, out = tmp_path / "study.toml", tmp_path / "killed"
    recipe.write_text("".join(f"{name} = {json.dumps(value)}\n" for name, value in SMALL.items() if name != "run"))
    settings = [f"{name}={json.dumps(value)}" for name, value in RUN.items()]
    words = ["compare", str(place / "text.txt"), *settings, "--recipe", str(recipe), "--out", str(out)]
    process = subprocess.Popen([sys.executable, "-m", "ritornello", *words], stderr=subprocess.DEVNULL)
    until = time.monotonic() + 100
    while len(list(out.glob("runs/mingru-seed0-*/checkpoints/step-*[1-9].safetensors"))) < 1 and time.monotonic() < until:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert len(list(out.glob("runs/*/report.html"))) in (1, 2)
    assert cli.main(["compare", str(out), "--quiet"]) == 0
    assert scores(out) == scores(place / "whole")


def test_a_run_whose_settling_was_cut_short_begins_anew(place, tmp_path, trained):
    shutil.copytree(place / "whole", tmp_path / "whole")
    (path,) = (tmp_path / "whole" / "runs").glob("mingru-seed1-*")
    shutil.rmtree(path)
    path.mkdir()
    (path / "tokenizer.json").write_text("{")
    compare.compare(asked(place), tmp_path / "whole")
    assert trained == [path.name]
    assert scores(tmp_path / "whole") == scores(place / "whole")


def test_in_other_processes_as_in_this_one(place, tmp_path):
    compare.compare(asked(place, seeds=1), tmp_path, how=2)
    assert scores(tmp_path) == {about: found for about, found in scores(place / "whole").items() if about[1] == 0}


def test_a_rate_that_fails_is_kept_and_not_taken(place, tmp_path, trained):
    given = {"systems": ["hgrn2"], "seeds": 1, "rates": "0.008,1e30"}
    results = compare.compare(asked(place, **given), tmp_path)
    (gap,) = results["gaps"]
    assert "is not a finite number" in gap["reason"]
    (choice,) = results["corpora"][0]["rates"]
    assert (choice["used"], choice["edge"]) == (0.008, "lowest")
    assert [each["failed"] is None for each in choice["tried"]] == [True, False]
    assert len(trained) == 2
    compare.compare(asked(place, **given), tmp_path)
    assert len(trained) == 2  # nor is it tried again
    hopeless = compare.compare(asked(place, **given | {"rates": "1e30"}), tmp_path)["corpora"][0]["systems"][0]
    assert hopeless["scores"] == {}
    assert hopeless["rate"] is None


def test_auto_goes_on_until_the_best_rate_lies_between_worse_ones(place, tmp_path, monkeypatch):
    monkeypatch.setattr(cells, "work", lambda job, console: None)

    def line(cell, study):
        rate = cell.config.train.lr
        return {"rate": rate, "failed": None, "seconds": 0.0, "scores": {"bits_per_byte": abs(rate - 0.032)}, "metrics": {}}

    monkeypatch.setattr(compare, "line", line)
    monkeypatch.setattr(compare._Hall, "publish", lambda self: {name: choice for (_, name), choice in self.choices.items()})
    found = compare.compare(asked(place, systems=["hgrn2"], rates="auto", seeds=1), tmp_path)["hgrn2"]
    assert [each["rate"] for each in found.tried] == [0.004, 0.008, 0.016, 0.032, 0.064]
    assert (found.used, found.edge) == (0.032, None)


def test_the_next_rate():
    assert compare.further({1.0: 3.0, 2.0: 2.0, 4.0: 2.5}) is None
    assert compare.further({1.0: 1.0, 2.0: 2.0}) == 0.5
    assert compare.further({1.0: 3.0, 2.0: 2.0}) == 4.0
    assert compare.further({1.0: 3.0, 2.0: 2.0, 4.0: None}) is None  # beyond the best it fails
    assert compare.further({1.0: None, 2.0: None}) == 0.5


def test_a_damaged_disk_is_no_failed_run(place, tmp_path, monkeypatch):
    def full(path, console):
        raise InputError("no space left; free some")

    monkeypatch.setattr(cells, "resume", full)
    with pytest.raises(InputError, match="no space left"):
        compare.compare(asked(place), tmp_path)
    assert not list(tmp_path.glob("runs/*/failed.json"))


def test_the_command_goes_on_with_a_folder(place, capsys):
    out = str(place / "whole")
    assert cli.main(["compare", out, "--quiet"]) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    assert "hgrn2" in printed.out
    assert printed.out.endswith(f"page: {out}/report.html\n")
    command = read_file(place / "whole" / "study.json")["command"]
    assert cli.main(["compare", out, "--json", "--jobs", "2"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["corpora"][0]["name"] == "text"
    assert found["command"] == command  # of who asked, not of who went on


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["{text}", "--systems", "hgrn2,lstn"], "unknown mixer 'lstn'. Did you mean 'lstm'?"),
        (["{text}", "--systems", "hgrn2,hgrn2"], "has one twice; leave it out"),
        ([], "no corpora to compare: name at least one"),
        (["{text}", "--budget", "word=3"], "budget: 'word=3' is none; write words=1M, flop=1e15 or minutes=5"),
        (["{text}", "--budget", "flop=-1"], "'-1' is no number above 0"),
        (["{text}", "--parameters", "3"], "hgrn2: parameters: "),
        (["{text}", "--rates", "1e-3,fast"], "rates: 'fast' is no number above 0"),
        (["{text}", "--rates", "1e-3", "lr=0.1"], "lr and rates were both given"),
        (["{text}", "--select", "benchmark"], "a benchmark is to choose the rates, and none is named"),
        (["{text}", "steps=3"], "steps is not for one system to say; it is the study's"),
        (["{text}", "train.steps=3"], "train.steps is not for one system to say; it is the study's"),
        (["{text}", "--seeds", "0"], "seeds: 0 is less than 1"),
        (["{text}", "--jobs", "two"], "--jobs: 'two' is neither a number nor ray"),
        (["{text}", "--jobs", "0"], "--jobs: 0 is less than 1"),
        (["{text}", "--suite", "blimp"], "where do the benchmarks' files lie?"),
        (["{out}", "--seeds", "3"], "goes on as it was asked for; to ask otherwise name the text"),
        (["{text}", "{text}"], "has one twice; leave it out"),
    ],
)
def test_mistakes_are_answered_in_one_line(words, message, place, tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("RITORNELLO_DATA", raising=False)
    words = [word.format(text=place / "text.txt", out=place / "whole") for word in words]
    fresh = [] if str(place / "whole") in words else ["--out", str(tmp_path / "new"), "length=32", "batch=4"]
    assert cli.main(["compare", *words, *fresh, "--quiet"]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "new" / "study.json").exists()


def test_settings_of_one_system_may_not_undo_what_is_equal(place):
    for name in ("batch", "vocab", "seed"):
        with pytest.raises(InputError, match=f"{name} is not for one system to say"):
            asked(place, system={"hgrn2": {name: 300}})
    other = asked(place, systems=["hgrn2", "short"], system={"short": {"mixer": "hgrn2", "model": {"dropout": 0.3}}})
    assert other.request("short").mixer == "hgrn2"
    assert other.request("short").model == {"dropout": 0.3}
    with pytest.raises(InputError, match=r"unknown system 'shirt'. Did you mean 'short'"):
        asked(place, systems=["hgrn2", "short"], system={"shirt": {}})


def test_the_folder_is_held_by_one_at_a_time(place):
    with folder.locked(place / "whole"), pytest.raises(InputError, match="another process is writing"):
        compare.compare(asked(place), place / "whole")
