"""The page of a diagnosis: what the numbers are, what is left out, and that it stands alone."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from test_page import luminance

from ritornello.analysis import diagnosis, page
from ritornello.errors import InputError

TRAINING = {"steps": 10, "length": 16, "dim": 64}
HOSTILE = "lstm(x=</script><img src=x onerror=alert(1)>)"


def cell(mixer, task="parity", seed=0, scores=(1.0, 0.9, 0.8, 0.5), chance=0.5, **rest) -> dict:
    points = [{"length": 16 * 2**place, "score": score, "stderr": 0.02, "n": 256} for place, score in enumerate(scores)]
    fixed = {"settings": {}, "parameters": 1234, "about": "Is it odd?", "metric": "accuracy", "chance": chance, "seconds": 2.0}
    return {"mixer": mixer, "task": task, "seed": seed, "points": points} | fixed | TRAINING | rest


def folder(path: Path, cells: list[dict], mixers=("hgrn2", "lstm"), tasks=("parity", "recall")) -> Path:
    path.mkdir(exist_ok=True)
    (path / "config.json").write_text(json.dumps({"mixers": mixers, "tasks": tasks, "training": TRAINING}))
    (path / "cells.jsonl").write_text("".join(json.dumps(each) + "\n" for each in cells))
    (path / "provenance.json").write_text(json.dumps({"command": "ritornello diagnose", "cpu": "a <fast> one"}))
    return path


@pytest.fixture
def full(tmp_path) -> Path:
    cells = [
        cell("lstm", seed=1, scores=(1.0, 1.0, 0.6, 0.5)),
        cell("lstm", seed=0, scores=(1.0, 1.0, 1.0, 0.9)),
        cell("lstm", seed=2, scores=(1.0, 1.0, 0.9, 0.8)),
        cell("hgrn2", scores=(0.6, 0.5, 0.45, 0.5)),
        cell("hgrn2", "recall", chance=0.125, scores=(1.0, 1.0, 1.0, 1.0), settings={"conv": 4}),
        cell(HOSTILE, "recall", chance=0.125, reason="step 3: the loss is not a finite number", points=[]),
        cell("lstm", seed=3, scores=(0.0, 0.0, 0.0, 0.0), steps=99),
    ]
    return folder(tmp_path / "d", cells)


def tiles(text: str) -> dict[tuple[str, str], tuple[str, str, list[str]]]:
    """{(row, column): (class, number, notes)} of the heat-map."""
    heat = text.partition('<div class="heat"')[2].partition("</table>")[0]
    columns = re.findall(r'<a href="#[^"]*">([^<]+)</a>', heat)
    found = {}
    for row in heat.partition("<tbody>")[2].split("<tr>")[1:]:
        name = re.search(r"<bdi>(.*?)</bdi>", row)[1].replace("<wbr>", "")
        for column, (kind, number, notes) in zip(columns, re.findall(r'<td class="(\w+)"><b>(.*?)</b>(.*?)</td>', row), strict=True):
            found[name, column] = (kind, number, re.findall(r"<small>(.*?)</small>", notes))
    return found


def test_the_map_is_the_middle_seed_at_four_lengths_between_chance_and_one(full):
    found = tiles(diagnosis.render(full))
    assert found["lstm", "parity"] == ("s6", "0.80", ["0.20 to 1.00", "3 seeds"])  # of 0.6, 0.9, 1.0 where chance is 0.5
    assert found["hgrn2", "parity"] == ("s0", "−0.10", ["1 seed"])
    assert found["hgrn2", "recall"] == ("s8", "1.00", ["1 seed"])
    assert found["lstm", "recall"] == ("none", "–", ["not run"])
    assert list(dict.fromkeys(column for _, column in found)) == ["parity", "recall"]
    assert list(dict.fromkeys(row for row, _ in found))[:2] == ["hgrn2", "lstm"]


def test_what_failed_says_why_and_is_no_zero(full):
    text = diagnosis.render(full)
    (failed,) = [tile for (row, column), tile in tiles(text).items() if row.startswith("lstm(") and column == "recall"]
    assert failed == ("none", "–", ["seed 0: step 3: the loss is not a finite number"])
    assert "of 2 tasks" in text.lower()
    assert "hgrn2 solves 1, lstm 0" in text
    assert "hgrn2 kept its short convolution" in text


def test_numbers_carry_an_interval(full):
    text = diagnosis.render(full)
    assert "<td>0.90 (0.60 to 1.00)</td>" in text  # three seeds: from the lowest to the highest
    assert "<td>0.45 ± 0.04</td>" in text  # one: 1.96 standard errors over the sequences
    assert '<text class="level-name"' in text
    assert "chance 0.50" in text
    assert "chance 0.12" in text


def test_questions_asked_at_once_are_counted_from_the_easiest_on(tmp_path):
    cells = [cell("lstm", seed=seed) for seed in (0, 1)]
    for each, heads in zip(cells, ([1.0, 0.98, 0.9, 1.0], [1.0, 0.97, 1.0, 1.0]), strict=True):
        for point in each["points"]:
            point["heads"] = heads
    text = diagnosis.render(folder(tmp_path / "d", cells))
    assert "<td>1.00 (1.00 to 1.00), 2 questions</td>" in text
    assert "answered to 98 %" in text


def test_lines_have_a_point_for_each_length_and_shades_go_round(full):
    parity = diagnosis.render(full).partition('id="parity"')[2].partition("</article>")[0]
    lines = dict(re.findall(r'<path class="([^"]+)" d="M([^"]+)"', parity))
    assert list(lines) == ["spread c1", "line c0", "line c1"]
    assert [len(path.split("L")) for path in lines.values()] == [8, 4, 4]


def test_nothing_is_loaded_and_nothing_escapes(full):
    text = diagnosis.render(full)
    assert "<script" not in text
    assert "<img" not in text
    assert "&lt;img" in text
    assert "a &lt;fast&gt; one" in text
    assert not re.search(r"(src|href)=\"(?!#)", text)
    assert "url(" not in text
    assert len(text) < 60_000


def test_cells_trained_otherwise_are_not_shown(full):
    _, cells = diagnosis.load(full)
    assert len(cells) == 6
    assert all(each["steps"] == 10 for each in cells)


def test_a_folder_without_a_finished_cell_says_so(tmp_path):
    text = diagnosis.render(folder(tmp_path / "d", []))
    assert "No cell is finished yet." in text
    with pytest.raises(InputError, match=r"no config\.json"):
        diagnosis.render(tmp_path)


def test_many_mixers_have_a_line_each(tmp_path):
    names = [f"mixer{index}" for index in range(14)]
    text = diagnosis.render(folder(tmp_path / "d", [cell(name) for name in names], mixers=names))
    kinds = re.findall(r'<path class="line ([^"]+)"', text)
    assert len(kinds) == len(set(kinds)) == 14
    assert kinds.count("c3 dashed") == 1


@pytest.mark.parametrize("theme", [0, 1])
def test_lines_can_be_seen(theme):
    """3 to 1 at least against the paper, in light and dark, as graphics need."""
    style = Path(page.__file__).with_name("diagnosis.css").read_text()
    paper = re.findall(r"--paper: (#\w{6});", Path(page.__file__).with_name("page.css").read_text())[theme]
    lines = re.findall(r"--c\d: (#\w{6});", re.findall(r":root \{(.*?)\}", style)[theme])
    assert len(set(lines)) == diagnosis.COLOURS
    for line in lines:
        low, high = sorted((luminance(line), luminance(paper)))
        assert (high + 0.05) / (low + 0.05) >= 3


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("chromium") is None, reason="needs chromium")
def test_it_fits_a_phone(full, tmp_path):
    act = "<script>document.body.dataset.wide = document.documentElement.scrollWidth > innerWidth;</script></body>"
    text = diagnosis.render(full).replace("</body>", act).replace("style-src", "script-src 'unsafe-inline'; style-src")
    file = tmp_path / "page.html"
    file.write_text(text, encoding="utf-8")
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", f"--user-data-dir={tmp_path / 'profile'}"]
    dump = ["chromium", *flags, "--window-size=390,800", "--dump-dom", file.as_uri()]
    done = subprocess.run(dump, capture_output=True, text=True, timeout=120, check=True)
    assert 'data-wide="false"' in done.stdout
