"""`ritornello data`: what a user types, sees and gets."""

import json

import pytest

from ritornello import cli
from ritornello.data.cleaning import STEPS
from ritornello.experiments import corpora

PLAN = """
words = 60
[sources.talk]
share = 1
files = ["talk.txt"]
documents = "line"
clean = ["speaker-tags"]
"""


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("RITORNELLO_DATA", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "talk.txt").write_text("".join(f"A:\tthis is line number {n}.\n" for n in range(40)), encoding="utf-8")
    (tmp_path / "my-plan.toml").write_text(PLAN, encoding="utf-8")
    return tmp_path


def test_build_and_inspect(place, capsys):
    assert cli.main(["data", "build", "my-plan.toml", "--quiet"]) == 0
    shown = capsys.readouterr()
    assert "60 words in 12 documents" in shown.out
    assert "learn from it with: ritornello run corpora/my-plan" in shown.out
    assert shown.err == ""
    assert cli.main(["data", "inspect", "corpora/my-plan", "--json", "--quiet"]) == 0
    assert json.loads(capsys.readouterr().out)["words"] == 60
    assert cli.main(["data", "inspect", "corpora/my-plan", "--quiet", "--tokenizer", "bytes"]) == 0
    assert "tokens of bytes (257 ids): " in capsys.readouterr().out


def test_words_and_seed_take_the_plans_place(place, capsys):
    found = []
    for options in (["--words", "1k"], ["--seed", "1", "--data", "data"]):
        assert cli.main(["data", "build", "my-plan.toml", "--json", "--out", f"out-{len(found)}", *options]) == 0
        found.append(json.loads(capsys.readouterr().out))
    assert (found[0]["words"], found[0]["plan"]["words"]) == (200, 1000)
    assert (found[1]["plan"]["seed"], found[1]["path"]) == (1, "out-1")


def test_a_shortage_is_said(place, capsys):
    assert cli.main(["data", "build", "my-plan.toml", "--words", "1k"]) == 0
    assert "talk: used up at 200 of the 1,000 words asked for; the corpus is so much shorter" in capsys.readouterr().err


def test_without_a_plan_the_steps_are_listed(capsys):
    assert cli.main(["data", "build"]) == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in STEPS)
    assert cli.main(["data", "build", "--json"]) == 0
    assert set(json.loads(capsys.readouterr().out)) == set(STEPS)


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["build", "none.toml"], "ritornello: none.toml: cannot be read: No such file or directory\n"),
        (["build", "my-plan.toml", "--words", "many"], "ritornello: 'many' is no count of words; write 1M, 500k or 1234\n"),
        (["build", "my-plan.toml", "--out", "data"], "ritornello: data exists; choose another --out, or remove it\n"),
        (["inspect", "data", "--overlap", "blimpy"], "ritornello: unknown suite 'blimpy'. Did you mean 'blimp'?"),
        (["inspect", "data", "--similarity", "2"], "ritornello: similarity: 2 is out of range"),
        (["inspect", "data", "--tokenizer", "none.json"], "ritornello: none.json: "),
        (["fetch", "babylm-2026-10"], "ritornello: no corpus 'babylm-2026-10'. Did you mean 'babylm-2026-10m'?"),
    ],
)
def test_a_problem_is_one_line(words, problem, capsys):
    assert cli.main(["data", *words, "--quiet"]) == 2
    shown = capsys.readouterr().err
    assert shown.startswith(problem)
    assert shown.count("\n") == 1


def test_a_stop_says_what_is_left(monkeypatch, capsys):
    def stop(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(corpora, "build", stop)
    assert cli.main(["data", "build", "my-plan.toml"]) == 130
    assert capsys.readouterr().err == "\nritornello: stopped; nothing was written\n"
