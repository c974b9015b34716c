"""Fetching against stand-ins on this disk: rows to files, manifests, and one line for all that can go wrong."""

import hashlib
import json
import socket

import pytest

from ritornello.data import fetch as module
from ritornello.data.corpus import read_corpus
from ritornello.data.fetch import CORPORA, Public, fetch
from ritornello.errors import InputError

datasets = pytest.importorskip("datasets", reason="the extra data is not installed")
pytestmark = pytest.mark.filterwarnings("ignore")  # the library's own


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hub")


@pytest.fixture
def rows(tmp_path):
    folder = tmp_path / "stand-in"
    folder.mkdir()
    found = [{"text": f"Text {number}.\n\nMore é.", "meta": {"set": "a/b" if number % 3 else "c"}} for number in range(9)]
    (folder / "train.jsonl").write_text("\n".join(map(json.dumps, found)), encoding="utf-8")
    return folder


def test_a_corpus_of_several_files_whose_rows_are_lines(tmp_path, monkeypatch):
    folder = tmp_path / "repository"
    folder.mkdir()
    contents = {"childes": "*MOT:\tone .\n\n*MOT:\ttwo two .\n", "switchboard": "A:\tYes.\n"}
    for name, content in contents.items():
        (folder / f"{name}.train.txt").write_text(content, encoding="utf-8")
    files = {name: f"{name}.train.txt" for name in contents}
    monkeypatch.setitem(CORPORA, "babylm-2026-10m", Public(str(folder), files))
    said: list[str] = []
    manifest = fetch("babylm-2026-10m", tmp_path / "out", say=said.append)
    assert {name: (tmp_path / "out" / f"{name}.txt").read_text() for name in contents} == contents
    assert json.loads((tmp_path / "out" / "manifest.json").read_text()) == manifest
    childes = manifest["sources"]["childes"]
    assert (childes["rows"], childes["words"], childes["nbytes"]) == (3, 7, len(contents["childes"]))
    assert childes["sha256"] == hashlib.sha256(contents["childes"].encode()).hexdigest()
    assert "CHILDES" in childes["licence"]
    assert manifest["from"] == {"name": "babylm-2026-10m", "repository": "repository", "revision": None}
    assert list(read_corpus(str(tmp_path / "out"), cache=tmp_path / "cache").sources) == ["childes.txt", "switchboard.txt"]


def test_rows_that_are_documents_stay_apart(rows, tmp_path):
    manifest = fetch(str(rows), tmp_path / "out")
    lines = (tmp_path / "out" / "stand-in.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line) for line in lines] == [{"text": f"Text {number}.\n\nMore é."} for number in range(9)]
    assert manifest["sources"]["stand-in"]["words"] == 36


def test_a_file_for_each_value_of_a_column(rows, tmp_path):
    manifest = fetch(str(rows), tmp_path / "out", by="meta.set")
    assert {name: (each["file"], each["rows"]) for name, each in manifest["sources"].items()} == {
        "a/b": ("a-b.jsonl", 6),
        "c": ("c.jsonl", 3),
    }


def test_parquet(tmp_path):
    (tmp_path / "stand-in").mkdir()
    datasets.Dataset.from_dict({"text": ["one", "two"]}).to_parquet(tmp_path / "stand-in" / "train.parquet")
    assert fetch(str(tmp_path / "stand-in"), tmp_path / "out")["sources"]["stand-in"]["rows"] == 2


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"column": "txt"}, r"no column 'txt'; found 'text', 'meta'; choose one with --column"),
        ({"column": "meta"}, r"column 'meta' should hold text, found dict"),
        ({"by": "meta.sort"}, r"no column 'meta\.sort'; found 'set'"),
        ({"split": "dev"}, r"cannot be fetched: Bad split: dev\. Available splits: \['train'\]"),
    ],
)
def test_what_cannot_be_had_is_one_line_and_leaves_nothing(rows, tmp_path, options, match):
    with pytest.raises(InputError, match=match) as refused:
        fetch(str(rows), tmp_path / "out", **options)
    assert "\n" not in str(refused.value)
    assert {path.name for path in tmp_path.iterdir()} <= {"stand-in", "hub"}


def test_too_many_sources(rows, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "MOST_FILES", 2)
    with pytest.raises(InputError, match="--by text: more than 2 different values"):
        fetch(str(rows), tmp_path / "out", by="text")


def test_two_sources_of_one_file_name(rows, tmp_path):
    found = [{"text": "one", "set": "a/b"}, {"text": "two", "set": "a b"}]
    (rows / "train.jsonl").write_text("\n".join(map(json.dumps, found)), encoding="utf-8")
    with pytest.raises(InputError, match=r"--by set: 'a b' and another value would both be a-b\.jsonl"):
        fetch(str(rows), tmp_path / "out", by="set")


def test_a_damaged_file_is_one_line(rows, tmp_path):
    (rows / "train.jsonl").write_text('{"text": "one"}\n{"text": \n', encoding="utf-8")
    with pytest.raises(InputError, match="cannot be fetched: ") as refused:
        fetch(str(rows), tmp_path / "out")
    assert "\n" not in str(refused.value)


def test_without_a_network_it_says_so_at_once(tmp_path, monkeypatch):
    def none(*arguments, **options):
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", none)
    with pytest.raises(InputError, match=r"babylm-2026-10m: cannot be fetched: the Hugging Face hub does not answer"):
        fetch("babylm-2026-10m", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_unknown_name_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"no corpus 'babylm-2026-10k'\. Did you mean 'babylm-2026-10m'\? Known: babylm-2026-10m, "):
        fetch("babylm-2026-10k", tmp_path / "out")


def test_without_the_library_the_extra_is_named(rows, tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "datasets", None)
    with pytest.raises(InputError, match=r"pip install 'ritornello\[data\]'"):
        fetch(str(rows), tmp_path / "out")
