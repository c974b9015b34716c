"""GLUE: files read and parted, rows and their means, setups; the models are tiny."""

import gzip
import json
import os
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from ritornello.errors import InputError
from ritornello.evals import glue
from ritornello.evals.finetune import Example, Recipe, Tuned
from ritornello.evals.glue import ABSENT, BABYLM_2024, BABYLM_2025, BENCHMARKS, HALVED, OURS, SEEN, Setup, glue_suite, parted
from ritornello.evals.suite import SUITES
from ritornello.experiments.console import Console
from ritornello.experiments.suites import Source, evaluate_sources, sources
from tests.evals.test_finetune import subject, toy

DATA = Path(os.environ.get("RITORNELLO_DATA", Path(__file__).parents[2] / "../shared/data")) / "glue"
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="no GLUE files (RITORNELLO_DATA)")

RTE = Setup(suite="glue", recipe=Recipe(lr=3e-3, batch=16, epochs=8), tasks=("rte",), seeds=(1,), select="held out")
SIZES = {  # train, select, report, and what the commonest class of the training file gets
    "cola": (7695, 856, 1043, 0.0),
    "sst2": (6228, 692, 872, 0.5092),
    "mrpc": (3301, 367, 204, 0.8105),
    "mnli": (9000, 1000, 4908, 0.3319),
    "rte": (2241, 249, 139, 0.5396),
    "boolq": (735, 82, 818, 0.6259),
    "multirc": (1069, 133, 1222, 0.5671),
    "wsc": (498, 56, 52, 0.6154),
}


def lines(path, examples, **renamed):
    path.parent.mkdir(parents=True, exist_ok=True)
    records = [
        {"sentence1": example.parts[0], "sentence2": f"w{index % 5}", "label": example.label} for index, example in enumerate(examples)
    ]
    path.write_text("".join(json.dumps({renamed.get(key, key): value for key, value in record.items()}) + "\n" for record in records))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """RTE and MRPC, BoolQ without a training file; the class of a text is whether w7 is in it. Files need not be the published ones."""
    monkeypatch.setattr(glue, "checksums", lambda: {"glue": {}})
    lines(tmp_path / "filtered/rte.train.jsonl", toy(450, 0))
    lines(tmp_path / "filtered/rte.valid.jsonl", toy(100, 1))
    lines(tmp_path / "filtered/mrpc.train.jsonl", toy(60, 2))
    lines(tmp_path / "filtered/mrpc.valid.jsonl", toy(40, 3))
    lines(tmp_path / "filtered/boolq.valid.jsonl", toy(60, 4), sentence1="passage", sentence2="question")
    return tmp_path


@pytest.fixture
def quick(monkeypatch):
    """Fine-tuning that takes no time: every choice is the seed modulo the classes. The list is what it was called with."""
    calls = []

    def stub(encoder, split, classes, recipe, score, seed=0, progress=None):
        calls.append((split, recipe, score, seed))
        return Tuned([seed % classes] * len(split.report), 2, 5, 0.5)

    monkeypatch.setattr(glue, "finetune", stub)
    return calls


def evaluate(setup, folder, out=None, limit=None, who=None):
    return evaluate_sources(who or subject(), [Source(glue_suite(setup), folder)], out, Console(quiet=True), limit)


def test_a_model_learns_a_task_and_a_blind_one_gets_the_majority_score(folder):
    seeing = evaluate(RTE, folder).row("glue", "rte", "accuracy")
    assert seeing.value > 0.95
    assert seeing.n == 100
    blind = evaluate(replace(RTE, recipe=replace(RTE.recipe, pool="first")), folder)
    majority = blind.row("glue", "rte", "accuracy", "majority")
    assert blind.row("glue", "rte", "accuracy").value == majority.value == majority.chance < 0.7


def test_rows_of_several_seeds(folder, quick):
    report = evaluate(replace(RTE, seeds=(1, 2, 4)), folder)
    ones = sum(example.label for example in quick[0][0].report) / 100
    by_seed = [report.row("glue", "rte", "accuracy", f"seed {seed}") for seed in (1, 2, 4)]
    assert [row.value for row in by_seed] == pytest.approx([ones, 1 - ones, 1 - ones])
    mean, sd = report.row("glue", "rte", "accuracy"), report.row("glue", "rte", "accuracy, sd over seeds")
    values = torch.tensor([ones, 1 - ones, 1 - ones], dtype=torch.float64)
    assert mean.value == pytest.approx(float(values.mean()))
    assert (sd.value, sd.n) == (pytest.approx(float(values.std())), 3)
    items = ones * (1 - ones) / 100
    assert mean.stderr == pytest.approx(float((items + values.var() / 3).sqrt()))
    assert report.row("glue", "rte", "best epoch", "seed 2").value == 2
    assert report.row("glue", "rte", "best epoch", "seed 2").n == 5
    assert [row.by for row in report.rows].count("majority") == 1


def test_the_mean_takes_each_tasks_headline_metric_and_names_what_is_not_there(folder, quick):
    report = evaluate(replace(RTE, tasks=("rte", "mrpc", "boolq", "qqp")), folder)
    labels = [[example.label for example in call[0].report] for call in quick]
    shares = [sum(each) / len(each) for each in labels]
    f1 = 2 * shares[1] / (1 + shares[1])
    over = report.row("glue", "all 3 tasks here", glue.MEAN)
    assert over.value == pytest.approx((shares[0] + f1 + shares[2]) / 3)
    assert over.n == 100 + 40 + 30
    majority = [report.row("glue", task, metric, "majority").value for task, metric in (("rte", "accuracy"), ("mrpc", "F1"))]
    assert over.chance == pytest.approx((sum(majority) + report.row("glue", "boolq" + HALVED, "accuracy", "majority").value) / 3)
    whole = report.row("glue", "all 4 tasks", glue.MEAN)
    assert whole.value is None
    assert "qqp" in whole.reason
    missing = report.row("glue", "qqp", "F1")
    assert missing.reason == f"{ABSENT}: filtered/qqp.valid.jsonl"
    assert report.rows.index(over) < report.rows.index(report.row("glue", "rte", "accuracy")), "the main figure comes first"
    assert report.row("glue", "mrpc", "accuracy").value == pytest.approx(shares[1])


def test_where_all_tasks_are_there_the_mean_is_over_all(folder, quick):
    assert evaluate(replace(RTE, tasks=("rte", "mrpc")), folder).row("glue", "all", glue.MEAN).value is not None


def test_where_no_task_is_whole_there_is_no_mean(tmp_path):
    (tmp_path / "cola").mkdir()
    (tmp_path / "cola/in_domain_dev.tsv").write_text("gj04\t1\t\tw1 w2")
    (row,) = evaluate(replace(RTE, tasks=("cola",)), tmp_path).rows
    assert row.reason == f"{ABSENT}: cola/out_of_domain_dev.tsv"


def test_a_damaged_file_leaves_the_mean_without_a_value(folder, quick):
    (folder / "filtered/mrpc.train.jsonl").write_text('{"sentence1": "w1"}\n')
    report = evaluate(replace(RTE, tasks=("rte", "mrpc")), folder)
    assert "sentence2 missing" in report.row("glue", "mrpc", "F1").reason
    assert [row.task for row in report.rows].count("mrpc") == 1
    assert report.row("glue", "all", glue.MEAN).reason == "no value for mrpc"
    assert report.row("glue", "rte", "accuracy").value is not None


def test_a_seed_that_diverges_is_a_gap(folder):
    report = evaluate(replace(RTE, recipe=replace(RTE.recipe, lr=1e30, epochs=1)), folder)
    row = report.row("glue", "rte", "accuracy")
    assert row.value is None
    assert "not a finite number" in row.reason
    assert report.row("glue", "all", glue.MEAN).value is None
    assert report.row("glue", "rte", "accuracy", "majority").value is not None


def test_runs_are_kept_by_task_and_seed(folder, quick, tmp_path):
    setup, out = replace(RTE, tasks=("rte", "mrpc"), seeds=(1, 2)), tmp_path / "out"
    first = evaluate(setup, folder, out)
    assert [call[3] for call in quick] == [1, 2, 1, 2]
    (out / "glue/rte.seed-2.json").unlink()
    assert evaluate(setup, folder, out).rows == first.rows
    assert [call[3] for call in quick[4:]] == [2]
    evaluate(replace(setup, recipe=replace(setup.recipe, lr=1.0)), folder, out)
    assert len(quick) == 9, "another recipe is another result"


def test_some_tasks_and_seeds_of_a_suite_of_the_data_folder(folder, quick, tmp_path, monkeypatch):
    monkeypatch.setitem(SUITES, "glue", replace(SUITES["glue"], path=""))
    report = evaluate_sources(subject(), sources(["glue"], folder, ("rte",), (4, 5)), tmp_path / "out", Console(quiet=True))
    assert [call[3] for call in quick] == [4, 5]
    assert {row.suite for row in report.rows} == {"glue (only rte)"}
    assert sorted(path.name for path in (tmp_path / "out/glue").iterdir()) == ["rte.json", "rte.seed-5.json"]


def test_predictions_are_those_of_the_first_seed_on_whole_files(folder, quick, tmp_path):
    evaluate(replace(RTE, tasks=("rte", "boolq"), seeds=(1, 2)), folder, tmp_path / "out")
    kept = {path.stem: json.loads(path.read_text())["predictions"] for path in (tmp_path / "out/glue").iterdir()}
    assert kept["rte"] == [{"id": f"rte_{index}", "pred": 1} for index in range(100)]
    assert [name for name, made in kept.items() if made] == ["rte"]


def test_the_epoch_is_chosen_apart_from_what_is_reported_or_the_row_says_so(folder, quick):
    ours = evaluate(RTE, folder)
    split = quick[0][0]
    assert not set(split.select) & {*split.report, *split.train}
    assert len(split.select) == 45
    assert not any(SEEN in row.metric for row in ours.rows)
    theirs = evaluate(replace(RTE, select="reported"), folder)
    assert quick[1][0].select == quick[1][0].report
    assert len(quick[1][0].train) == 450
    assert theirs.row("glue", "rte", "accuracy" + SEEN).value is not None
    assert theirs.row("glue", "all", glue.MEAN + SEEN).value is not None


def test_each_setup_judges_epochs_by_its_own_metric(folder, quick):
    labels, choices = [0, 0, 0, 1], [0, 0, 1, 1]
    for judge, want in ((lambda name: "F1", 2 / 3), (lambda name: "accuracy", 3 / 4), (RTE.judge, 3 / 4)):
        evaluate(replace(RTE, judge=judge), folder)
        assert quick[-1][2](labels, choices) == pytest.approx(want)


def test_limit_takes_so_many_of_each(folder, quick):
    report = evaluate(RTE, folder, limit=40)
    split = quick[0][0]
    assert (len(split.train), len(split.select), len(split.report)) == (36, 4, 40)
    assert {row.suite for row in report.rows} == {"glue (at most 40 items a task)"}


def test_no_document_is_parted():
    examples = [Example((f"question {index}", f"passage {index % 7}"), 0, f"passage {index % 7}") for index in range(70)]
    first, second = parted(examples, 0.5)
    assert not {each.document for each in first} & {each.document for each in second}
    assert len(second) == 40
    assert parted(examples[::-1], 0.5) == (first[::-1], second[::-1]), "the order of a file does not matter"


@pytest.mark.parametrize(
    ("setup", "message"),
    [
        (replace(RTE, tasks=("rte", "stsb")), "no task stsb; there are cola"),
        (replace(RTE, seeds=()), "at least one task and one seed"),
        (replace(RTE, tasks=()), "at least one task and one seed"),
    ],
)
def test_a_setup_that_cannot_be_is_refused(setup, message):
    with pytest.raises(InputError, match=message):
        glue_suite(setup)


def test_a_folder_without_files_is_refused(tmp_path):
    with pytest.raises(InputError, match="none of GLUE's validation files"):
        glue_suite(OURS).tasks(tmp_path, None)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("a sentence\tgood", "tsv:1: expected sentence and label"),
        ("a sentence", "tsv:1: expected sentence and label"),
        ("a sentence\t2", "tsv:1: label must be a whole number from 0 to 1"),
        ("", "is empty"),
    ],
)
def test_a_broken_table_is_told_by_line(tmp_path, monkeypatch, line, message):
    monkeypatch.setattr(glue, "checksums", lambda: {"glue": {}})
    (tmp_path / "sst2").mkdir()
    for name in ("train", "dev"):
        (tmp_path / f"sst2/{name}.tsv").write_text(line)
    (task,) = glue_suite(replace(RTE, tasks=("sst2",))).tasks(tmp_path, None)
    assert message in task.run(subject(), None).rows[0].reason


@needs_data
def test_a_changed_file_is_a_gap(tmp_path):
    (tmp_path / "filtered").mkdir()
    for name in ("train", "valid"):
        text = gzip.decompress((DATA / f"filtered/wsc.{name}.jsonl.gz").read_bytes())
        (tmp_path / f"filtered/wsc.{name}.jsonl").write_bytes(text.replace(b"Mark", b"Marc") if name == "train" else text)
    (task,) = glue_suite(replace(RTE, tasks=("wsc",))).tasks(tmp_path, None)
    assert "changed since it was published" in task.run(subject(), None).rows[0].reason


@needs_data
@pytest.mark.parametrize("name", SIZES)
def test_the_published_files(name, quick):
    report = evaluate_named(name)
    split = quick[0][0]
    assert (*map(len, split), round(report[0].value, 4)) == SIZES[name]
    documents = [{example.document for example in part} for part in split]
    assert not documents[0] & documents[1]
    if name in ("boolq", "multirc"):
        assert not (documents[0] | documents[1]) & documents[2]
        assert report[0].task == name + HALVED
    assert all(all(example.parts) for part in split for example in part)
    assert set(Counter(example.label for example in split.train)) == set(range(BENCHMARKS[name].classes))


def evaluate_named(name):
    return glue_suite(replace(OURS, tasks=(name,))).tasks(DATA, None)[0].run(subject(), None).rows


@needs_data
def test_prompts(quick):
    evaluate_named("wsc")
    assert quick[0][0].report[0].parts == ('Does "he" refer to "Joe" in this passage?', quick[0][0].report[0].document)
    evaluate_named("multirc")
    assert quick[1][0].report[0].parts[0].startswith("Question: ")
    assert " Answer: " in quick[1][0].report[0].parts[0]
    evaluate_named("cola")
    assert quick[2][0].report[0].parts == ("The sailors rode the breeze clear of the rocks.",)


def test_the_challenges_setups():
    assert (BABYLM_2024.recipe.lr, BABYLM_2024.recipe.batch, BABYLM_2024.recipe.epochs, BABYLM_2024.recipe.patience) == (5e-5, 64, 10, 3)
    wsc = BABYLM_2024.own["wsc"]
    assert (wsc.lr, wsc.epochs, wsc.patience) == (1e-5, 20, 6)
    assert [BABYLM_2024.judge(name) for name in ("rte", "cola", "mnli", "mnli-mm")] == ["F1", "F1", "accuracy", "accuracy"]
    assert len(BABYLM_2024.tasks) == 11
    assert (BABYLM_2025.recipe.lr, BABYLM_2025.recipe.batch, BABYLM_2025.recipe.length) == (3e-5, 32, 512)
    assert {name: (recipe.batch, recipe.epochs) for name, recipe in BABYLM_2025.own.items()} == {
        "wsc": (32, 30), "boolq": (16, 10), "multirc": (16, 10)
    }  # fmt: skip
    assert [BABYLM_2025.judge(name) for name in ("rte", "mrpc", "qqp")] == ["accuracy", "F1", "F1"]
    assert len(BABYLM_2025.tasks) == 7


def test_a_setups_own_recipe_is_used(folder, quick):
    setup = replace(RTE, tasks=("rte", "mrpc"), own={"mrpc": replace(RTE.recipe, lr=7.0)})
    evaluate(setup, folder)
    assert [call[1].lr for call in quick] == [RTE.recipe.lr, 7.0]
