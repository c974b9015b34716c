"""Every switch is a run that can be begun, differs from the base and has a folder of its own; the table says what the lines tell."""

import json
import sys
from pathlib import Path

import pytest

from benchmarks import ablations
from benchmarks.ablations import BASE, SWITCHES, done, place, settings, table
from ritornello.config import from_dict
from ritornello.experiments import run as runs
from ritornello.experiments.record import read
from ritornello.model import LMConfig
from ritornello.train.loop import TrainConfig


@pytest.mark.parametrize("name", SWITCHES)
def test_every_switch_can_be_asked_for_and_leaves_the_rest_of_the_base(name):
    given = settings(name, 1, 2.0)
    asked = runs.request(**given)  # refuses what is no setting
    long = (None, 2.0) if "vocab" in SWITCHES[name] else (2 * ablations.PASS, None)
    assert (asked.seed, asked.steps, asked.epochs, asked.threads) == (1, *long, 1)
    assert (given == settings("base", 1, 2.0)) == (name == "base")
    assert asked.batch * asked.length == BASE["batch"] * BASE["length"]
    assert asked.model.get("dropout", 0) == SWITCHES[name].get("model", {}).get("dropout", 0.1)
    from_dict(LMConfig, {"vocab": 9} | asked.model)
    from_dict(TrainConfig, {"steps": 1, "length": asked.length} | asked.train)


def test_every_run_has_a_folder_of_its_own():
    places = {place(Path("out"), name, seed) for name in SWITCHES for seed in range(3)}
    assert len(places) == 3 * len(SWITCHES)
    assert place(Path("out"), "ema, constant rate", 2) == Path("out/runs/ema-constant-rate-seed2")


def test_a_run_is_done_once_it_is_scored_or_has_failed(tmp_path):
    for seed, file in enumerate(("report.html", "evaluation/results.json", "failed.json")):
        target = place(tmp_path, "ema", seed) / file
        target.parent.mkdir(parents=True)
        target.write_text("{}")
    assert [done(tmp_path, "ema", seed) for seed in range(4)] == [False, True, True, False]


def line(system: str, seed: int, bits: float, blimp: float) -> dict:
    tasks = {"a": blimp - 0.1, "b": blimp + 0.1}
    return {
        "study": "switches", "system": system, "seed": seed, "failed": None,
        "scores": {"bits_per_byte": bits, "blimp-fast": blimp}, "subtasks": {"blimp-fast": tasks},
    }  # fmt: skip


def test_the_table_says_what_the_lines_tell():
    assert table([]) == "There are no runs yet."
    lines = [line("base", seed, 1.5 + 0.01 * seed, 0.60) for seed in range(3)]
    lines += [line("ema", seed, 1.3 + 0.01 * seed, 0.70) for seed in range(3)]
    said = table(lines).splitlines()
    assert said[0] == "bits_per_byte: the base has 1.5100, 3 seeds"
    assert "ema" in said[1]
    assert "−0.200" in said[1]
    assert said[3] == "blimp-fast: the base has 0.6000, 3 seeds"
    assert "+10.0" in said[4]


def test_a_switch_that_was_begun_otherwise_is_refused(tmp_path):
    path = place(tmp_path, "ema", 0)
    path.mkdir(parents=True)
    empty = {"train": {"steps": 7}, "model": {"vocab": 9}, "corpus": {"spec": "x"}, "evaluate": {}}
    config = empty | {"format": 1, "plan": "", "minutes": None, "tokenizer": {"kind": "bytes", "size": 9, "sha256": ""}}
    (path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ablations.InputError, match="was begun with 7 steps, not 810; choose another --out or the same --passes"):
        ablations.settle(path, "x", "ema", 0, 1, runs.Console(quiet=True))


def test_switches_are_run_and_scored_once_and_their_lines_differ_from_the_base_by_the_switch(tmp_path, monkeypatch, capsys):
    """The whole way on a small text: a second call finds everything done."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    pairs = tmp_path / "data" / "babylm_eval" / "blimp_fast" / "one.jsonl"
    pairs.parent.mkdir(parents=True)
    pairs.write_text(json.dumps({"sentence_good": "the sea is", "sentence_bad": "sea the is"}))
    (tmp_path / "out" / ablations.CORPUS).mkdir(parents=True)
    (tmp_path / "out" / ablations.CORPUS / "text.txt").write_text("\n\n".join(f"number {number} by the sea" for number in range(400)))
    monkeypatch.setattr(ablations, "PASS", 2)
    small = {"dim": 16, "layers": 1, "vocab": 300, "batch": 2, "length": 16, "evaluate": {"sample_tokens": 2, "validations": 1}}
    monkeypatch.setattr(ablations, "BASE", BASE | small)
    words = ["--data", tmp_path / "data", "--out", tmp_path / "out", "--only", "base", "z-loss", "--lines", tmp_path / "runs.jsonl"]
    monkeypatch.setattr(sys, "argv", ["ablations", *map(str, words), "--seeds", "2", "--passes", "2"])
    ablations.main()
    lines = read(tmp_path / "runs.jsonl")
    assert [(line["system"], line["seed"]) for line in lines] == [("base", 0), ("z-loss", 0), ("base", 1), ("z-loss", 1)]
    assert {line["study"] for line in lines} == {"switches over 2 passes"}
    assert [line["config"] for line in lines] == [{}, {"train.objective.z": 1e-4}] * 2
    assert {line["steps"] for line in lines} == {4}
    assert all("blimp-fast" in line["scores"] for line in lines)
    assert "bits_per_byte: the base has" in capsys.readouterr().out
    monkeypatch.setattr(ablations, "spend", lambda jobs, *_: jobs and pytest.fail(f"run again: {jobs}"))
    ablations.main()
