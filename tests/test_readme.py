"""Every command in the README runs, its Python block too, and so do the examples; only sizes are made small."""

import ast
import re
import shlex
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest
import torch

import ritornello
from ritornello import cli
from ritornello.experiments.run import request
from ritornello.experiments.settings import Request

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", README, re.DOTALL)
COMMANDS = [
    line.split(" #")[0].strip() for kind, block in BLOCKS if kind == "sh" for line in block.splitlines() if line.startswith("ritornello")
]
TINY = {"steps": 2, "dim": 32, "layers": 2, "batch": 2, "length": 16, "evaluate": {"validations": 1, "sample_tokens": 4}}
SMALL = ["--batch", "2", "--length", "16", "evaluate.validations=1", "evaluate.sample_tokens=4"]


@pytest.fixture
def texts(tmp_path, monkeypatch):
    """The files that the README's commands name."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    generator = torch.Generator().manual_seed(0)
    letters = "".join("etaoin shrdlu"[pick] for pick in torch.randint(13, (4000,), generator=generator).tolist())
    for folder in ("corpus", "talks", "blimp/data", "benchmarks", "recipes/data"):
        Path(folder).mkdir(parents=True)
    Path("recipes/data/babymix.toml").write_text('words = 500\n[sources.novels]\nshare = 1\nfiles = ["../../novel.txt"]\n')
    for name in ("novel.txt", "more.txt", "other.txt", "corpus/a.txt"):
        Path(name).write_text(name + letters, encoding="utf-8")
    Path("talks/one.jsonl.gz").write_bytes(__import__("gzip").compress(b'{"text": "%s"}\n' % letters.encode() * 3))
    Path("blimp/data/x.jsonl").write_text('{"sentence_good": "a rod", "sentence_bad": "rod a"}\n', encoding="utf-8")
    return tmp_path


def small(command: str) -> list[str]:
    """The command's words, bounded by two steps and sized small where it says nothing itself."""
    words = shlex.split(command)[1:]
    if words[0] == "generate":
        return [*words, "--tokens", "5"]
    if words[0] == "diagnose":
        return [*words, "--seeds", "1", "--steps", "2", "--jobs", "1"]
    if words[0] == "compare":
        sizes = {"--systems": "hgrn2,lstm", "--budget": "words=10", "--parameters": "20k", "--seeds": "1"}
        return [sizes.get(before, word) for before, word in pairwise(["", *words])] + ["batch=2", "length=8", *SMALL[4:]]
    if words[0] == "sweep":
        return [*words[:-4], "--trials", "1", "--steps", "2", "layers=1", "batch=2", "length=16", *SMALL[4:]]
    if words[0] != "run":
        return words
    if "--dry-run" in words:
        return ["0.5" if before == "--minutes" else word for before, word in pairwise(["", *words])]
    for name in ("--minutes", "--steps"):
        if name in words:
            del words[words.index(name) : words.index(name) + 2]
    sizes = [] if "--dim" in words or "--from" in words else ["--dim", "32"]
    if sizes and not any(" " in word for word in words):  # a pattern of several layers says how many there are
        sizes += ["--layers", "2"]
    return [*words, "--steps", "2", *sizes, *SMALL]


def test_the_readmes_commands_run_in_their_order(texts, capsys):
    assert len(COMMANDS) >= 8
    for command in COMMANDS:
        if command.split()[1] == "resume":  # as after a power cut: the page is not there yet
            Path(command.split()[2], "report.html").unlink()
        assert cli.main(small(command)) == 0, f"{command}\n{capsys.readouterr().err}"
    assert "bits per byte" in capsys.readouterr().out


def test_the_readmes_python_runs(texts, capsys, monkeypatch):
    (block,) = [block for kind, block in BLOCKS if kind == "python"]
    assert len([node for node in ast.parse(block).body if not isinstance(node, ast.Import)]) <= 5
    run = ritornello.run
    monkeypatch.setattr(ritornello, "run", lambda text, minutes: run(text, quiet=True, **TINY), raising=False)
    exec(compile(block, "README.md", "exec"), {})
    printed = capsys.readouterr().out
    assert "It was" in printed
    assert "bits per byte" in printed


def test_the_readmes_files_and_links_exist():
    for link in re.findall(r"\]\(([^)#]+)\)", README):
        assert (ROOT / link).exists(), link


def test_the_recipes_are_requests():
    for recipe in (ROOT / "recipes").glob("*.toml"):
        assert request(recipe) != Request(), recipe


def test_the_examples_run(texts):
    path = ritornello.run("novel.txt", quiet=True, **TINY)
    calls = {"stream.py": ["novel.txt", str(path)], "fork.py": [str(path), "sand", " tin", " rod"]}
    assert {each.name for each in (ROOT / "examples").glob("*.py")} == set(calls)
    for name, words in calls.items():
        example = ROOT / "examples" / name
        assert len(example.read_text(encoding="utf-8").splitlines()) <= 60
        done = subprocess.run([sys.executable, str(example), *words], capture_output=True, text=True, timeout=200)
        assert done.returncode == 0, done.stderr
        assert done.stdout
