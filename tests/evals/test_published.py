"""Published rows: averages that follow from their columns, where the paper's own do not."""

import pytest

from ritornello.evals.published import PUBLISHED
from ritornello.evals.suite import SUITES


def found(system, words, source):
    (row,) = [row for row in PUBLISHED if (row.system, row.words) == (system, words) and row.source.endswith(source)]
    return row


@pytest.mark.parametrize(
    ("system", "words", "source", "percent"),
    [
        ("Transformer 360M", "10M", "2", 55.99),
        ("LSTM 300M", "10M", "2", 54.79),
        ("xLSTM 340M", "10M", "2", 49.95),  # 50.02 is printed
        ("Mamba 350M", "10M", "2", 56.74),
        ("HGRN2 360M", "10M", "2", 57.54),
        ("BabyLlama", "10M", "5", 60.825),
        ("LTG-BERT", "10M", "5", 57.65),
        ("BabyHGRN 1.0B", "10M", "5", 59.675),
        ("BabyHGRN 1.0B, distilled", "10M", "5", 61.95),  # 63.3 is printed
        ("BabyLlama", "100M", "6", 63.7),
        ("LTG-BERT", "100M", "6", 64.0),
        ("BabyHGRN 1.0B", "100M", "6", 63.895),
        ("BabyHGRN 1.0B, distilled", "100M", "6", 64.575),  # 64.9 is printed
    ],
)
def test_means(system, words, source, percent):
    assert found(system, words, source).mean() * 100 == pytest.approx(percent, abs=0.006)


def test_no_mean_without_its_parts():
    assert found("GPT-BERT 30M", "10M", "24159").mean() is None


def test_rows_are_of_our_suites():
    assert {suite for row in PUBLISHED for suite in row.scores} <= {*SUITES, "glue"}
    assert all(0 < score < 1 for row in PUBLISHED for score in row.scores.values())
    assert len({(row.system, row.words, row.corpus, row.source) for row in PUBLISHED}) == len(PUBLISHED)
