import pytest
from hypothesis import given
from hypothesis import strategies as st

from ritornello.analysis import numerals


@pytest.mark.parametrize(
    ("write", "value", "text"),
    [
        (numerals.number, 0, "0"),
        (numerals.number, 0.00321, "0.0032"),
        (numerals.number, 1.2345, "1.23"),
        (numerals.number, 45.67, "45.7"),
        (numerals.number, 4400, "4,400"),
        (numerals.number, 8_300_000, "8.3M"),
        (numerals.number, float("nan"), "nan"),
        (numerals.short, 4400, "4.4k"),
        (numerals.short, 999, "999"),
        (numerals.short, 999_960, "1M"),
        (numerals.nbytes, 512, "512 bytes"),
        (numerals.nbytes, 65_536, "65.5 KB"),
        (numerals.nbytes, 4_096_000_000, "4.1 GB"),
        (numerals.duration, 4.2, "4.2 seconds"),
        (numerals.duration, 144, "2.4 minutes"),
        (numerals.duration, 7200, "2 hours"),
        (numerals.clock, 45, "0:45"),
        (numerals.clock, 3900, "1:05:00"),
    ],
)
def test_written(write, value, text):
    assert write(value) == text


@pytest.mark.parametrize(
    ("metric", "value", "stderr", "text"),
    [
        ("accuracy (official)", 0.7123, 0.002, "71.2 ± 0.4 %"),
        ("ties", 0.5, None, "50.0 %"),
        ("bits per byte", 2.0123, 0.012, "2.01 ± 0.02"),
        ("bits per byte", 2.0123, 0.0006, "2.0123 ± 0.0012"),
        ("perplexity", 1245.23, 12.0, "1,245 ± 24"),
        ("perplexity", 45.23, float("nan"), "45.2"),
    ],
)
def test_score_has_the_precision_of_its_interval(metric, value, stderr, text):
    assert numerals.score(metric, value, stderr) == text


@given(st.floats(-1e6, 1e6), st.floats(1e-3, 1e6))
def test_ticks_are_few_round_and_inside(low, span):
    marks = numerals.ticks(low, low + span)
    assert 2 <= len(marks) <= 9
    assert all(low - span * 1e-6 <= mark <= low + span * (1 + 1e-6) for mark in marks)


@given(st.floats(1e-3, 1e7))
def test_time_ticks_are_few_and_inside(high):
    marks = numerals.time_ticks(high)
    assert marks[0] == 0
    assert len(marks) <= 6
    assert marks[-1] <= high


def test_aligned_labels_share_their_digits():
    assert numerals.aligned([1.8, 2.0, 2.25]) == ["1.80", "2.00", "2.25"]
    assert numerals.aligned([1000.0, 2000.0]) == ["1,000", "2,000"]
