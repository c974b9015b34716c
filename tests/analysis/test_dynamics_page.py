"""Learning dynamics: three numbers of a curve by hand, and a page made of the table alone."""

import json
import math
import re
from html import unescape

import pytest

from ritornello.analysis import dynamics
from ritornello.errors import InputError

ACCURACY = "accuracy (official)"
HOSTILE = "</style><img src=x onerror=alert(1)>"


def line(run="a", words=1000, suite="blimp", task="all", value=0.5, metric=ACCURACY, phenomenon=None, stderr=0.01, chance=0.5, **rest):
    about = {"run": run, "mixer": "hgrn2*2", "seed": 0, "words": words, "step": words // 10, "suite": suite, "task": task}
    return (
        about
        | {"phenomenon": phenomenon, "metric": metric, "value": value, "stderr": stderr, "n": 100, "chance": chance}
        | ({"reason": None} | rest)
    )


def curve(run, values, **rest):
    return [line(run, 10**power, value=value, **rest) for power, value in enumerate(values, 3)]


def losses(run, train, held):
    pairs = ((dynamics.TRAINING, train), (dynamics.HELD_OUT, held))
    rest = {"metric": "bits per byte", "stderr": None, "chance": None}
    return [each for suite, values in pairs for each in curve(run, values, suite=suite, **rest)]


def page(tmp_path, table, threshold=None) -> str:
    (tmp_path / "table.jsonl").write_text("".join(json.dumps(each) + "\n" for each in table))
    return dynamics.render(tmp_path, threshold)


def numbers(text: str) -> list[list[str]]:
    """The rows of the tables of curves in numbers."""
    body = "".join(re.findall(r'<div class="numbers".*?<tbody>(.*?)</tbody>', text, re.S))
    rows = re.findall(r"<tr>(.*?)</tr>", body, re.S)
    return [[unescape(re.sub("<[^>]+>", "", cell)) for cell in re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row)] for row in rows]


def test_the_best_is_reached_at_the_fewest_words():
    points = [(400.0, 0.8), (100.0, 0.5), (200.0, 0.8), (300.0, 0.7)]
    assert dynamics.best(points) == (200.0, 0.8)
    assert dynamics.best(points, lower=True) == (100.0, 0.5)


def test_first_to_reach_guesses_nothing_between_checkpoints():
    points = [(100.0, 0.5), (200.0, 0.8), (300.0, 0.7)]
    assert dynamics.first_to_reach(points, 0.6) == 200.0
    assert dynamics.first_to_reach(points, 0.8) == 200.0  # at least
    assert dynamics.first_to_reach(points, 0.81) is None
    assert dynamics.first_to_reach(points, 0.7, lower=True) == 100.0
    assert dynamics.first_to_reach(points, 0.4, lower=True) is None


def test_the_area_is_a_mean_over_log_words():
    assert dynamics.area([(10, 0.5), (100, 0.7), (1000, 0.9)]) == pytest.approx(0.7)  # equal steps: (0.6 + 0.8) / 2
    assert dynamics.area([(1000, 0.9), (10, 0.5), (100, 0.7)]) == pytest.approx(0.7)  # in any order
    unequal = (math.log(2) * 0.6 + math.log(5) * 0.8) / math.log(10)
    assert dynamics.area([(10, 0.5), (20, 0.7), (100, 0.9)]) == pytest.approx(unequal)
    assert dynamics.area([(10, 0.3), (50, 0.3), (70, 0.3)]) == pytest.approx(0.3)
    assert dynamics.area([(10, 0.5)]) is None


def test_a_row_for_each_run_with_its_three_numbers(tmp_path):
    text = page(tmp_path, [*curve("early", (0.5, 0.8, 0.9)), *curve("late", (0.5, 0.5, 0.7))])
    assert numbers(text) == [
        ["BLiMP, filtered", "early", "90.0 ± 2.0 %", "100k", "70.0 %", "10k", "75.0 %"],  # halfway from 50 to 90 %
        ["BLiMP, filtered", "late", "70.0 ± 2.0 %", "100k", "70.0 %", "100k", "55.0 %"],
    ]
    assert "2 runs at 3 moments of training, from 1k to 100k words." in text
    text = page(tmp_path, curve("late", (0.5, 0.5, 0.7)), threshold=0.75)
    assert numbers(text)[0][4:6] == ["75.0 %", "not reached"]


def test_a_best_that_cannot_be_told_from_chance_has_no_threshold(tmp_path):
    assert numbers(page(tmp_path, curve("a", (0.49, 0.51, 0.515))))[0][4:6] == ["–", "–"]
    assert numbers(page(tmp_path, curve("a", (0.49, 0.51, 0.53))))[0][4] == "51.5 %"


def test_a_phenomenon_is_the_mean_of_its_subtasks_where_all_have_a_value(tmp_path):
    islands = {"phenomenon": "island effects"}
    table = curve("a", (0.6, 0.7)) + curve("a", (0.6, 0.8), task="wh_island", **islands)
    table += curve("a", (0.4, 0.6), task="adjunct_island", **islands)
    table += [line("a", 10**5, task="wh_island", value=1.0, **islands)]
    table += [line("a", 10**5, task="adjunct_island", value=None, reason="2 of 100 pairs have no finite score", **islands)]
    text = page(tmp_path, table)
    assert numbers(text)[1][:4] == ["island effects", "a", "70.0 ± 1.4 %", "10k"]
    assert "a at 100k words: BLiMP, filtered, adjunct_island: <bdi>2 of 100 pairs have no finite score" in text


def test_few_tasks_are_drawn_each_and_many_are_not(tmp_path):
    many = [line(suite="bear", task=f"P{number}", words=words) for number in range(13) for words in (10, 100)]
    assert page(tmp_path, many[:24]).count("<article>") == 12
    assert page(tmp_path, many).count("<article>") == 0


def test_overfitting_is_told_with_its_turning_point(tmp_path):
    text = page(tmp_path, losses("a", (3.0, 2.0, 1.0), (3.0, 2.5, 2.9)) + losses("b", (3.0, 2.0, 1.9), (3.0, 2.5, 2.4)))
    assert "best after 10k words; by the end, after 100k, it needs 0.40 bits a byte more: overfitting." in text
    assert "best after 100k words, at the end. There it needs 0.50 bits a byte more than training text." in text
    text_level = page(tmp_path, losses("a", (3.0, 2.0, 1.0), (3.0, 2.5, 2.505)))
    assert "best after 10k words and at the end, after 100k, as well." in text_level
    assert "overfitting" not in text_level
    assert "no checkpoint was evaluated" in text
    assert text.count('<path class="line c1"') == 2


def test_lines_have_the_values_on_a_logarithmic_axis(tmp_path):
    text = page(tmp_path, curve("a", (0.0, 0.5, 1.0)))
    path = re.search(r'<path class="line c0" d="M([^"]+)"', text)[1]
    points = [tuple(map(float, point.split())) for point in path.split("L")]
    assert [x for x, _ in points] == [0.0, 500.0, 1000.0]
    assert points[0][1] > points[1][1] > points[2][1]
    spread = re.search(r'<path class="spread c0" d="M([^"]+)"', text)[1]
    assert len(spread.split("L")) == 6
    single = re.search(r'<path class="line c0" d="M([^"]+)"', page(tmp_path, [line()]))[1].split("L")
    assert len(single) == 2  # a dot
    assert single[0] == single[1]


def test_small_charts_share_a_scale_in_per_cent(tmp_path):
    table = [line(task=task, words=10**power, value=value, stderr=0.0) for task, value in (("a", 0.2), ("b", 0.7)) for power in (3, 4)]
    text = page(tmp_path, [*table, *curve("a", (0.4, 0.5), stderr=0.0)])
    heights = [path.split("L")[0].split()[1] for path in re.findall(r'<path class="line c0" d="M([^"]+)"', text)][1:]
    assert heights == ["931.0", "69.0"]  # 0.08 of the span of 0.2 to 0.7 is left below and above
    assert "accuracy (official), %" in text


def test_nothing_is_loaded_and_nothing_escapes(tmp_path):
    table = [line(HOSTILE, 10**power, HOSTILE, task, metric=HOSTILE, mixer=HOSTILE) for power in (3, 4) for task in ("all", HOSTILE)]
    table.append(line(HOSTILE, value=None, reason=HOSTILE))
    (tmp_path / "provenance.json").write_text(json.dumps({"command": HOSTILE}))
    text = page(tmp_path, table + losses(HOSTILE, (2.0, 1.0), (2.0, 1.0)))
    assert text.count("</style>") == 1
    assert "<img" not in text
    assert "<script" not in text
    assert not re.search(r"(src|href)=\"", text)
    assert "url(" not in text


def test_it_needs_a_table(tmp_path):
    with pytest.raises(InputError, match="give the folder that `ritornello dynamics` wrote"):
        dynamics.render(tmp_path)
