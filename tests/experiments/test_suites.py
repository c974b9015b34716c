"""Evaluations as a whole: gaps are seen, what is finished is kept, and a killed one goes on."""

import io
import json
import math
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
import torch

import ritornello
from ritornello import cli
from ritornello.errors import InputError
from ritornello.evals.blimp import pairs_suite
from ritornello.evals.means import means
from ritornello.evals.report import Row
from ritornello.evals.suite import SUITES, Outcome, Suite, Task, only, spread
from ritornello.experiments import suites
from ritornello.experiments.console import Console
from ritornello.experiments.subjects import default_out
from ritornello.experiments.suites import Source, evaluate_sources, evaluate_suites

PAIRS = [("the cat sat", "cat the sat"), ("dogs run home", "dogs run dogs"), ("far from its home", "far home its from")]


@dataclass(frozen=True)
class Scorer:
    """Scores each text by itself; counts what it was asked."""

    score: object = len
    sha256: str = "1"
    protocol: str = "ritornello"
    name: str = "scorer"
    asked: list = field(default_factory=list)

    def log_probs(self, requests, progress=None):
        self.asked.append(len(requests))
        if progress:
            progress(1, 2)
        return torch.tensor([float(self.score(request.text)) for request in requests], dtype=torch.float64)


@pytest.fixture
def files(tmp_path):
    """A folder of three files of three pairs."""
    folder = tmp_path / "mine"
    folder.mkdir()
    for name in ("a", "b", "c"):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps({"good": good, "bad": bad}) + "\n" for good, bad in PAIRS))
    return folder


def evaluate(subject, path, out, limit=None, stream=None):
    return evaluate_sources(subject, [Source(pairs_suite("mine"), path)], out, Console(stream=stream or io.StringIO()), limit)


def values(report, task="all"):
    return {row.metric: row.value for row in report.rows if row.task == task}


def test_a_constant_scorer_is_right_officially_and_half_right_by_half_credit(files, tmp_path):
    report = evaluate(Scorer(lambda text: -3), files, tmp_path / "out")
    for task in ("a", "all", "all pairs"):
        assert values(report, task) == {"accuracy (official)": 1, "accuracy (half credit)": 0.5, "ties": 1}


def test_a_scorer_blind_to_the_order_of_words_ties_on_permutations_only(files, tmp_path):
    blind = Scorer(lambda text: sum(word.count("m") - len(word) for word in text.split()))
    found = values(evaluate(blind, files, tmp_path / "out"))
    assert found["ties"] == pytest.approx(2 / 3)
    assert found["accuracy (official)"] == 1
    assert found["accuracy (half credit)"] == pytest.approx(2 / 3)


def test_a_task_that_fails_is_a_gap_in_every_mean_and_the_rest_still_runs(files, tmp_path):
    (files / "b.jsonl").write_text('{"good": "x"}\n')
    said = io.StringIO()
    report = evaluate(Scorer(), files, tmp_path / "out", stream=said)
    assert values(report, "a") == values(report, "c") != {}
    (gap,) = [row for row in report.rows if row.task == "b"]
    assert (gap.metric, gap.value) == ("score", None)
    assert gap.reason.endswith("b.jsonl:1: bad missing; found good")
    over = [row for row in report.rows if row.task.startswith("all")]
    assert {row.metric for row in over} == {"accuracy (official)", "accuracy (half credit)", "ties"}
    assert {(row.value, row.stderr, row.reason) for row in over} == {(None, None, "no value for b")}
    assert f"mine, b: left out: {gap.reason}" in said.getvalue()
    assert not (tmp_path / "out/mine/b.json").exists()
    kept = json.loads((tmp_path / "out/results.json").read_text())
    assert [row["reason"] for row in kept["rows"]] == [row.reason for row in report.rows]


def test_a_suite_whose_tasks_all_fail_has_a_mean_that_says_so(files, tmp_path):
    for file in files.iterdir():
        file.write_text("no json")
    rows = evaluate(Scorer(), files, tmp_path / "out").rows
    assert [(row.task, row.value) for row in rows] == [("a", None), ("b", None), ("c", None), ("all", None)]
    assert rows[-1].reason == "no value for a, b, c"


def test_a_suite_that_cannot_be_read_is_a_gap_and_the_next_one_runs(files, tmp_path):
    chosen = [Source(pairs_suite("other"), tmp_path / "none"), Source(pairs_suite("mine"), files)]
    report = evaluate_sources(Scorer(), chosen, None, Console(quiet=True))
    assert report.rows[0] == Row("other", "all", "score", None, reason=f"{tmp_path / 'none'}: no such file or folder")
    assert report.row("mine", "all", "ties").value is not None


def test_scores_that_are_no_numbers_have_no_mean(files, tmp_path):
    rows = evaluate(Scorer(lambda text: math.nan if "dogs" in text else -1), files, tmp_path / "out").rows
    assert {row.value for row in rows} == {None}
    assert rows[0].reason == "1 of 3 items have no finite score"


def test_a_finished_task_is_run_again_only_if_something_changed(files, tmp_path, monkeypatch):
    out, subject = tmp_path / "out", Scorer()
    first = evaluate(subject, files, out)
    assert subject.asked == [6, 6, 6]
    again = evaluate(subject, files, out)
    assert subject.asked == [6, 6, 6]
    assert (again.rows, again.seconds) == (first.rows, first.seconds)
    for change in ({"sha256": "2"}, {"protocol": "official-2024"}):
        evaluate(replace(subject, **change), files, out)
    assert len(subject.asked) == 9
    evaluate(subject, files, out)  # what the others left there is not ours
    assert len(subject.asked) == 12
    (files / "b.jsonl").write_text('{"good": "a cat", "bad": "cat a"}\n')
    assert evaluate(subject, files, out).row("mine", "b", "ties").n == 1
    assert subject.asked[12:] == [2]
    monkeypatch.setattr(suites, "RULES", 1000)
    evaluate(subject, files, out)
    assert len(subject.asked) == 16


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b'{"key": {}', b"\xff", None, b"NaN"])
def test_a_damaged_kept_file_is_scored_again_with_one_line(files, tmp_path, content):
    out, subject, said = tmp_path / "out", Scorer(), io.StringIO()
    first = evaluate(subject, files, out)
    path = out / "mine/b.json"
    if content is None:
        kept = json.loads(path.read_text())
        kept["rows"][0]["value"] = None  # without a reason
        content = json.dumps(kept).encode()
    path.write_bytes(content)
    assert evaluate(subject, files, out, stream=said).rows == first.rows
    assert subject.asked == [6] * 4
    (line,) = [line for line in said.getvalue().splitlines() if "damaged" in line]
    assert line.startswith(f"{path}: damaged, so it is scored again (")
    assert json.loads(path.read_text())["rows"]


def test_a_limit_is_in_the_name_and_kept_beside_the_whole(files, tmp_path):
    assert spread(range(10), 4) == [0, 2, 5, 7]
    out, subject = tmp_path / "out", Scorer()
    whole = evaluate(subject, files, out)
    part = evaluate(subject, files, out, limit=2)
    assert {row.suite for row in part.rows} == {"mine (at most 2 items a task)"}
    assert [row.n for row in part.rows if row.metric == "ties"] == [2, 2, 2, 6, 6]
    assert evaluate(subject, files, out).rows == whole.rows
    assert subject.asked == [6, 6, 6, 4, 4, 4]
    assert sorted(path.name for path in out.iterdir() if path.is_dir()) == ["mine", "mine@2"]


def test_some_tasks_of_a_suite_are_named_with_it_and_kept_as_of_the_whole(files, tmp_path):
    out, subject = tmp_path / "out", Scorer()
    whole = evaluate(subject, files, out)
    part = evaluate_sources(subject, [Source(only(pairs_suite("mine"), ("c", "a")), files, ("c", "a"))], out, Console(quiet=True))
    assert subject.asked == [6, 6, 6], "nothing is scored twice"
    assert {row.suite for row in part.rows} == {"mine (only c, a)"}
    assert {row.task for row in part.rows if row.task in "abc"} == {"a", "c"}
    assert [row.value for row in part.rows if row.task == "a"] == [row.value for row in whole.rows if row.task == "a"]
    gap = evaluate_sources(subject, [Source(only(pairs_suite("mine"), ("d",)), files, ("d",))], None, Console(quiet=True))
    assert gap.rows[0].reason.startswith("unknown task of mine 'd'. Known: a, b, c")


def test_a_result_that_cannot_be_written_is_no_gap(files, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "mine").write_text("in the way")
    with pytest.raises(OSError, match="mine"):
        evaluate(Scorer(), files, out)


def test_progress_says_how_far_and_how_long(files, tmp_path):
    console = Console(stream=io.StringIO())
    console.live = True
    evaluate_sources(Scorer(), [Source(pairs_suite("mine"), files)], None, console)
    assert "mine ███░░░░░░░░░░░░░░░░░  17%  0 s left  1 of 3: a" in console.stream.getvalue()


def test_a_task_of_its_own_kind_gives_what_it_likes():
    def run(subject, progress):
        return Outcome((Row("own", "x", "beauty", 0.5, n=1),), ({"id": 0},))

    suite = Suite("own", lambda path, limit: [Task("x", "1", run)], means)
    assert evaluate_sources(Scorer(), [Source(suite, Path())], None, Console(quiet=True)).row("own", "all", "beauty").value == 0.5


def test_every_suite_has_a_name_of_its_own_and_two_of_one_name_are_refused(files, tmp_path):
    assert {name: entry.load().name for name, entry in SUITES.items()} == {name: name for name in SUITES}
    with pytest.raises(InputError, match="two suites are called mine; rename a file, or leave one out"):
        evaluate_sources(Scorer(), [Source(pairs_suite("mine"), files)] * 2, None, Console(quiet=True))


# ---- the command ---------------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    (folder / "text.txt").write_text("\n\n".join(f"the cat sat on mat {n} and saw the sea from far away" for n in range(200)))
    sizes = {"steps": 2, "dim": 32, "layers": 2, "batch": 2, "length": 16, "evaluate": {"validations": 1, "sample_tokens": 4}}
    return ritornello.run(folder / "text.txt", out=str(folder / "run"), documents="blank", quiet=True, **sizes)


def command(capsys, *words):
    try:
        code = cli.main(["evaluate", *map(str, words)])
    except SystemExit as end:
        code = end.code
    return code, *capsys.readouterr()


def test_suites_and_files_in_one_table_and_one_file(run, files, tmp_path, capsys, monkeypatch):
    data = tmp_path / "data"
    for name in ("blimp-full", "bear-big"):  # the second takes hours, so "all" is without it
        (data / SUITES[name].path).mkdir(parents=True)
    monkeypatch.setenv("RITORNELLO_DATA", str(data))
    out = tmp_path / "out"
    code, shown, said = command(capsys, run, "--suite", "all", "--pairs", files, "--text", run.parent / "text.txt", "--out", out)
    assert code == 0
    for part in ("blimp-full", "no value", "mine", "accuracy (official)", "text.txt", "bits per byte", f"kept in {out}"):
        assert part in shown
    assert "blimp-full: left out:" in said
    report = json.loads((out / "results.json").read_text())
    assert {row["suite"] for row in report["rows"]} == {"blimp-full", "mine", "text.txt"}
    assert report["subject"].keys() == {"name", "sha256", "protocol"}
    assert set(report["made_by"]["data"]) == {"mine", "text.txt"}
    code, again, _ = command(capsys, run, "--suite", "all", "--pairs", files, "--text", run.parent / "text.txt", "--out", out, "--json")
    assert json.loads(again)["rows"] == report["rows"]


def test_without_a_suite_the_command_lists_them(run, tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("RITORNELLO_DATA", raising=False)
    code, shown, _ = command(capsys)
    assert (code, all(name in shown for name in SUITES)) == (0, True)
    (tmp_path / SUITES["wug"].path).mkdir(parents=True)
    found = {each["suite"]: each["there"] for each in json.loads(command(capsys, run, "--data", tmp_path, "--json")[1])}
    assert (found["wug"], found["blimp"]) == (True, False)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--suite", "blimp"], "which model? give a run folder"),
        (["RUN", "--suite", "blimp"], "where do the benchmarks' files lie? give --data FOLDER, or set RITORNELLO_DATA"),
        (["RUN", "--suite", "blimp", "--data", "nowhere"], "nowhere: no such folder"),
        (["RUN", "--suite", "blimb", "--data", "."], "unknown suite 'blimb'. Did you mean 'blimp'?"),
        (["RUN", "--suite", "blimp,ewok", "--data", ".", "--seeds", "1"], "--seeds: nothing is trained in blimp, ewok"),
        (["RUN", "--suite", "glue", "--data", ".", "--seeds", "1,b"], "--seeds: 'b' is no whole number"),
        (["RUN", "--pairs", "mine", "--tasks", "cola"], "--tasks and --seeds are of suites"),
        (["RUN", "--suite", "all", "--data", "."], ".: holds none of the benchmarks"),
        (["RUN", "--pairs", "nowhere.jsonl"], "nowhere.jsonl: no such file or folder"),
        (["RUN", "--pairs", "mine", "--limit", "0"], "--limit: 0 is less than 1"),
        (["RUN", "--pairs", "mine", "--pairs", "mine"], "two suites are called mine"),
        (["RUN", "--pairs", "mine", "--out", "mine/a.jsonl"], "mine/a.jsonl: File exists"),
        (["RUN", "--pairs", "mine", "--protocol", "official"], "invalid choice: 'official'"),
        (["RUN", "--pairs", "mine", "--threads", "0"], "--threads: 0 is less than 1"),
        (["/nowhere/run", "--pairs", "mine"], "/nowhere/run: no such run folder"),
    ],
)
def test_what_cannot_be_done_is_one_line(run, files, tmp_path, capsys, monkeypatch, words, message):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RITORNELLO_DATA", raising=False)
    code, shown, said = command(capsys, *[run if word == "RUN" else word for word in words], "--quiet")
    assert (code, shown) == (2, "")
    assert message in said
    assert said.count("\n") == 1


def test_a_command_of_which_nothing_came_says_so(run, tmp_path, capsys):
    (tmp_path / "x.jsonl").write_text("no json")
    code, shown, _ = command(capsys, run, "--pairs", tmp_path / "x.jsonl", "--out", tmp_path / "out")
    assert code == 2
    assert "x.jsonl:1: not JSON" in shown


def test_an_interrupted_evaluation_says_how_to_go_on(run, files, tmp_path, capsys, monkeypatch):
    def stop(*words, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(suites, "evaluate", stop)
    code, shown, said = command(capsys, run, "--pairs", files, "--out", tmp_path / "out")
    assert (code, shown) == (130, "")
    assert f"what is finished is kept in {tmp_path / 'out'}, and the same command goes on from there" in said


def test_where_an_evaluation_is_kept(run):
    assert default_out(str(run)) == run / "evaluation"
    assert default_out("someone/model") == Path("evaluations/model")


def test_a_killed_evaluation_goes_on_and_ends_as_an_unbroken_one(run, tmp_path):
    pairs = tmp_path / "pairs"
    pairs.mkdir()
    for task in range(30):
        lines = (json.dumps({"good": f"the cat {task} saw {n} seas", "bad": f"cat the {n} saw {task} seas"}) for n in range(150))
        (pairs / f"{task:02}.jsonl").write_text("\n".join(lines))
    words = [sys.executable, "-m", "ritornello", "evaluate", str(run), "--pairs", str(pairs), "--threads", "1", "--quiet", "--out"]
    child = subprocess.Popen([*words, str(tmp_path / "killed")], stdout=subprocess.DEVNULL)
    kept = tmp_path / "killed/pairs"
    until = time.monotonic() + 200
    while len(list(kept.glob("*.json"))) < 3 and time.monotonic() < until:
        time.sleep(0.001)
    child.send_signal(signal.SIGKILL)
    child.wait()
    before = {path.name: path.stat().st_mtime_ns for path in kept.glob("*.json")}
    assert 3 <= len(before) < 30
    assert not (tmp_path / "killed/results.json").exists()
    for out in ("killed", "whole"):
        subprocess.run([*words, str(tmp_path / out)], stdout=subprocess.DEVNULL, timeout=200, check=True)
    assert {name: (kept / name).stat().st_mtime_ns for name in before} == before
    killed, whole = (json.loads((tmp_path / out / "results.json").read_text()) for out in ("killed", "whole"))
    assert killed["rows"] == whole["rows"]


def test_one_evaluation_at_a_time_in_a_folder(files, tmp_path):
    from ritornello.folder import locked

    (tmp_path / "out").mkdir()
    with locked(tmp_path / "out"), pytest.raises(InputError, match="another process is writing"):
        evaluate(Scorer(), files, tmp_path / "out")


def test_named_suites_of_a_data_folder(files, tmp_path):
    target = tmp_path / SUITES["supplement"].path
    target.mkdir(parents=True)
    report = evaluate_suites(Scorer(), ["supplement", "supplement"], tmp_path, tmp_path / "out", Console(quiet=True))
    assert {row.suite for row in report.rows} == {"supplement"}
    assert report.rows[-1].reason
