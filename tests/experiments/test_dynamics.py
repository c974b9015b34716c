"""Checkpoints x suites: which, one line for each number, kept and not run again."""

import json
from pathlib import Path

import pytest
import torch

import ritornello
from ritornello import cli, folder
from ritornello.errors import InputError
from ritornello.evals.subject import CausalSubject
from ritornello.experiments.dynamics import dynamics, losses, moments

SMALL = {"steps": 12, "batch": 4, "length": 32, "dim": 32, "layers": 2, "evaluate": {"validations": 3, "sample_tokens": 10}}
COLUMNS = ["run", "mixer", "seed", "words", "step", "suite", "task", "phenomenon", "metric", "value", "stderr", "n", "chance", "reason"]


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A run with two word checkpoints, and its text."""
    path = tmp_path_factory.mktemp("dynamics")
    picks = torch.randint(26, (4000,), generator=torch.Generator().manual_seed(3)).tolist()
    letters = "".join(chr(97 + pick) + " " * (pick < 5) for pick in picks)
    (path / "text.txt").write_text(letters, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(path / "cache"))
        ritornello.run(path / "text.txt", out=str(path / "a"), quiet=True, seed=5, checkpoint_words="40,100", **SMALL)
    return path


@pytest.fixture(autouse=True)
def own_cache(place, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(place / "cache"))


def test_a_run_is_its_word_checkpoints_and_its_end(place):
    found = moments([place / "a"])
    steps = [folder.read_tensors(file)[1]["step"] for file in folder.word_checkpoints(place / "a").values()]
    assert [moment.step for moment in found] == [*steps, 12]
    assert [moment.spec for moment in found] == [f"{place}/a@40", f"{place}/a@100", f"{place}/a"]
    assert [moment.words for moment in found][:2] == [40, 100]
    assert {(moment.run, moment.mixer, moment.seed) for moment in found} == {("a", "hgrn2*2", 5)}
    assert moments([f"{place}/a@100"]) == found[1:2]
    assert moments([f"{place}/a@100", place / "a", f"{place}/a@40"]) == found  # each once


def test_every_number_is_a_line_and_the_page_is_there(place, tmp_path):
    table = dynamics([place / "a"], text=[place / "text.txt"], out=tmp_path / "out")
    assert [json.loads(line) for line in (tmp_path / "out" / "table.jsonl").read_text().splitlines()] == table
    assert all(list(line) == COLUMNS for line in table)
    scored = [line for line in table if line["suite"] == "text.txt" and line["metric"] == "bits per byte"]
    direct = [
        ritornello.evaluate(spec, text=[place / "text.txt"]).rows[0].value for spec in (f"{place}/a@40", f"{place}/a@100", f"{place}/a")
    ]
    assert [line["value"] for line in scored] == direct
    assert len(set(direct)) == 3
    assert "1 run at 3 moments" in (tmp_path / "out" / "report.html").read_text()
    assert len(json.loads((tmp_path / "out" / "provenance.json").read_text())["data"]["text.txt"]) == 64


def test_losses_are_means_since_the_check_before(place):
    log = [json.loads(line) for line in (place / "a" / "log.jsonl").read_text().splitlines()]
    train, held = ([line for line in losses(place / "a") if line["suite"] == suite] for suite in ("training text", "held-out text"))
    assert [line["step"] for line in train] == [4, 8, 12]
    assert train[1]["value"] == pytest.approx(sum(record["bits_per_byte"] for record in log[4:8]) / 4)
    assert [line["value"] for line in held] == [log[index]["held_out_bits_per_byte"] for index in (3, 7, 11)]
    assert [line["words"] for line in held] == [log[index]["words"] for index in (3, 7, 11)]


def test_what_is_finished_is_not_run_again(place, tmp_path, monkeypatch):
    first = dynamics([place / "a"], text=[place / "text.txt"], out=tmp_path)
    monkeypatch.setattr(CausalSubject, "stream", None)
    assert dynamics([place / "a"], text=[place / "text.txt"], out=tmp_path) == first


def test_pairs_of_blimp_carry_their_phenomenon(place, tmp_path, real_data):
    table = dynamics([f"{place}/a@40"], ["blimp-fast"], data=real_data, limit=2, out=tmp_path)
    found = {line["task"]: line["phenomenon"] for line in table if line["suite"].startswith("blimp-fast")}
    assert (found["wh_island"], found["all"]) == ("island effects", None)


def test_the_table_as_parquet(place, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    table = dynamics([place / "a"], text=[place / "text.txt"], out=tmp_path)
    assert parquet.read_table(tmp_path / "table.parquet").to_pylist() == table


def test_bad_requests_are_one_line(place, tmp_path, capsys):
    with pytest.raises(InputError, match="nothing to evaluate"):
        dynamics([place / "a"], out=tmp_path)
    with pytest.raises(InputError, match="no such run folder"):
        dynamics(["nowhere"], text=[place / "text.txt"], out=tmp_path)
    other = tmp_path / "other" / "a"
    other.mkdir(parents=True)
    (other / "config.json").write_bytes((place / "a" / "config.json").read_bytes())
    with pytest.raises(InputError, match=r"no checkpoints; train with --checkpoint-words, or finish it with: ritornello resume"):
        moments([other])
    with pytest.raises(InputError, match="have the same name; rename one"):
        moments([place / "a", other])
    assert cli.main(["dynamics", f"{place}/a@7", "--text", str(place / "text.txt"), "--out", str(tmp_path / "x"), "--quiet"]) == 2
    assert capsys.readouterr().err.endswith("no weights of 7 words; it has 40, 100\n")
    assert not (tmp_path / "x" / "table.jsonl").exists()


def test_the_command(place, tmp_path, capsys):
    words = ["dynamics", f"{place}/a@40", "--text", str(place / "text.txt"), "--out", str(tmp_path), "--quiet"]
    assert cli.main(words) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'report.html'}\n"
    assert cli.main([*words, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["run"] == "a"
