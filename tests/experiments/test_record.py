"""A line a run: what the folder says and nothing else, once, whole, and readable after any kill."""

import fcntl
import json
import threading
from dataclasses import replace

import pytest

import ritornello
from ritornello import folder
from ritornello.config import from_dict
from ritornello.errors import InputError
from ritornello.experiments.flops import training_flop
from ritornello.experiments.record import append, changes, read, record, scores
from ritornello.experiments.settings import RunConfig
from ritornello.experiments.suites import evaluate
from ritornello.model import parameters

PAIRS = '{"sentence_good": "the cat sat", "sentence_bad": "cat the sat"}\n{"sentence_good": "a dog ran", "sentence_bad": "a ran dog"}\n'


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished run of three steps, scored on two subtasks of its own."""
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(home / "cache"))
        patch.chdir(home)
        (home / "text.txt").write_text("\n\n".join("the cat sat on a mat and saw the old dog run home " * 4 for _ in range(20)))
        for name in ("word_order", "agreement"):
            (home / "pairs").mkdir(exist_ok=True)
            (home / "pairs" / f"{name}.jsonl").write_text(PAIRS)
        sizes = {"dim": 16, "layers": 2, "batch": 2, "length": 16, "seed": 5}
        path = ritornello.run("text.txt", steps=3, quiet=True, evaluate={"sample_tokens": 2}, out="run", **sizes)
        evaluate(path, pairs=["pairs"], text=["text.txt"], out=path / "evaluation")
        yield home / path


def test_a_line_says_what_the_folder_says(run):
    line = record(run, "trial", "hgrn2")
    config, results = from_dict(RunConfig, folder.read_config(run)), json.loads((run / "results.json").read_text())
    evaluation = json.loads((run / "evaluation" / "results.json").read_text())
    made_by = json.loads((run / "provenance.json").read_text())
    assert {key: line[key] for key in ("study", "name", "system", "seed", "steps", "failed")} == {
        "study": "trial", "name": "run", "system": "hgrn2", "seed": 5, "steps": 3, "failed": None,
    }  # fmt: skip
    assert line["words"] == results["words_seen"] > 0
    assert (line["corpus"], line["data_sha256"]) == (config.corpus.name, next(iter(config.corpus.sources.values())))
    assert line["machine"].endswith(f", {config.train.threads} threads of {made_by['cores']} cores".replace(" 1 cores", " 1 core"))
    assert line["machine"].startswith(made_by["cpu"])
    assert line["parameters"] == parameters(config.model) > line["parameters_without_embedding"]
    assert line["flop"] == 3 * 2 * 16 * training_flop(config.model, 16)
    assert line["seconds"] == results["cost"]["seconds"]["train"]
    values = {(row["suite"], row["task"], row["metric"]): row["value"] for row in evaluation["rows"]}
    assert line["scores"]["bits_per_byte"] == results["headline"]["bits_per_byte"]
    assert line["scores"]["pairs"] == values["pairs", "all", "accuracy (official)"]
    assert line["scores"]["text.txt bits per byte"] == values["text.txt", "all", "bits per byte"]
    assert line["subtasks"]["pairs"] == {name: values["pairs", name, "accuracy (official)"] for name in ("word_order", "agreement")}
    assert record(run, "trial", "hgrn2", name="first")["name"] == "first"


def test_another_protocol_stands_beside(run, tmp_path):
    other = json.loads((run / "evaluation" / "results.json").read_text())
    other["subject"]["protocol"] = "official-2024"
    other["rows"] = [row | {"value": 0.25} for row in other["rows"] if row["suite"] == "pairs"]
    (tmp_path / "results.json").write_text(json.dumps(other))
    line, alone = record(run, "trial", "hgrn2", also=[tmp_path]), record(run, "trial", "hgrn2")
    assert line["scores"] == alone["scores"] | {"pairs (official-2024)": 0.25}
    assert line["subtasks"] == alone["subtasks"] | {"pairs (official-2024)": {"word_order": 0.25, "agreement": 0.25}}
    other["subject"]["sha256"] = "0" * 64
    (tmp_path / "results.json").write_text(json.dumps(other))
    with pytest.raises(InputError, match="with other weights"):
        record(run, "trial", "hgrn2", also=[tmp_path])


def test_the_config_is_told_as_what_differs(run):
    config = from_dict(RunConfig, folder.read_config(run))
    told = record(run, "trial", "hgrn2")["config"]
    assert (told["model.dim"], told["model.layers"], told["train.batch"]) == (16, "hgrn2*2", 2)
    assert not {"train.seed", "train.steps", "train.threads", "model.tied", "plan"} & told.keys()
    other = replace(
        config, plan="another", model=replace(config.model, tied=False), train=replace(config.train, seed=9, steps=7, threads=1)
    )
    assert changes(config, other) == {"model.tied": False}
    assert record(run, "trial", "hgrn2", base=other)["config"] == {"model.tied": True}
    assert changes({"teach": {"alpha": 0.5}}, {"teach": None})["teach.alpha"] is None


def test_a_gap_is_a_gap(run, tmp_path):
    evaluation = json.loads((run / "evaluation" / "results.json").read_text())
    for row in evaluation["rows"]:
        if row["suite"] == "pairs" and row["task"] in ("all", "agreement"):
            row |= {"value": None, "reason": "lost"}
    part = {"suite": "glue", "metric": "accuracy, F1 or MCC", "value": 0.5, "by": "model"}
    evaluation["rows"] += [evaluation["rows"][0] | part | {"task": task} for task in ("all 8 tasks here", "rte")]
    kept = (run / "evaluation" / "results.json").read_text()
    try:
        folder.write_json(run / "evaluation" / "results.json", evaluation)
        line = record(run, "trial", "hgrn2")
    finally:
        (run / "evaluation" / "results.json").write_text(kept)
    assert line["scores"]["pairs"] is None
    assert line["subtasks"]["pairs"]["agreement"] is None
    assert scores([line], "pairs") == {}
    assert (line["scores"]["glue, 8 tasks here"], "glue" in line["scores"]) == (0.5, False), "some of the tasks are not the suite"


def test_a_failure_is_recorded_with_its_reason_and_an_unfinished_run_is_not(run, tmp_path):
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "config.json").write_text((run / "config.json").read_text())
    (broken / "log.jsonl").write_text((run / "log.jsonl").read_text().splitlines()[0] + '\n{"step": 2, "wor')
    with pytest.raises(InputError, match="not finished, so there is nothing to record; go on with: ritornello resume"):
        record(broken, "trial", "hgrn2")
    line = record(broken, "trial", "hgrn2", failed="step 2: the loss is not a finite number")
    assert (line["failed"], line["steps"], line["scores"], line["subtasks"]) == ("step 2: the loss is not a finite number", 1, {}, {})
    assert 0 < line["words"] < record(run, "trial", "hgrn2")["words"]


def line(system: str = "a", seed: int = 0, failed: str | None = None, **found: float | None) -> dict:
    tasks = {"blimp": {"one": 0.5, "two": found["blimp"]}} if found.get("blimp") is not None else {}
    return {"study": "s", "system": system, "seed": seed, "scores": found, "subtasks": tasks, "failed": failed}


def test_scores_by_system_seed_and_subtask():
    lines = [
        line(blimp=0.6, bits_per_byte=2.0),
        line(seed=1, blimp=0.7),
        line("b", blimp=0.9),
        line(seed=1, blimp=0.8),
        line("c", 0, "stopped", blimp=0.4),
    ]
    assert scores(lines, "blimp") == {
        "a": {0: {"one": 0.5, "two": 0.6}, 1: {"one": 0.5, "two": 0.8}},
        "b": {0: {"one": 0.5, "two": 0.9}},
    }
    assert scores(lines, "bits_per_byte") == {"a": {0: {"bits_per_byte": 2.0}}}


def test_lines_are_kept_once_and_a_torn_one_is_dropped(tmp_path):
    path = tmp_path / "runs.jsonl"
    assert read(path) == []
    append(line(), path)
    append(line(), path)
    with open(path, "ab") as file:
        file.write(b'{"study": "half')
    assert read(path) == [line()]
    append(line(seed=1), path)
    assert read(path) == [line(), line(seed=1)]
    path.write_text(path.read_text().replace('"scores"', '"scoers"', 1))
    with pytest.raises(InputError, match="line 1 is no record of a run"):
        read(path)


def test_who_appends_waits_for_who_holds_the_file(tmp_path):
    path = tmp_path / "runs.jsonl"
    append(line(), path)
    with open(path, "a+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        other = threading.Thread(target=append, args=(line(seed=1), path))
        other.start()
        other.join(0.3)
        assert read(path) == [line()]
        file.write(json.dumps(line(seed=2)).encode() + b"\n")
    other.join(60)
    assert read(path) == [line(), line(seed=2), line(seed=1)]
