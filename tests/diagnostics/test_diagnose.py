"""The grid: finished cells are kept, what is cut short is not, and the command says what it did."""

import json
import subprocess
import sys

import pytest

from ritornello import cli
from ritornello.analysis import diagnosis
from ritornello.config import to_dict
from ritornello.diagnostics import diagnose as grid
from ritornello.diagnostics.trial import Trial
from ritornello.errors import InputError

SIZES = ["--steps", "2", "--length", "8", "--seeds", "2", "--jobs", "1"]


class Silent:
    def __init__(self):
        self.lines = []

    def say(self, line):
        self.lines.append(line)

    def progress(self, line):
        self.lines.append(line)


def made_up(trial: Trial, progress=None) -> dict:
    """A cell as if it had been trained; its score is a function of its seed."""
    points = [{"length": trial.length * times, "score": 0.5 + trial.seed / 10, "stderr": 0.01, "n": 256} for times in (1, 2, 4, 8)]
    rest = {"settings": {}, "parameters": 9, "about": "what?", "metric": "accuracy", "chance": 0.5, "seconds": 1.0}
    return to_dict(trial) | rest | {"points": points}


@pytest.fixture
def ran(monkeypatch):
    """The trials that are run; none is trained."""
    asked = []

    def run(trial, progress=None):
        asked.append((trial.mixer, trial.task, trial.seed))
        return made_up(trial)

    monkeypatch.setattr(grid, "run", run)
    return asked


def test_finished_cells_are_not_run_again(ran, tmp_path):
    asked = grid.trials(["lstm", "rnn"], ["parity"], 2, steps=2)
    grid.diagnose(asked[:3], tmp_path, Silent())
    assert len(ran) == 3
    console = Silent()
    rows = grid.diagnose(asked, tmp_path, console)
    assert ran[3:] == [("rnn", "parity", 1)]
    assert console.lines[0] == "4 trials, 3 of them finished before"
    assert [(row["mixer"], row["seeds"], row["normalised"]["median"]) for row in rows] == [
        ("lstm", 2, pytest.approx(0.1)),
        ("rnn", 2, pytest.approx(0.1)),
    ]
    grid.diagnose(grid.trials(["lstm"], ["parity"], 1, steps=3), tmp_path, Silent())
    assert len(ran) == 5  # trained longer is another cell


def test_the_first_seed_of_everything_comes_first():
    asked = grid.trials(["lstm", "rnn", "lstm"], ["parity", "s3"], 2)
    assert [trial.seed for trial in asked] == [0] * 4 + [1] * 4
    with pytest.raises(InputError, match="1 mixers, 0 tasks and 1 seeds"):
        grid.trials(["lstm"], [], 1)


def test_a_line_that_was_cut_short_is_run_again(ran, tmp_path):
    asked = grid.trials(["lstm", "rnn"], ["parity"], 1, steps=2)
    grid.diagnose(asked, tmp_path, Silent())
    path = tmp_path / "cells.jsonl"
    path.write_text(path.read_text()[:-40])
    grid.diagnose(asked, tmp_path, Silent())
    assert ran[2:] == [("rnn", "parity", 0)]
    assert len(diagnosis.read_cells(path)) == len(path.read_text().splitlines()) == 2
    path.write_text("{}\n" + path.read_text())
    with pytest.raises(InputError, match="line 1 is not a finished cell"):
        grid.diagnose(asked, tmp_path, Silent())


def test_stopping_keeps_what_is_finished(ran, tmp_path, monkeypatch, capsys):
    run, words = grid.run, ["diagnose", "--mixers", "lstm,rnn", "--tasks", "parity", *SIZES, "--out", str(tmp_path / "d")]

    def interrupted(trial, progress):
        if len(ran) == 2:
            raise KeyboardInterrupt
        return run(trial)

    monkeypatch.setattr(grid, "run", interrupted)
    assert cli.main(words) == 130
    assert "the same command goes on" in capsys.readouterr().err
    monkeypatch.setattr(grid, "run", run)
    assert cli.main(words) == 0
    assert len(ran) == 4


def test_the_command_from_end_to_end(tmp_path, capsys):
    words = ["diagnose", "--mixers", "lstm,hgrn(eigenvalues=signed)", "--tasks", "parity,adding", *SIZES, "--out", str(tmp_path / "d")]
    assert cli.main(words) == 0
    printed = capsys.readouterr()
    assert "score at 32: 0 chance, 1 all right" in printed.out
    assert "hgrn(eigenvalues=signed)" in printed.out
    assert printed.err.count(" on parity, seed ") >= 4
    assert sorted(path.name for path in (tmp_path / "d").iterdir()) == ["cells.jsonl", "config.json", "provenance.json", "report.html"]
    assert cli.main([*words, "--json", "--quiet"]) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    rows = json.loads(printed.out)
    assert [(row["mixer"], row["task"]) for row in rows] == [
        ("lstm", "parity"),
        ("hgrn(eigenvalues=signed)", "parity"),
        ("lstm", "adding"),
        ("hgrn(eigenvalues=signed)", "adding"),
    ]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--mixers", "lstn"], "Did you mean 'lstm'?"),
        (["--tasks", "recal"], "Did you mean 'recall'?"),
        (["--mixers", ""], "at least one of each"),
        (["--jobs", "0"], "--jobs: 0 is less than 1"),
        (["--step", "3"], "did you mean --steps?"),
    ],
)
def test_mistakes_are_answered_in_one_line(words, message, tmp_path, capsys):
    try:
        code = cli.main(["diagnose", "--out", str(tmp_path / "d"), *words])
    except SystemExit as stop:
        code = stop.code
    error = capsys.readouterr().err
    assert code == 2
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "d").exists()


def test_two_at_a_time_find_the_same(tmp_path):
    asked, both = grid.trials(["lstm"], ["parity", "s3"], 1, steps=2, length=8, dim=16), []
    for jobs in (1, 2):
        grid.diagnose(asked, tmp_path / str(jobs), Silent(), jobs=jobs)
        cells = diagnosis.read_cells(tmp_path / str(jobs) / "cells.jsonl")
        both.append(sorted(json.dumps(cell | {"seconds": 0}) for cell in cells))
    assert both[0] == both[1]


def test_help_needs_no_torch():
    code = "import sys; from ritornello import cli; assert 'torch' not in sys.modules; cli.main(['diagnose', '--help'])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "selective-copy" in done.stdout
