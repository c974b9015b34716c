"""The page of speed figures is what speed.json says, and speed.json is what the topics left there. Nothing is timed here."""

import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from benchmarks import document, pictures, targets

ROOT = Path(__file__).resolve().parents[1]
RUN = {
    "started": "2026-01-01T00:00:00+00:00", "cpu": "some processor", "cores": 2, "memory_bytes": 8_000_000_000, "threads": 1, "gpu": None,
    "system": "Linux", "python": "3.11", "versions": {"torch": "2.13"}, "kernels": "compiled", "commit": "abc", "command": "python -m x",
}  # fmt: skip


def row(part: str = "slstm", **fields: object) -> dict:
    return {"topic": "cells", "part": part, "row": "S15", "what": "sLSTM", "mixer": "sLSTM", "B": 8, "ratio": 4.0, "threads": 1} | fields


@pytest.fixture
def empty(tmp_path, monkeypatch):
    """A results folder of its own; every target that nothing measured is excused."""
    monkeypatch.setattr(document, "FOLDER", tmp_path)
    monkeypatch.setattr(document, "SPEED", tmp_path / "speed.json")
    excused = {line["target"]: "too slow for a test" for line in targets.judge([])} | targets.UNMEASURED
    monkeypatch.setattr(targets, "UNMEASURED", {name: why for name, why in excused.items() if name != "S15 sLSTM"})
    monkeypatch.setattr(targets, "MISSED", {})
    return tmp_path


def test_the_page_and_the_pictures_are_what_speed_json_says():
    assert document.check() == []


def test_a_part_replaces_its_own_rows_and_no_others(empty):
    document.keep([row(), row(ratio=5.0)], RUN)
    document.keep([row("gru", mixer="GRU", B=32)], RUN | {"started": "2026-01-02T00:00:00+00:00"})
    document.keep([row(ratio=3.5)], RUN | {"started": "2026-01-03T00:00:00+00:00"})
    found = document.load()
    assert [(each["part"], each["ratio"]) for each in found["rows"]] == [("gru", 4.0), ("slstm", 3.5)]
    assert set(found["runs"]) == {"cells 2026-01-02T00:00:00+00:00", "cells 2026-01-03T00:00:00+00:00"}
    judged = next(line for line in found["targets"] if line["target"] == "S15 sLSTM")
    assert (judged["measured"], judged["verdict"], judged["run"]) == (3.5, "floor", "cells 2026-01-03T00:00:00+00:00")
    assert "| S15 sLSTM | sLSTM, B=8 T=512 | Python loop | 3× | 6× | **3.5×** | floor |" in (empty / "speed.md").read_text("utf-8")
    assert document.check() == []


def edit_page(folder: Path) -> None:
    page = folder / "speed.md"
    page.write_text(page.read_text("utf-8").replace("**4.0×**", "**9.0×**"), "utf-8")


def edit_verdict(folder: Path) -> None:
    speed = folder / "speed.json"
    speed.write_text(speed.read_text("utf-8").replace('"verdict": "floor"', '"verdict": "aim"'), "utf-8")


def lose_row(folder: Path) -> None:
    found = document.load()
    document.write([each for each in found["rows"] if each["part"] != "slstm"], found["runs"])


def lose_run(folder: Path) -> None:
    speed = folder / "speed.json"
    speed.write_text(speed.read_text("utf-8").replace('"run": "cells', '"run": "sells'), "utf-8")


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (edit_page, "speed.md is not what"),
        (edit_verdict, "its targets are not what"),
        (lose_row, "S15 sLSTM: not measured; say why in UNMEASURED"),
        (lose_run, "rows without a run"),
        (lambda folder: (folder / "speed.json").unlink(), "run python -m benchmarks"),
        (lambda folder: (folder / "step.svg").write_text("<svg/>"), "step.svg is not what"),
    ],
)
def test_what_does_not_agree_is_told(empty, harm, said):
    document.keep([row()], RUN)
    document.keep([row("gru", mixer="GRU", B=32)], RUN)
    assert document.check() == []
    harm(empty)
    assert any(said in line for line in document.check()), document.check()


def test_a_missed_floor_needs_a_reason_and_a_reason_a_missed_floor(empty, monkeypatch):
    document.keep([row(ratio=2.0)], RUN)
    assert document.check() == ["S15 sLSTM: missed; say why in MISSED of benchmarks/targets.py"]
    monkeypatch.setitem(targets.MISSED, "S15 sLSTM", "the loop is fast here")
    document.keep([row(ratio=2.0)], RUN)
    assert document.check() == []
    assert "- S15 sLSTM: the loop is fast here." in (empty / "speed.md").read_text("utf-8")
    document.keep([row(ratio=7.0)], RUN)
    assert document.check() == ["S15 sLSTM: not missed; remove it from MISSED of benchmarks/targets.py"]


def test_a_figure_is_the_worst_of_its_rows():
    by_name = {target.name: target for group in targets.GROUPS.values() for target in group}
    rows = [row(ratio=5.0), row(ratio=4.0), row(ratio=1.0, B=1), row(ratio=0.5, mixer="GRU")]
    assert targets.read(by_name["S15 sLSTM"], rows)[0]["ratio"] == 4.0
    rows = [{"row": "S18", "mixer": mixer, "ratio": ratio} for mixer, ratio in (("hgrn2", 1.01), ("mamba", 1.1), ("attention", 3.0))]
    assert targets.read(by_name["S18"], rows)[0]["ratio"] == 1.1


@pytest.mark.parametrize(
    ("floor", "aim", "lower", "measured", "said"),
    [
        (2.0, 4.0, False, 4.0, "aim"), (2.0, 4.0, False, 3.9, "floor"), (2.0, 4.0, False, 1.9, "missed"),
        (None, 4.0, False, 3.0, "below the aim"), (5.0, None, False, 9.0, "floor"), (2.0, 4.0, False, None, "not measured"),
        (1.2, 1.1, True, 1.1, "aim"), (1.2, 1.1, True, 1.15, "floor"), (1.2, 1.1, True, 1.3, "missed"),
    ],
)  # fmt: skip
def test_verdicts(floor, aim, lower, measured, said):
    assert targets.verdict(targets.Target("S0", "what", "whom", floor, aim, "ratio", lower, {}), measured) == said


def test_every_row_says_what_it_is():
    found = document.load()
    for each in found["rows"]:
        assert {"topic", "part", "row", "what", "threads", "run"} <= set(each), each
        assert found["runs"][each["run"]]["command"].startswith(f"python -m benchmarks.{each['topic']}")


def test_the_pictures_show_what_the_rows_hold():
    rows = [{"row": "S18 plot", "mixer": name, "T": T, "ms_a_token": T / 1e4} for name in ("hgrn2", "attention") for T in (512, 8192)]
    rows += [
        {"row": "S13 context", "who": who, "context": at, "tokens_per_second": 9.0}
        for who in ("int8", "Llama")
        for at in (0, 256, 1000, 10**6)
    ]
    rows += [
        {"row": "profile", "when": "before", "precision": "float32", "part": f"part {index}", "ms": 20.0 - index} for index in range(12)
    ]
    shown = {name: ElementTree.fromstring(draw(rows)[1]) for name, draw in pictures.PICTURES.items()}
    words = {name: {text.text for text in svg.iter("{http://www.w3.org/2000/svg}text")} for name, svg in shown.items()}
    assert {"512", "8k", "hgrn2", "attention"} <= words["scaling.svg"]
    assert {"0", "1k", "1M", "int8", "Llama"} <= words["context.svg"]
    assert {"before", "float32", "174 ms", "part 7", "smaller parts"} <= words["step.svg"]
    assert "part 8" not in words["step.svg"]
    assert [draw([]) for draw in pictures.PICTURES.values()] == [None] * 3


def run(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", *words], cwd=ROOT, capture_output=True, text=True, timeout=250)


def test_a_topic_runs_quickly_and_alone():
    done = run("benchmarks.kernels", "--quick", "--only", "selective")
    assert done.returncode == 0, done.stderr
    found = [eval(line) for line in done.stdout.splitlines()]
    assert [(each["row"], each["against"]) for each in found] == [("S7", "chunk"), ("S7", "loop")]
    assert all(each["ratio"] > 0 and each["what"] for each in found)


def test_what_is_tried_quickly_is_not_kept():
    before = document.SPEED.read_bytes()
    done = run("benchmarks.kernels", "--quick", "--keep", "--only", "selective")
    assert (done.returncode, document.SPEED.read_bytes()) == (2, before)
    assert "nothing to --keep" in done.stderr


def test_the_check_is_a_command_too():
    done = run("benchmarks", "--check")
    assert (done.returncode, done.stdout.strip()) == (0, "")
    assert run("benchmarks", "no-such-topic").returncode == 2
