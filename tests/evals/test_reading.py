"""Reading times: least squares against NumPy's, and the real measures."""

import csv
import gzip

import numpy as np
import pytest
import torch
from told import Told, uniform

from ritornello.errors import InputError
from ritornello.evals import reading
from ritornello.evals.subject import Request
from ritornello.evals.suite import SUITES


def partial_gain(y, baseline, x):
    """(R2 with - R2 without) / (1 - R2 without), by NumPy's least squares."""

    def r2(columns):
        fitted = columns @ np.linalg.lstsq(columns, y, rcond=None)[0]
        return 1 - ((y - fitted) ** 2).sum() / ((y - y.mean()) ** 2).sum()

    without, together = r2(baseline), r2(np.column_stack([baseline, x]))
    return (together - without) / (1 - without)


def test_the_gain_is_that_of_least_squares():
    random = np.random.default_rng(0)
    raw = random.normal(size=(3, 80)) * [[1], [20], [300]] + [[5], [100], [2]]
    baseline = reading.terms(list(torch.tensor(raw)))
    assert baseline.shape == (80, 7)
    x = random.normal(size=80)
    y = raw[0] * raw[1] + 30 * x + random.normal(size=80) * 50
    known = random.random(80) > 0.1
    measured = torch.tensor(np.where(known, y, np.nan))
    sentences = [str(index // 4) for index in range(80)]
    found, n = reading.gains(measured, baseline, torch.tensor(x), sentences)
    assert n == known.sum()
    assert float(found[0]) == pytest.approx(partial_gain(y[known], baseline.numpy()[known], x[known]))
    counts = reading._resampled([sentence for sentence, keep in zip(sentences, known, strict=True) if keep])[1].int().numpy()
    again = [array[known].repeat(counts, 0) for array in (y, baseline.numpy(), x)]
    assert float(found[1]) == pytest.approx(partial_gain(*again))


def test_terms_by_hand():
    found = reading.terms([torch.tensor([2.0]), torch.tensor([3.0]), torch.tensor([5.0])])
    assert found.tolist() == [[1, 2, 3, 5, 6, 10, 15]]


def test_resamples_are_of_whole_sentences():
    weights = reading._resampled(["a", "a", "b", "c", "c", "c"])
    assert weights.shape == (201, 6)
    assert weights[0].tolist() == [1] * 6
    assert (weights[:, 0] == weights[:, 1]).all()
    assert (weights[:, 3] == weights[:, 5]).all()
    assert set((weights[1:, 0] + weights[1:, 2] + weights[1:, 3]).tolist()) == {3}
    assert len(set(map(tuple, weights.tolist()))) > 5
    assert torch.equal(weights, reading._resampled(["a", "a", "b", "c", "c", "c"]))


def test_what_has_nothing_to_do_with_it_gains_what_chance_says():
    random = torch.Generator().manual_seed(1)
    baseline = reading.terms([torch.randn(60, generator=random, dtype=torch.float64) for _ in range(3)])
    y = torch.randn(60, generator=random, dtype=torch.float64)
    found = [reading.gains(y, baseline, torch.randn(60, generator=random).double(), ["a"] * 60)[0][0] for _ in range(400)]
    assert float(torch.stack(found).mean()) == pytest.approx(1 / (60 - 7), rel=0.15)


@pytest.fixture
def task(real_data):
    (found,) = reading.SUITE.tasks(real_data / SUITES["reading"].path, None)
    return found


def test_the_real_measures(task, real_data):
    """The challenge's two formulas, written out, with NumPy's least squares; what is asked for are beginnings of the sentences."""

    def surprisal(text):
        return 3.0 * text.count("e") + len(text.split()[-1]) ** 0.5

    asked = []
    outcome = task.run(Told(lambda request: asked.append(request) or -surprisal(request.text)), None)
    with gzip.open(real_data / "babylm_eval/reading/reading_data.csv.gz", "rt") as file:
        words = list(csv.DictReader(file))
    sentences = {word["sentence"] for word in words}
    assert len(asked) == 1726 + 1521
    assert all(any(sentence.startswith(request.text) for sentence in sentences) for request in asked)
    assert asked[0] == Request("Arthur placed the", len("Arthur placed"))
    rows = {(row.task, row.metric): row for row in outcome.rows}

    def columns(known, *names):
        return [np.array([float(word[name]) for word in known]) for name in names]

    known = [word for word in words if word["Subtlex_log10"]]
    f, n, c = columns(known, "Subtlex_log10", "length", "context_length")
    baseline = np.stack([np.ones(1696), f, n, c, f * n, f * c, n * c], 1)
    x = np.array([surprisal(f"{word['item'] or 'None'} {word['word']}") for word in known])
    want = [partial_gain(*columns(known, name), baseline, x) for name in reading.EYES]
    assert [rows[name, reading.GAIN].value for name in reading.EYES] == pytest.approx(want)
    assert rows["all eye tracking", reading.GAIN].value == pytest.approx(sum(want) / 4)

    known = [word for word in known if word["prev_word"]]
    f, n, c, m = columns(known, "Subtlex_log10", "length", "context_length", "prev_length")
    p = np.array([surprisal(f"{word['prev_item']} {word['prev_word']}") for word in known])
    products = [f * n, f * c, f * m, f * p, n * c, n * m, n * p, c * m, c * p, m * p]
    baseline = np.stack([np.ones(1497), f, n, c, m, p, *products], 1)
    x = np.array([surprisal(f"{word['item']} {word['word']}") for word in known])
    want = partial_gain(*columns(known, reading.SELF_PACED), baseline, x)
    assert rows["all self-paced reading", reading.SPILLED].value == pytest.approx(want)

    assert (rows["all eye tracking", reading.GAIN].n, rows["all self-paced reading", reading.SPILLED].n) == (1696, 1497)
    assert 0 < rows["all eye tracking", reading.GAIN].stderr < 0.1
    assert rows["N400", reading.GAIN].chance == pytest.approx(1 / (1696 - 7))
    assert rows["N400", reading.SPILLED].chance == pytest.approx(1 / (1497 - 16))
    assert outcome.predictions[0] == {"id": 0, "pred": surprisal("Arthur placed the"), "prev_pred": surprisal("Arthur placed")}
    assert sum(each["prev_pred"] is None for each in outcome.predictions) == 205


def test_a_constant_gains_nothing(task):
    rows = {(row.task, row.metric): row.value for row in task.run(Told(uniform), None).rows}
    assert rows["all eye tracking", reading.GAIN] == pytest.approx(0, abs=1e-9)


def test_reasons(task, real_data, tmp_path):
    outcome = task.run(Told(lambda request: float("-inf") if request.text.endswith(" the") else -1.0), None)
    (row,) = outcome.rows
    assert "of 1726 words have no finite surprisal" in row.reason
    assert None in {each["pred"] for each in outcome.predictions}
    outcome = task.run(
        Told(lambda request: float("nan") if request.text == "Arthur placed" else -1.0), None
    )  # the word, and the one after it
    assert outcome.rows[0].reason == "2 of 1726 words have no finite surprisal"
    (few,) = reading.SUITE.tasks(real_data / SUITES["reading"].path, 8)
    rows = few.run(Told(lambda request: -float(len(request.text))), None).rows
    assert {row.reason for row in rows} >= {"8 words are too few for a baseline of 7 terms"}
    with pytest.raises(InputError, match=r"holds no reading_data\.csv"):
        reading.SUITE.tasks(tmp_path, None)
    (tmp_path / "reading_data.csv").write_text("item,word\n")
    with pytest.raises(InputError, match="changed since it was published"):
        reading.SUITE.tasks(tmp_path, None)
