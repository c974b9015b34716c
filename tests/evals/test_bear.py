"""BEAR by hand, and its real relations."""

import json

import pytest
from told import Told, rows_of, uniform

from ritornello.errors import InputError
from ritornello.evals import bear
from ritornello.evals.files import read_text, records
from ritornello.evals.suite import SUITES

TEMPLATES = ["[X] is in [Y].", "[Y] holds [X].", "In [Y] is [X]."]


@pytest.fixture
def own(tmp_path, monkeypatch):
    """Two places in two countries."""
    (tmp_path / "metadata_relations.json").write_text(json.dumps({"P1": {"templates": TEMPLATES, "answer_space_labels": ["Lo", "Hii"]}}))
    places = [{"sub_label": "one", "obj_label": "Lo"}, {"sub_label": "two", "obj_label": "Hii"}]
    (tmp_path / "P1.jsonl").write_text("".join(json.dumps(place) + "\n" for place in places))
    known = {
        "bear": {"P1": None},
        "bear-big": {"P1": None},
        "files": {f"{name}/metadata_relations.json": None for name in ("BEAR", "BEAR-big")},
    }
    monkeypatch.setattr(bear, "checksums", lambda: known)
    monkeypatch.setattr("ritornello.evals.files.checksums", lambda: known)
    return tmp_path


def test_templates_by_hand(own):
    """The first template is right of both, the second of one, the third has a tie of one and is wrong of the other."""
    best = {"One is in Lo.", "Two is in Hii.", "Lo holds one.", "Lo holds two.", "In Lo is two."}
    asked = []

    def score(request):
        asked.append(request)
        return -1.0 if request.text in best else -2.0

    (task,) = bear.SUITE.tasks(own, None)
    outcome = task.run(Told(score), None)
    rows = {row.metric: row for row in outcome.rows}
    assert [request.text for request in asked[:4]] == ["One is in Lo.", "One is in Hii.", "Two is in Lo.", "Two is in Hii."]
    assert {request.start for request in asked} == {0}
    assert [rows[f"accuracy (template {number})"].value for number in (1, 2, 3)] == [1, 0.5, 0.5]
    assert rows["accuracy (official)"].value == pytest.approx((1 + 0.5 + 0.5) / 3)
    assert rows["accuracy (half credit)"].value == pytest.approx((1 + 0.5 + 0.25) / 3)
    assert rows["ties"].value == pytest.approx((0 + 0 + 0.5) / 3)
    assert rows["accuracy (official)"].stderr == pytest.approx(1 / 3 / 2**0.5)  # of the means 1 and 1/3 of the two places
    assert {row.n for row in rows.values()} == {2}
    assert {row.chance for row in rows.values()} == {0.5, None}
    assert outcome.predictions == ({"id": "P1_0", "pred": ["Lo", "Lo", "Lo"]}, {"id": "P1_1", "pred": ["Hii", "Lo", "Lo"]})


def test_the_mean_per_token_by_hand(own):
    """Hii makes a statement longer by a letter, each of which is a little cheaper; Lo will not do for two at all."""

    def score(request):
        return -len(request.text) * (1.95 if "Hii" in request.text else 9.0 if "wo" in request.text else 2.0)

    (task,) = bear.SUITE.tasks(own, None)
    outcome = task.run(Told(score), None)
    assert rows_of(outcome, "accuracy (official)").value == 1
    assert rows_of(outcome, "accuracy (mean per token)").value == 0.5


def test_answers_are_those_that_occur_where_none_are_told(own):
    (own / "metadata_relations.json").write_text(json.dumps({"P1": {"templates": TEMPLATES}}))
    (task,) = bear.BIG.tasks(own, None)
    assert rows_of(task.run(Told(uniform), None), "accuracy (official)").value == 0.5
    asked = []
    task.run(Told(lambda request: asked.append(request.text) or -1.0), None)
    assert asked[:2] == ["One is in Lo.", "One is in Hii."]


def test_progress_goes_over_all_templates(own):
    class Slow(Told):
        def log_probs(self, requests, progress=None):
            progress(2, 4)
            return super().log_probs(requests)

    seen = []
    bear.SUITE.tasks(own, None)[0].run(Slow(uniform), lambda done, whole: seen.append((done, whole)))
    assert seen == [(2, 12), (6, 12), (10, 12)]


def test_missing_or_changed(own, monkeypatch):
    (own / "P1.jsonl").unlink()
    (own / "other.jsonl").write_text("{}")
    (lost,) = bear.SUITE.tasks(own, None)
    with pytest.raises(InputError, match=r"P1.jsonl: missing; the published set has 1 files"):
        lost.run(Told(uniform), None)
    monkeypatch.setattr(bear, "checksums", lambda: {"files": {"BEAR/metadata_relations.json": "0"}})
    with pytest.raises(InputError, match=r"metadata_relations.json: changed since"):
        bear.SUITE.tasks(own, None)
    (own / "metadata_relations.json").unlink()
    with pytest.raises(InputError, match=r"holds no metadata_relations\.json"):
        bear.SUITE.tasks(own, None)


def test_a_uniform_scorer_has_chance_on_the_real_relations(real_data):
    tasks = bear.SUITE.tasks(real_data / SUITES["bear"].path, None)
    assert len(tasks) == 60
    rows = [row for task in tasks for row in task.run(Told(uniform), None).rows]
    means = {(row.task, row.metric): row for row in bear.SUITE.means(rows)}
    instances = means["all instances", "accuracy (half credit)"]
    assert (instances.n, round(instances.value, 4), round(instances.chance, 4)) == (7731, 0.0468, 0.0468)
    assert means["all instances", "accuracy (official)"].value == pytest.approx(instances.value)  # answers are balanced
    assert means["all", "accuracy (official)"].value == pytest.approx(means["all", "accuracy (official)"].chance)
    assert bear.SUITE.means(rows)[0].task == "all instances"


def test_bear_is_the_lite_part_of_big(real_data):
    places = json.loads(read_text(real_data / "bear/bear_lite_indices.json.gz"))
    small, big = ({path.name: records(path) for path in (real_data / SUITES[name].path).glob("P*")} for name in ("bear", "bear-big"))
    for name, found in small.items():
        lite = [big[name][place].fields for place in places[name.split(".")[0]]]
        assert [(one["sub_label"], one["obj_label"]) for one in lite] == [(r.fields["sub_label"], r.fields["obj_label"]) for r in found]
    assert len(small) == 60


def test_the_big_relations(real_data):
    tasks = bear.BIG.tasks(real_data / SUITES["bear-big"].path, 2)
    assert len(tasks) == 78
    rows = [rows_of(task.run(Told(uniform), None), "accuracy (official)") for task in tasks]
    assert min(row.chance for row in rows) == 1 / 194
    assert {row.n for row in rows} == {2}
