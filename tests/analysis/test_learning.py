import json
import random
import re

import pytest
from example_runs import log_lines

from ritornello.analysis import learning
from ritornello.errors import InputError

BASELINE = ("5-gram", 2.4)


def spots(chart: str, name: str) -> list[list[float]]:
    path = re.search(rf'<path class="{name}" d="M([^"]*)"', chart)
    return [[float(value) for value in pair.split()] for pair in path[1].split("L")] if path else []


@pytest.mark.parametrize("steps", [1, 2, 3, 99, 100, 101, 1000, 30_000])
def test_curves_are_thin_and_end_at_the_last_step(steps):
    log = log_lines(steps, random.Random(1))
    drawn = learning.charts(log, BASELINE)
    assert len(drawn["data"]["train"]) <= 202
    assert drawn["data"]["train"][0][0] == log[0]["words"]
    assert drawn["data"]["train"][-1][0] == log[-1]["words"] == drawn["data"]["words"]
    for key in ("words", "time"):
        line = spots(drawn[key], "smooth")
        assert len(line) == len(drawn["data"]["train"])
        assert len(spots(drawn[key], "band")) <= 202
        assert line == sorted(line, key=lambda spot: spot[0])
        assert line[-1][0] == 1000
        assert "5-gram: 2.40" in drawn[key]
    assert all(-0.1 <= y <= 1000.1 for x, y in spots(drawn["words"], "smooth") if x > 60 or steps < 10)


def test_the_line_is_the_mean_of_its_neighbours_and_the_band_holds_every_step():
    rng = random.Random(2)
    log = [{"step": i, "loss": 1.0, "bits_per_byte": 3 + rng.gauss(0, 0.3), "words": i, "seconds": i} for i in range(1, 1001)]
    charts = learning.charts(log, None)
    drawn = charts["data"]
    values = [record["bits_per_byte"] for record in log]
    for words, _, value in drawn["train"][20:-20]:
        assert value == pytest.approx(sum(values[words - 11 : words + 10]) / 21, abs=1e-3)
    heights = [drawn["high"] - y / 1000 * (drawn["high"] - drawn["low"]) for _, y in spots(charts["words"], "band")]
    assert (min(heights), max(heights)) == pytest.approx((min(values), max(values)), abs=1e-3)


def test_held_out_dots_and_the_baseline_are_on_the_scale():
    log = log_lines(600, random.Random(3))
    drawn = learning.charts(log, ("5-gram", 6.5))
    assert drawn["data"]["high"] > 6.5
    shown = sum("held_out_bits_per_byte" in record and record["held_out_bits_per_byte"] <= drawn["data"]["high"] for record in log)
    assert drawn["words"].count('class="held"') == shown > 5


def test_without_bits_per_byte_it_says_bits_per_token_and_leaves_out_what_has_another_unit():
    log = [{**record, "bits_per_byte": None, "loss": 2.0} for record in log_lines(50, random.Random(4))]
    drawn = learning.charts(log, BASELINE)
    assert drawn["unit"] == "bits per token"
    assert drawn["data"]["held"] == []
    assert drawn["baseline"] is None
    assert drawn["data"]["train"][0][2] == pytest.approx(2.885)


def test_values_that_are_not_numbers_are_left_out():
    log = [{**record, "bits_per_byte": float("nan") if record["step"] % 2 else 3.0} for record in log_lines(9, random.Random(5))]
    assert [spot[2] for spot in learning.charts(log, None)["data"]["train"]] == [3.0] * 4
    assert "reason" in learning.charts([], None)


def test_a_log_is_read_without_what_a_resumed_run_did_again_and_without_a_torn_end(tmp_path):
    path = tmp_path / "log.jsonl"
    assert learning.read_log(path) == []
    path.write_text(
        "".join(json.dumps({"step": step, "loss": loss}) + "\n" for step, loss in ((1, 5), (2, 4), (3, 9), (4, 8), (2, 3), (3, 2)))
        + '{"step": 4, "lo'
    )
    assert [(record["step"], record["loss"]) for record in learning.read_log(path)] == [(1, 5), (2, 3), (3, 2)]
    path.write_text('{"step": 1}\n{"st\n{"step": 3}\n')
    with pytest.raises(InputError, match="line 2"):
        learning.read_log(path)
