"""The page of an evaluation: main figures, what is published beside them, phenomena, gaps; it stands alone and escapes everything."""

import gzip
import json
import re
from html import unescape

import pytest

from ritornello.analysis import evaluation_page
from ritornello.analysis.phenomena import PHENOMENA
from ritornello.errors import InputError

OFFICIAL, HALF, TIES = "accuracy (official)", "accuracy (half credit)", "ties"
HOSTILE = "</style><img src=x onerror=alert(1)>"
PUBLISHED = [
    {"system": "HGRN2 360M", "words": "10M", "corpus": "BabyLM", "scores": {"blimp": 0.6705, "ewok": 0.4988}, "source": "table 2"},
    {"system": "someone's LSTM", "words": "10M", "corpus": "BabyLM", "scores": {"bear": 0.05}, "source": "table 9"},
]


def row(suite, task, metric, value, stderr=0.01, n=100, chance=0.5, reason=None, by="model") -> dict:
    return {"suite": suite, "task": task, "metric": metric, "value": value, "stderr": stderr, "n": n, "chance": chance} | {
        "by": by,
        "reason": reason,
    }


def blimp(suite="blimp") -> list[dict]:
    scores = {"adjunct_island": 0.4, "wh_island": 0.8, "passive_1": 0.9}
    rows = [row(suite, task, OFFICIAL, value) for task, value in scores.items()]
    rows += [row(suite, task, HALF, value - 0.05) for task, value in scores.items()]
    return [*rows, row(suite, "all", OFFICIAL, 0.7, 0.02, 300), row(suite, "all", HALF, 0.65, 0.02, 300)]


def page(tmp_path, rows, published=PUBLISHED, caveat="Another text.", **rest) -> str:
    about = {"subject": {"name": "m", "protocol": "ritornello"}, "made_by": {"command": "ritornello evaluate m"}, "seconds": {"blimp": 90}}
    (tmp_path / "results.json").write_text(json.dumps({"rows": rows} | about | rest))
    return evaluation_page.render(tmp_path, published, caveat)


def part(text: str, name: str) -> str:
    """A section by the id of its heading."""
    return text.partition(f'<section aria-labelledby="{name}">')[2].partition("</section>")[0]


def first_column(text: str) -> list[str]:
    return [unescape(re.sub("<[^>]+>", "", name)) for name in re.findall(r'<th scope="row"[^>]*>(.*?)</th>', text)]


def test_each_suite_shows_its_mean_with_interval_and_chance(tmp_path):
    text = page(tmp_path, blimp())
    glance = part(text, "glance")
    assert first_column(glance) == ["BLiMP, filteredaccuracy (official)"]
    assert "70.0 ± 3.9 %" in glance  # 1.96 standard errors of 0.02
    assert ">50.0 %<" in glance
    assert glance.count('class="chance"') == 1
    assert glance.count('class="whisker"') == 1
    assert "70.0 % on BLiMP, filtered, where guessing gets 50.0 %; nothing is missing." in text
    assert 'class="gaps"' not in text


def test_a_phenomenon_is_the_mean_of_its_subtasks_best_first(tmp_path):
    own = part(page(tmp_path, blimp()), "scores").partition("By phenomenon")[2].partition("<details")[0]
    assert first_column(own) == ["argument structure", "island effects"]
    assert "60.0 ± 1.4 %" in own  # of 0.4 and 0.8; sqrt(2) * 0.01 / 2 is 0.00707
    assert "55.0 ± 1.4 %" in own  # half credit
    assert ">200<" in own


def test_subtasks_stand_best_first(tmp_path):
    folded = part(page(tmp_path, blimp()), "scores").partition("3 subtasks, best first")[2]
    assert first_column(folded.partition("</details>")[0]) == ["passive 1", "wh island", "adjunct island"]


def test_a_suite_without_phenomena_has_none(tmp_path):
    assert "By phenomenon" not in page(tmp_path, blimp("supplement"))


def test_a_phenomenon_over_a_gap_has_no_value(tmp_path):
    rows = [*blimp(), row("blimp", "complex_NP_island", OFFICIAL, None, reason="2 of 100 pairs have no finite score")]
    own = part(page(tmp_path, rows), "scores").partition("By phenomenon")[2].partition("<details")[0]
    assert "no value for complex_NP_island" in own
    assert "60.0" not in own


def test_gaps_are_named_with_their_reason_and_told_once(tmp_path):
    rows = [*blimp(), row("blimp", "causative", "score", None, reason="causative.jsonl: no such file")]
    rows += [row("ewok", "all", metric, None, reason="no value for spatial") for metric in (OFFICIAL, HALF)]
    rows += [row("glue", "all", "score", None, reason="glue: no such folder")]
    text = page(tmp_path, rows)
    gaps = text.partition('<ul class="gaps">')[2].partition("</ul>")[0]
    assert re.findall(r"<b>(.*?)</b>", gaps) == ["BLiMP, filtered, causative", "EWoK, filtered", "GLUE"]
    assert re.findall(r'class="small">(.*?)<', gaps) == ["not scored", f"{OFFICIAL}, {HALF}", "not scored"]
    assert "3 results have no value" in text
    assert "causative.jsonl: no such file" in part(text, "scores")
    assert first_column(part(text, "glance"))[1] == "EWoK, filteredaccuracy (official)"  # there without a value
    assert ">score<" not in part(text, "scores")  # it is no metric


def test_published_figures_stand_beside_the_suites_that_were_scored_whole(tmp_path):
    found = part(page(tmp_path, blimp()), "published")
    assert "Another text." in found
    assert first_column(found) == ["m", "HGRN2 360M"]  # who has no figure for these suites is not named
    assert re.findall(r'<td class="number">(.*?)</td>', found) == ["70.0", "67.0"]
    assert "<title>HGRN2 360M, 10M words of BabyLM: 67.0 %</title>" in found
    assert 'id="published"' not in page(tmp_path, blimp("blimp (at most 10 items a task)"))
    assert 'id="published"' not in page(tmp_path, [row("blimp", "all", OFFICIAL, None, reason="no value for causative")])


def test_metrics_beyond_the_third_are_listed_below(tmp_path):
    names = [OFFICIAL, HALF, TIES, "accuracy (template 1)"]
    rows = [row("bear", task, name, 0.25) for task in ("P6", "all") for name in names]
    text = part(page(tmp_path, rows), "scores")
    table, _, further = text.partition("further figures")
    assert "template 1" not in table
    assert first_column(further) == ["accuracy (template 1)"]  # of all, not of each relation


def test_a_correlation_is_better_higher_and_may_be_negative(tmp_path):
    rows = [row("wug", task, "Spearman correlation", value, chance=0.0) for task, value in (("a", -0.4), ("b", 0.2), ("all", -0.1))]
    text = part(page(tmp_path, rows), "scores")
    assert "higher is better" in text
    assert first_column(text.partition("best first")[2]) == ["b", "a"]
    assert float(re.search(r"<div><span>(.*?)</span>", text)[1]) < -0.4  # the scale reaches below zero


def test_nothing_is_loaded_and_nothing_escapes(tmp_path):
    rows = [row(HOSTILE, HOSTILE, HOSTILE, 0.5), row(HOSTILE, "x", OFFICIAL, None, reason=HOSTILE, by=HOSTILE), *blimp()]
    published = [{**PUBLISHED[0], "system": HOSTILE, "corpus": HOSTILE, "source": HOSTILE}]
    text = page(tmp_path, rows, published, HOSTILE, subject={"name": HOSTILE, "protocol": HOSTILE}, made_by={"command": HOSTILE})
    assert text.count("</style>") == 1
    assert "<img" not in text
    assert "<script" not in text
    assert not re.search(r"(src|href)=\"(?!#)", text)
    assert "url(" not in text


def test_it_needs_results(tmp_path):
    with pytest.raises(InputError, match="give the folder that `ritornello evaluate` wrote"):
        evaluation_page.render(tmp_path)


def test_phenomena_are_those_of_the_files(real_data):
    found = {}
    for path in (real_data / "babylm_eval" / "blimp_fast").glob("*.jsonl.gz"):
        with gzip.open(path, "rt", encoding="utf-8") as file:
            first = json.loads(file.readline())
        found[first["UID"]] = first["linguistics_term"]
    assert found.keys() == PHENOMENA.keys()
    named = {"s-selection": "argument structure", "control_raising": "control and raising", "npi_licensing": "NPI licensing"}
    named |= {"determiner_noun_agreement": "determiner-noun agreement", "filler_gap_dependency": "filler-gap dependency"}
    named["subject_verb_agreement"] = "subject-verb agreement"
    assert {uid: named.get(term, term.replace("_", " ")) for uid, term in found.items()} == PHENOMENA
