"""Entity tracking by hand, and on the real stories."""

import json

from told import Told, uniform

from ritornello.evals import entity, files
from ritornello.evals.suite import SUITES


def story(name, numops, options=("the a.", "the b.")):
    return {"input_prefix": f"{name} contains ", "numops": numops, "options": list(options)}


def test_means_over_operations_then_splits_by_hand(tmp_path, monkeypatch):
    lines = {"one": [story("x", 0), story("y", 1), story("z", 1)], "two": [story("y", 0, ("the a.", "the b.", "the c."))]}
    for name, records in lines.items():
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    known = {name: files.hashlib.sha256((tmp_path / f"{name}.jsonl").read_bytes()).hexdigest() for name in lines}
    monkeypatch.setattr(files, "checksums", lambda: {"entity": known})
    right = Told(lambda request: -1.0 if request.text.startswith("x") == request.text.endswith("a.") else -2.0)
    tasks = entity.SUITE.tasks(tmp_path, None)
    outcomes = {task.name: task.run(right, None) for task in tasks}
    assert list(outcomes) == ["one_0_ops", "one_1_ops", "two_0_ops"]
    rows = [row for outcome in outcomes.values() for row in outcome.rows]
    found = {(row.task, row.metric): row for row in (*rows, *entity.SUITE.means(rows))}
    official = "accuracy (official)"
    assert [found[task, official].value for task in ("one_0_ops", "one_1_ops", "two_0_ops", "one", "two", "all")] == [1, 0, 0, 0.5, 0, 0.25]
    assert found["all", official].chance == (1 / 2 + 1 / 3) / 2
    assert entity.SUITE.means(rows)[0] == found["all", official]
    assert outcomes["one_1_ops"].predictions == ({"id": "one_1_ops_0", "pred": "the b."}, {"id": "one_1_ops_1", "pred": "the b."})


def test_only_the_option_is_scored(tmp_path, monkeypatch):
    (tmp_path / "one.jsonl").write_text(json.dumps(story("x", 0)))
    monkeypatch.setattr(files, "checksums", lambda: {"entity": {"one": None}})
    asked = []
    (task,) = entity.SUITE.tasks(tmp_path, None)
    task.run(Told(lambda request: asked.append(request.text[request.start :]) or -1.0), None)
    assert asked == ["the a.", "the b."]


def test_real_stories(real_data):
    tasks = entity.SUITE.tasks(real_data / SUITES["entity"].path, None)
    assert len(tasks) == 18
    rows = [row for task in tasks for row in task.run(Told(uniform), None).rows]
    sizes = {row.task: row.n for row in rows}
    assert sum(sizes.values()) == 9483
    assert sizes["regular_5_ops"] == 159
    assert sizes["ambiref_4_ops"] == 615
    found = {(row.task, row.metric): row.value for row in entity.SUITE.means(rows)}
    assert found["all", "accuracy (official)"] == 1
    assert abs(found["all", "accuracy (half credit)"] - 0.2) < 1e-9
    assert {round(row.chance, 9) for row in rows if row.chance is not None} == {0.2}
