import re

import pytest

from ritornello.analysis import plots


def share(text: str, pattern: str) -> list[float]:
    return [float(value) / 100 for value in re.search(pattern, text).groups()]


def test_interval_spans_95_per_cent_and_chance_is_where_it_belongs():
    drawn = plots.interval(0.6, 0.05, 0.0, 1.0, chance=0.25)
    assert share(drawn, r'whisker" x1="([\d.]+)%" x2="([\d.]+)%"') == pytest.approx([0.6 - 1.96 * 0.05, 0.6 + 1.96 * 0.05], abs=1e-4)
    assert share(drawn, r'chance" x1="([\d.]+)%" x2="([\d.]+)%"') == [0.25, 0.25]
    assert share(drawn, r'dot" cx="([\d.]+)%"') == [0.6]
    assert "whisker" not in plots.interval(0.6, None, 0.0, 1.0)


def test_bars_are_logarithmic():
    widths = [share(plots.log_bar(10.0**power, 1.0, 1e9, "own", ""), r'<rect class="own" width="([\d.]+)%"')[0] for power in (3, 6, 9)]
    assert widths == pytest.approx([1 / 3, 2 / 3, 1], abs=1e-4)
    assert re.findall(r">([^<]+)</text>", plots.log_axis(100.0, 1e10)) == ["1 KB", "1 MB", "1 GB"]


def test_a_note_rises_with_surprisal():
    notes = [int(y) for y in re.findall(r'<ellipse class="note" cx="\d+" cy="(\d+)"', plots.staff([0, 1, 4, 8, 16, 40], ""))]
    assert notes == sorted(notes, reverse=True)
    assert notes[0] - notes[-1] == 60
    assert len(set(notes)) == 5


def test_lines_stretch_and_text_does_not():
    drawn = plots.curve(
        [("smooth", [(0.0, 1.0), (5.0, 3.0), (10.0, 2.0)])],
        ("held", [(5.0, 2.0)]),
        None,
        ("words", 10.0, [0.0, 10.0], str),
        ("bits", 1.0, 3.0),
        "<&",
    )
    stretched = re.search(r'<svg class="stretch" viewBox="0 0 1000 1000" preserveAspectRatio="none"[^>]*>(.*?)</svg>', drawn)[1]
    assert stretched == '<path class="smooth" d="M0.0 1000.0L500.0 0.0L1000.0 500.0"/>'
    assert '<circle class="held" cx="50%" cy="50%"' in drawn
    assert 'aria-label="&lt;&amp;"' in drawn


def test_several_curves_are_a_band_below_their_mean():
    one, two = [(1.0, 2.0), (2.0, 4.0), (3.0, 9.0)], [(1.0, 4.0), (2.0, 3.0)]
    band, mean = plots.averaged([one, two], "c0")
    assert band == ("spread c0", [(1.0, 2.0), (2.0, 3.0), (2.0, 4.0), (1.0, 4.0)])
    assert mean == ("line c0", [(1.0, 3.0), (2.0, 3.5)])
    assert plots.averaged([two], "c1") == [("line c1", two)]
    assert plots.averaged([], "c0") == plots.averaged([[]], "c0") == []
