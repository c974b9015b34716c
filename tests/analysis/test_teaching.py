"""The page of a distillation says what the numbers of distill.json allow: of seeds, of single runs, of failures, of no control."""

import json

import pytest

from ritornello.analysis.teaching import render
from ritornello.errors import InputError


def run(system: str, seed: int, bits: float, **more) -> dict:
    return {
        "name": f"{system}-seed-{seed}", "system": system, "seed": seed, "path": f"out/{system}-seed-{seed}", "alpha": 0.5, "steps": 10,
        "flop": 1e13, "seconds": 60.0, "scores": {"blimp": 0.6}, "curve": [[5e12, bits + 0.2], [1e13, bits]],
        "bits_per_byte": bits, "stderr": 0.05, "parameters": 1000,
    } | more  # fmt: skip


def system(name: str, bits: float, seeds: int = 2, failed: int = 0) -> dict:
    ends = {"sd": 0.01, "low": bits - 0.02, "high": bits + 0.02} if seeds > 1 else {"sd": None, "low": None, "high": None}
    known = {} if failed else {"blimp": {"value": 0.6, "sd": None, "low": None, "high": None}, "bits_per_byte": {"value": bits} | ends}
    about = {"alpha": 0.5 if name == "student" else 0.0, "steps": 10, "parameters": 1000, "flop": 1e13}
    return {"system": name, "seeds": seeds, "failed": failed, "scores": known} | about


def gain(value: float, low: float | None, high: float | None) -> dict:
    sentence = "student below control on held-out text"
    return {"system": "student", "score": "bits_per_byte", "value": value, "low": low, "high": high, "sentence": sentence}


TEACHER = {"name": "teacher <b>runs/one", "bits_per_byte": 1.5, "stderr": 0.05, "parameters": 2000}
CHANGED = {"teach.alpha": [0.5, 0.0], "train.steps": [10, 14]}


def page(tmp_path, rows, systems, gains=(), differences=CHANGED) -> str:
    about = {"held_out": "novel", "command": "ritornello distill", "provenance": {"cpu": "a processor"}}
    found = {"rows": [TEACHER, *rows], "systems": systems, "gains": list(gains), "differences": differences} | about
    (tmp_path / "distill.json").write_text(json.dumps(found))
    return render(tmp_path)


def test_seeds_have_means_intervals_and_a_conclusion(tmp_path):
    rows = [run("student", 0, 1.6, minus_control={"value": -0.1, "stderr": 0.01}), run("control", 0, 1.7)]
    rows += [run("student", 1, 1.62, minus_control={"value": -0.1, "stderr": 0.01}), run("control", 1, 1.72)]
    text = page(tmp_path, rows, [system("student", 1.61), system("control", 1.71)], [gain(-0.1, -0.12, -0.08)])
    assert '<p class="lead"><bdi>Student below control on held-out text</bdi></p>' in text
    assert "<b>1.610</b>" in text
    assert "[1.590, 1.630]" in text
    assert "<td>−0.100</td><td>[−0.120, −0.080]</td>" in text
    assert "Held-out bits per byte by FLOP: student 1.610 after 1.00e13 FLOP; control 1.710 after 1.00e13 FLOP." in text
    assert (
        '<a href="student-seed-1/report.html"><bdi>student-seed-1</bdi></a></th><td><bdi>1.620</bdi></td><td>−0.100</td><td>60.0</td>'
        in text
    )
    assert '<tr><th scope="row">train.steps</th><td><bdi>10</bdi></td><td><bdi>14</bdi></td></tr>' in text
    assert "&lt;b&gt;runs/one" in text
    assert "<b>runs" not in text


def test_single_runs_say_nothing_of_other_seeds(tmp_path):
    rows = [run("student", 0, 1.6, minus_control={"value": -0.1, "stderr": 0.01}), run("control", 0, 1.7)]
    text = page(tmp_path, rows, [system("student", 1.6, 1), system("control", 1.7, 1)], [gain(-0.1, None, None)])
    assert "student-seed-0 lies 0.100 bits per byte below the control; one run each says nothing of other seeds." in text
    assert 'class="forest"' not in text


def test_without_a_control_and_with_a_failure_nothing_is_concluded(tmp_path):
    text = page(tmp_path, [run("student", 0, 1.6)], [system("student", 1.6, 1)], differences={})
    assert "No control was run, so it cannot be told." in text
    assert "What differs" not in text
    lost = {
        key: value for key, value in run("student", 0, 1.6, failed="step 3: the loss is not a finite number").items() if "bits" not in key
    }
    text = page(tmp_path, [lost | {"curve": []}, run("control", 0, 1.7)], [system("student", 1.6, 0, 1), system("control", 1.7, 1)])
    assert "A run failed, so it cannot be told." in text
    assert "step 3: the loss is not a finite number" in text
    assert "<small>1 failed</small>" in text


def test_another_folder_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"distill.json: no such file; give the folder that `ritornello distill` wrote"):
        render(tmp_path)
