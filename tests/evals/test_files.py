"""Benchmark files: what is published is known by its content, and what is missing or changed is a gap."""

import gzip
import hashlib
import zipfile

import pytest
from told import Told, uniform

from ritornello.errors import InputError
from ritornello.evals import files
from ritornello.evals.blimp import pairs_suite
from ritornello.evals.files import checksums, file_tasks, read_text, records
from ritornello.evals.suite import SUITES, Outcome, Task

PAIR = b'{"good": "a", "bad": "b"}\n'


def made(name, lines):
    return [Task(f"{name} {len(lines)}", "", lambda subject, progress: Outcome(()))]


@pytest.fixture
def known(tmp_path, monkeypatch):
    """A public set of three files: as published, changed, missing; and a file beside it."""
    (tmp_path / "a.jsonl").write_bytes(PAIR)
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress(PAIR + PAIR))
    (tmp_path / "extra.jsonl").write_bytes(PAIR)
    monkeypatch.setattr(files, "checksums", lambda: {"set": dict.fromkeys("abc", hashlib.sha256(PAIR).hexdigest())})
    return tmp_path


def test_missing_and_changed_files_are_gaps_and_others_are_left(known):
    tasks = file_tasks(known, made, published="set")
    assert [task.name for task in tasks] == ["a 1", "b", "c"]
    assert tasks[0].run(Told(uniform), None) == Outcome(())
    for task, message in zip(
        tasks[1:], (r"b.jsonl.gz: changed since it was published", r"c.jsonl: missing; the published set has 3 files"), strict=True
    ):
        with pytest.raises(InputError, match=message) as caught:
            task.run(Told(uniform), None)
        assert "\n" not in str(caught.value)


def test_the_content_counts_and_not_how_it_is_packed(known):
    (known / "b.jsonl.gz").write_bytes(gzip.compress(PAIR, 1))
    assert [task.name for task in file_tasks(known, made, published="set")] == ["a 1", "b 1", "c"]


def test_an_unknown_set_is_what_the_folder_holds(known):
    assert [task.name for task in file_tasks(known, made)] == ["a 1", "b 2", "extra 1"]
    (known / "a.jsonl").write_text("x")
    first, *rest = file_tasks(known, made)
    with pytest.raises(InputError, match=r"a.jsonl:1: not JSON"):
        first.run(Told(uniform), None)
    assert len(rest) == 2


def test_a_public_suite_of_pairs_has_a_gap_and_a_users_has_what_is_there(real_data, tmp_path):
    folder = real_data / SUITES["supplement-fast"].path
    for path in sorted(folder.iterdir())[1:]:
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "turn_taking.jsonl.gz").write_bytes(gzip.compress(PAIR))
    tasks = SUITES["supplement-fast"].load().tasks(tmp_path, None)
    assert len(tasks) == 5
    lost = {}
    for task in tasks:
        try:
            task.run(Told(uniform), None)
        except InputError as error:
            lost[task.name] = str(error)
    assert sorted(lost) == ["hypernym", "turn_taking"]
    assert "missing" in lost["hypernym"]
    assert "changed" in lost["turn_taking"]
    own = pairs_suite("supplement-fast").tasks(tmp_path, None)
    assert [task.run(Told(uniform), None).rows[0].n for task in own] == [50, 50, 50, 1]


def test_broken_files(tmp_path):
    path = tmp_path / "x.jsonl.gz"
    path.write_bytes(gzip.compress(PAIR * 99)[:-9])
    with pytest.raises(InputError, match=r"x.jsonl.gz: cannot be read: "):
        read_text(path)
    with pytest.raises(InputError, match=r"cannot be read: .*No such file"):
        records(tmp_path / "none.jsonl")


def test_checksums_are_those_of_the_real_files(real_data):
    """Every file of every public set, as PROVENANCE.tsv has it from where it was published."""
    told = {}
    for line in (real_data / "PROVENANCE.tsv").read_text().splitlines()[1:]:
        file, _, sha256, *_ = line.split("\t")
        told[file.removesuffix(".gz")] = sha256
    for name in ("blimp", "blimp-full", "blimp-fast", "supplement", "supplement-fast", "bear", "bear-big", "entity"):
        folder = SUITES[name].path
        assert {file: told[f"{folder}/{file}.jsonl"] for file in checksums()[name]} == checksums()[name]
        assert len(checksums()[name]) == sum(file.startswith(folder + "/") and file.endswith(".jsonl") for file in told)
    assert checksums()["wug"] == {name: told[f"babylm_eval/{name}/{name}.jsonl"] for name in checksums()["wug"]}
    places = {"vocab.txt": "ewok/vocab.txt", "reading_data.csv": "babylm_eval/reading/reading_data.csv"}
    assert checksums()["files"] == {name: told[places.get(name, f"bear/{name}")] for name in checksums()["files"]}
    with zipfile.ZipFile(real_data / "ewok/ewok-core-1.0.items.zip") as archive:
        assert len(checksums()["ewok"]) * 5 == sum(name.endswith(".csv") for name in archive.namelist())
