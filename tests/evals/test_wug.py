"""Wug tests: rank correlations by hand, and the real words."""

import json
import math

import numpy as np
import pytest
import torch
from told import Told, uniform

from ritornello.errors import InputError
from ritornello.evals import wug
from ritornello.evals.suite import SUITES


@pytest.mark.parametrize(
    ("x", "y", "want"),
    [
        ([1, 2, 3, 4], [10, 20, 30, 40], 1),
        ([1, 2, 3, 4], [4, 3, 2, 1], -1),
        ([1, 1, 2, 3], [1, 2, 2, 3], 5 / 6),
        ([1, 2, 3], [1, 3, 2], 0.5),
    ],
)
def test_spearman_by_hand(x, y, want):
    assert wug.spearman(torch.tensor(x), torch.tensor(y)) == pytest.approx(want)


def test_ties_share_their_rank():
    x, y = np.random.default_rng(0).integers(0, 9, (2, 50))
    ranks = [np.array([(line < each).sum() + ((line == each).sum() + 1) / 2 for each in line]) for line in (x, y)]
    assert wug.spearman(torch.tensor(x), torch.tensor(y)) == pytest.approx(np.corrcoef(ranks)[0, 1])


@pytest.fixture
def own(tmp_path, monkeypatch):
    ratios = {"a": 0.9, "b": 0.5, "c": 0.7, "d": 0.1}
    folder = tmp_path / "wug_past_tense"
    folder.mkdir()
    lines = [json.dumps({"sentences": f"{word} one\t{word} two\t{word} three", "ratio": ratio}) for word, ratio in ratios.items()]
    (folder / "wug_past_tense.jsonl").write_text("\n".join(lines))
    monkeypatch.setattr(wug, "checksums", lambda: {"wug": {"wug_past_tense": None}})
    return tmp_path


def test_shares_by_hand(own):
    """The share of the first of three rises with the log-probability given to it: a 4, c 3, b 2, d 1, as people's do."""
    (task,) = wug.SUITE.tasks(own, None)
    first = {"a": -1.0, "c": -2.0, "b": -3.0, "d": -4.0}
    outcome = task.run(Told(lambda request: first[request.text[0]] if request.text.endswith("one") else -3.0), None)
    (row,) = outcome.rows
    assert (row.value, row.stderr, row.n, row.chance) == (pytest.approx(1), pytest.approx(0, abs=1e-9), 4, 0)
    shares = [each["prob"] for each in outcome.predictions]
    assert shares == pytest.approx([math.exp(first[word]) / (math.exp(first[word]) + 2 * math.exp(-3)) for word in "abcd"])
    assert [each["pred"] for each in outcome.predictions] == ["a one", "b one", "c one", "d two"]
    assert outcome.predictions[2]["id"] == "wug_past_tense_2"


def test_shares_near_one_still_rank(own):
    """In float64 a share of 1 - 1e-30 is 1; its odds are not."""
    (task,) = wug.SUITE.tasks(own, None)
    first = {"a": -1.0, "c": -11.0, "b": -21.0, "d": -31.0}
    (row,) = task.run(Told(lambda request: first[request.text[0]] if request.text.endswith("one") else -99.0), None).rows
    assert row.value == pytest.approx(1)


def test_the_standard_error_by_hand(own):
    (task,) = wug.SUITE.tasks(own, None)
    first = {"a": -2.0, "c": -1.0, "b": -3.0, "d": -4.0}
    (row,) = task.run(Told(lambda request: first[request.text[0]] if request.text.endswith("one") else -3.0), None).rows
    assert row.value == pytest.approx(0.8)
    assert row.stderr == pytest.approx(0.36 * math.sqrt(1.32))


def test_reasons(own):
    (task,) = wug.SUITE.tasks(own, None)
    assert task.run(Told(uniform), None).rows[0].reason == "all items have the same score"
    outcome = task.run(Told(lambda request: math.nan if request.text[0] == "b" else -1.0), None)
    assert outcome.rows[0].reason == "1 of 4 items have no finite score"
    assert [each["prob"] is None for each in outcome.predictions] == [False, True, False, False]
    (task,) = wug.SUITE.tasks(own, 3)
    assert task.run(Told(uniform), None).rows[0].reason == "3 items are too few to correlate"


def test_a_missing_file_is_a_gap(own, monkeypatch):
    monkeypatch.setattr(wug, "checksums", lambda: {"wug": {"wug_past_tense": None, "wug_more": None}})
    _, lost = wug.SUITE.tasks(own, None)
    with pytest.raises(InputError, match="wug_more: no such file or folder"):
        lost.run(Told(uniform), None)


def test_real_words(real_data):
    tasks = wug.SUITE.tasks(real_data / SUITES["wug"].path, None)
    rows = [row for task in tasks for row in task.run(Told(lambda request: -float(len(request.text))), None).rows]
    assert {row.task: row.n for row in rows} == {"wug_adj_nominalization": 200, "wug_past_tense": 50}
    (mean,) = wug.SUITE.means(rows)
    assert (mean.task, mean.n) == ("all", 250)
