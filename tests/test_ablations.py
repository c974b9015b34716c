"""Every switch is a run that can be begun, differs from the base and has a folder of its own; the table says what the lines tell."""

import json
from pathlib import Path

import pytest

from benchmarks import ablations
from benchmarks.ablations import BASE, SWITCHES, done, place, settings, table
from ritornello.config import from_dict
from ritornello.experiments import run as runs
from ritornello.model import LMConfig
from ritornello.train.loop import TrainConfig


@pytest.mark.parametrize("name", SWITCHES)
def test_every_switch_can_be_asked_for_and_leaves_the_rest_of_the_base(name):
    given = settings(name, 1, 3000)
    asked = runs.request(**given)  # refuses what is no setting
    long = (None, 3000 / ablations.PASS) if "vocab" in SWITCHES[name] else (3000, None)
    assert (asked.seed, asked.steps, asked.epochs, asked.threads) == (1, *long, 1)
    assert (given == settings("base", 1, 3000)) == (name == "base")
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
    lines += [line("base", 0, 9.0, 0.1) | {"study": "another"}]
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
    with pytest.raises(ablations.InputError, match="was begun with 7 steps, not 3000; choose another --out or the same --steps"):
        ablations.settle(path, "x", "ema", 0, 3000, runs.Console(quiet=True))
