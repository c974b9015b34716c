"""Mixtures: shares, budgets, cuts, shortages, copies and checksums; the same plan gives the same bytes; nothing half-built is left."""

import hashlib
import json
import random
from pathlib import Path

import pytest

from ritornello.data import mixture
from ritornello.data.corpus import read_corpus
from ritornello.data.drawing import beginning
from ritornello.data.mixture import Plan, build_mixture, read_plan
from ritornello.data.words import count
from ritornello.errors import InputError


@pytest.fixture
def data(tmp_path) -> Path:
    """Two sources: 60 transcripts of 100 words, and 8 books of 2,000, 10 words a line."""
    folder, rng = tmp_path / "data", random.Random(0)
    folder.mkdir()

    def lines(tag: str, count: int) -> str:
        return "\n".join(tag + " ".join(f"{tag[1:2]}{rng.randrange(10**6)}" for _ in range(9)) + " end." for _ in range(count))

    (folder / "talk.txt").write_text("\n\n".join(lines("*MOT:\t", 10) for _ in range(60)), encoding="utf-8")
    (folder / "books.txt").write_text("\n\n".join(lines("", 200) for _ in range(8)), encoding="utf-8")
    return folder


def build(data: Path, name: str = "out", **plan) -> tuple[dict, Path]:
    sources = {
        "talk": {"share": 3, "files": ("talk.txt",), "documents": "blank", "clean": ("speaker-tags",)},
        "books": {"share": 1, "files": ("books.txt",), "documents": "blank"},
    }
    for key, changes in plan.pop("change", {}).items():
        sources[key] |= changes
    say = plan.pop("say", None)
    made = Plan(words=plan.pop("words", 1000), sources={key: mixture.SourcePlan(**each) for key, each in sources.items()}, **plan)
    out = data.parent / name
    return build_mixture(made, out, [data / "none", data], cache=data.parent / "cache", say=say), out


def texts(path: Path) -> list[str]:
    return [json.loads(line)["text"] for line in path.read_text(encoding="utf-8").splitlines()]


def test_each_source_gives_its_share_in_whole_documents(data):
    manifest, out = build(data, words=1024)
    talk, books = manifest["sources"]["talk"], manifest["sources"]["books"]
    assert (talk["asked"], talk["words"], talk["documents"]) == (768, 760, 8)  # 7 whole ones, and 6 lines of the eighth
    assert (books["asked"], books["words"], books["documents"]) == (256, 250, 1)
    assert talk["cut"] == {"document": 8, "words": 100, "kept": 60}
    found = texts(out / "01-talk.jsonl")
    assert [count(text) for text in found] == [100] * 7 + [60]
    originals = (data / "talk.txt").read_text().replace("*MOT:\t", "").split("\n\n")
    assert all(text in originals for text in found[:-1])
    assert any(original.startswith(found[-1]) for original in originals)
    assert found != originals[:8]
    assert manifest["words"] == sum(count(text) for name in ("01-talk", "02-books") for text in texts(out / f"{name}.jsonl")) == 1010


def test_a_budget_that_whole_documents_fill_and_a_rest_that_no_line_fits(data):
    talk = build(data, "exact", words=800)[0]["sources"]["talk"]
    assert (talk["words"], talk["documents"], talk["cut"], talk["not_drawn"]) == (600, 6, None, {"documents": 54})
    manifest, out = build(data, "rest", words=806)
    talk = manifest["sources"]["talk"]
    assert (talk["words"], talk["documents"], talk["cut"]) == (600, 6, {"document": 7, "words": 100, "kept": 0})
    assert len(texts(out / "01-talk.jsonl")) == 6


def test_the_manifest_says_what_is_there(data):
    manifest, out = build(data)
    assert json.loads((out / "manifest.json").read_text()) == manifest
    for source, facts in manifest["sources"].items():
        content = (out / facts["file"]).read_bytes()
        assert facts["sha256"] == hashlib.sha256(content).hexdigest()
        assert facts["nbytes"] == len(content)
        assert facts["documents"] == len(content.splitlines())
        raw = data / f"{source}.txt"
        assert facts["from"] == {raw.name: {raw.name: hashlib.sha256(raw.read_bytes()).hexdigest()}}
    assert manifest["sources"]["talk"]["cleaned"]["speaker-tags"]["documents"] == 8
    assert manifest["sources"]["talk"]["cleaned"]["speaker-tags"]["characters"] == 8 * 10 * len("*MOT:\t")
    assert manifest["sources"]["talk"]["not_drawn"] == {"documents": 52}
    assert manifest["plan"]["sources"]["talk"]["share"] == 3


def test_a_run_reads_the_folder_documents_apart(data):
    manifest, out = build(data, words=4000)
    corpus = read_corpus(str(out), cache=data.parent / "cache")
    assert (corpus.documents, corpus.words, len(corpus.whole())) == ("record", manifest["words"], manifest["documents"])
    assert list(corpus.sources) == ["01-talk.jsonl", "02-books.jsonl"]  # not the manifest


def test_the_same_plan_gives_the_same_bytes_and_another_seed_others(data):
    def content(out: Path) -> dict[str, bytes]:
        return {file.name: file.read_bytes() for file in sorted(out.iterdir())}

    one, again, other = (content(build(data, name, seed=seed)[1]) for name, seed in (("a", 0), ("b", 0), ("c", 1)))
    assert one == again
    assert set(texts(data.parent / "a" / "01-talk.jsonl")) != set(texts(data.parent / "c" / "01-talk.jsonl"))
    assert one.keys() == other.keys()


def test_a_shortage_is_said_and_redistributed_only_if_asked(data):
    said: list[str] = []
    manifest, _ = build(data, "left", words=16_000, say=said.append)
    assert (manifest["sources"]["talk"]["words"], manifest["sources"]["books"]["words"]) == (6000, 4000)
    assert "talk: used up at 6,000 of the 12,000 words asked for; the corpus is so much shorter" in said
    manifest, _ = build(data, "rest", words=16_000, shortage="redistribute", say=said.append)
    assert (manifest["sources"]["talk"]["words"], manifest["sources"]["books"]["words"]) == (6000, 10_000)
    assert manifest["sources"]["talk"]["asked"] == 12_000
    assert "talk: used up at 6,000 of the 12,000 words asked for; the other sources give the rest" in said
    manifest, _ = build(data, "all", words=10**6, shortage="redistribute")
    assert manifest["words"] == 6000 + 16_000


def test_what_is_lacking_is_asked_of_the_others_by_their_shares(data):
    (data / "few.txt").write_text("one two three four five\n" * 20, encoding="utf-8")
    few, talk, books = (mixture.SourcePlan(files=(f"{name}.txt",), share=share) for name, share in (("few", 2), ("talk", 1), ("books", 3)))
    plan = Plan(words=1200, sources={"few": few, "talk": talk, "books": books}, shortage="redistribute")
    found = build_mixture(plan, data.parent / "out", [data], cache=data.parent / "cache")["sources"]
    assert [facts["words"] for facts in found.values()] == [100, 275, 820]  # of 400, 200 + 75 and 600 + 225; in lines of 11 and 10


def test_long_documents_are_parted_at_line_ends(data):
    _, out = build(data, words=16_000, change={"books": {"longest": 500, "share": 1e6}})
    found = texts(out / "02-books.jsonl")
    assert {count(text) for text in found[:-1]} == {500}
    whole = (data / "books.txt").read_text()
    assert all(text in whole for text in found)
    assert len(set(found)) == len(found) == 32
    (data / "talk.txt").write_text("a b c d e\n" * 120, encoding="utf-8")  # as many words as there can be in so many bytes
    _, out = build(data, "letters", words=16_000, change={"talk": {"longest": 500, "share": 1e6}})
    assert sorted(count(text) for text in texts(out / "01-talk.jsonl")) == [100, 500]


def test_copies_are_left_out_across_sources(data):
    talk = (data / "talk.txt").read_text().replace("*MOT:\t", "").split("\n\n")
    (data / "books.txt").write_text("\n\n".join(f"Well, {text.upper()} Yes." for text in talk), encoding="utf-8")
    manifest, _ = build(data, words=10_000, duplicates=0.9)
    talk, books = manifest["sources"]["talk"], manifest["sources"]["books"]
    assert (talk["documents"], talk["removed"]) == (60, {})
    assert books["documents"] == 0
    assert books["removed"] == {"near-duplicate": {"documents": 60, "words": 60 * 102}}
    assert build(data, "kept", words=10_000)[0]["sources"]["books"]["documents"] == 25


def test_documents_that_cleaning_empties_are_left_out(data):
    (data / "talk.txt").write_text("*MOT:\t\n\n" * 5 + "*MOT:\tyes .", encoding="utf-8")
    talk = build(data)[0]["sources"]["talk"]
    assert (talk["documents"], talk["removed"]) == (1, {"empty": {"documents": 5, "words": 0}})


def test_resampling_draws_what_resembles_the_target(data):
    (data / "target.txt").write_text("\n".join("k1 k2 k3 k4" for _ in range(50)), encoding="utf-8")
    (data / "talk.txt").write_text("\n\n".join(["m1 m2 m3 m4. " * 20] * 40 + ["k1 k2 k3 k4. " * 20] * 10), encoding="utf-8")
    _, out = build(data, words=800, resample=mixture.Resample(files=("target.txt",)))
    assert {text[:2] for text in texts(out / "01-talk.jsonl")} == {"k1"}


def test_a_beginning_ends_with_a_line_or_a_sentence():
    text = "One two. Three four five\nsix seven? Eight"
    assert [beginning(text, words) for words in (1, 2, 4, 5, 6, 7)] == [
        "", "One two.", "One two.", "One two. Three four five", "One two. Three four five", "One two. Three four five\nsix seven?"
    ]  # fmt: skip
    assert beginning("今天我们去公园看花。然后回家吃饭休息。", 4) == "今天我们去公园看花。"


def test_what_fails_leaves_nothing_behind(data, monkeypatch):
    def fail(*arguments):
        raise InputError("a source cannot be read")

    monkeypatch.setattr(mixture, "_manifest", fail)
    with pytest.raises(InputError, match="a source cannot be read"):
        build(data)
    assert sorted(path.name for path in data.parent.iterdir()) == ["cache", "data"]
    monkeypatch.undo()
    build(data)
    with pytest.raises(InputError, match=r"out exists; choose another --out"):
        build(data)


def test_a_plan_is_refused_in_one_line(tmp_path):
    def refused(toml: str, match: str) -> None:
        (tmp_path / "plan.toml").write_text(toml, encoding="utf-8")
        with pytest.raises(InputError, match=match):
            read_plan(tmp_path / "plan.toml")

    good = "words = 10\n[sources.a]\nshare = 1\nfiles = ['a.txt']\n"
    (tmp_path / "plan.toml").write_text(good, encoding="utf-8")
    plan = read_plan(tmp_path / "plan.toml", seed=5, words=None)
    assert (plan.words, plan.seed) == (10, 5)
    refused("words = 10", "missing sources")
    refused("words = 10\n[sources]", "sources: none")
    refused(good.replace("words = 10", "words = 0"), "words: 0 is less than 1")
    refused(good.replace("share = 1", "share = 0"), "sources.a.share: 0 is not a positive number")
    refused(good.replace("['a.txt']", "[]"), "sources.a.files: none")
    refused(good.replace("sources.a", "sources.'a/b'"), "sources.a/b: the name becomes a file's")
    refused(good + "clean = ['lower', 'lowr']", "sources.a.clean: unknown cleaning step 'lowr'. Did you mean 'lower'")
    refused(good + "longest = 0", "sources.a.longest: 0 is less than 1 word")
    refused(good + "shar = 2", "unknown field 'sources.a.shar'")
    with pytest.raises(InputError, match=r"a: no a.txt in .*one nor in .*two; give the data's folder with --data or RITORNELLO_DATA"):
        build_mixture(plan, tmp_path / "out", [tmp_path / "one", tmp_path / "two"])


def test_the_plans_of_the_recipes():
    shares = {}
    for path in sorted((Path(__file__).parents[2] / "recipes" / "data").glob("*.toml")):
        plan = read_plan(path)
        shares[path.stem] = [source.share for source in plan.sources.values()]
        assert all(source.clean == () or source.clean[-1] == "whitespace" for source in plan.sources.values())
    babylm = [29, 26, 20, 15, 8, 1]
    pile = [49.00, 30.79, 9.46, 2.61, 1.87, 1.43, 1.18, 3.65]
    whole = [29, 21, 11.5, 16.5, 12, 9]
    assert shares == {"babylm": babylm, "babymix": babylm, "babymix-all": whole, "babymix-dev": whole, "pile": pile}
