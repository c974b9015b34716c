"""What a corpus holds, counted by hand."""

import json

import pytest

from ritornello.data.mixture import Plan, SourcePlan, build_mixture
from ritornello.errors import InputError
from ritornello.experiments import inspection
from ritornello.experiments.inspection import inspect, table

DOCUMENTS = [
    "The cat sat on the mat, and then it slept.",
    "the Cat sat on the mat and then it slept",
    "Кошка спит.",
    "one two three four five six seven eight nine ten eleven twelve",
]


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.mark.parametrize("piece", [1 << 18, 16])
def test_a_corpus_by_hand(tmp_path, monkeypatch, piece):
    """In pieces of any size."""
    monkeypatch.setattr(inspection, "PIECE", piece)
    (tmp_path / "a.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in DOCUMENTS), encoding="utf-8")
    found = inspect(str(tmp_path / "a.jsonl"), tokenizer="bytes")
    size = sum(len(text.encode()) for text in DOCUMENTS)
    assert (found["words"], found["documents"], found["nbytes"], found["each_is_a"]) == (34, 4, size, "record")
    assert found["types"] == 9 + 2 + 12
    assert found["type_token"] == pytest.approx(23 / 34)
    assert found["hapax"] == pytest.approx(14 / 23)
    assert found["lengths"] == {"least": 2, "5 %": 2, "25 %": 2, "median": 10, "75 %": 10, "95 %": 12, "most": 12}
    assert found["characters"] == sum(map(len, DOCUMENTS))
    letters = sum(sign.isascii() and sign.isalpha() for text in DOCUMENTS for sign in text)
    assert found["scripts"]["Latin"] == pytest.approx(letters / found["characters"])
    assert found["scripts"]["Cyrillic"] == pytest.approx(9 / found["characters"])
    assert sum(found["scripts"].values()) == pytest.approx(1)
    assert found["copies"] == {
        "similarity": 0.8, "documents": 1, "words": 10, "most": [{"copies": 1, "begins": DOCUMENTS[0]}], "too_large": 0
    }  # fmt: skip
    assert found["tokenizer"] == {"name": "bytes", "size": 257, "tokens": size, "tokens_per_word": size / 34, "bytes_per_token": 1.0}
    shown = table(found)
    assert "34 words in 4 documents (each a record)" in shown
    assert "1 of: The cat sat" in shown
    assert "a.jsonl" in shown


def test_a_built_corpus_tells_its_sources_and_a_changed_one_is_noticed(tmp_path):
    (tmp_path / "x.txt").write_text("\n".join(DOCUMENTS), encoding="utf-8")
    plan = Plan(words=20, sources={"mine": SourcePlan(files=("x.txt",), share=1, documents="line", licence="free")})
    build_mixture(plan, tmp_path / "out", [tmp_path])
    (source,) = inspect(str(tmp_path / "out"))["sources"]
    assert (source["file"], source["source"], source["licence"]) == ("01-mine.jsonl", "mine", "free")
    assert source["words"] == inspect(str(tmp_path / "out"))["words"]
    with open(tmp_path / "out" / "01-mine.jsonl", "a", encoding="utf-8") as file:
        file.write(json.dumps({"text": "more"}) + "\n")
    with pytest.raises(InputError, match=r"01-mine\.jsonl: changed since .*manifest\.json was written; build the corpus again"):
        inspect(str(tmp_path / "out"))
    (tmp_path / "out" / "manifest.json").write_text('{"sources": [1]}', encoding="utf-8")
    with pytest.raises(InputError, match="not a manifest of `ritornello data build`"):
        inspect(str(tmp_path / "out"))


def test_words_by_file(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.txt").write_text("\ufeffone two\r\n\r\nthree é\n\n", encoding="utf-8")
    (tmp_path / "in" / "b.jsonl").write_text('{"text": "four five six"}\n{"text": ""}\n{"text": "seven"}\n', encoding="utf-8")
    (tmp_path / "in" / "c.txt").write_text("", encoding="utf-8")
    (tmp_path / "in" / "d.txt").write_text("eight", encoding="utf-8")
    found = inspect(str(tmp_path / "in"), documents="blank")["sources"]
    assert [(each["file"], each["words"], each["documents"]) for each in found] == [
        ("a.txt", 4, 2), ("b.jsonl", 4, 2), ("c.txt", 0, 0), ("d.txt", 1, 1)
    ]  # fmt: skip


def test_of_many_files_the_table_shows_some(tmp_path):
    (tmp_path / "in").mkdir()
    for number in range(33):
        (tmp_path / "in" / f"{number:02}.txt").write_text(f"text {number}", encoding="utf-8")
    shown = table(inspect(str(tmp_path / "in")))
    assert "29.txt" in shown
    assert "30.txt" not in shown
    assert shown.endswith("and 3 more files; --json lists them all")


def test_what_a_document_is_can_be_said(tmp_path):
    (tmp_path / "x.txt").write_text("\n".join(DOCUMENTS), encoding="utf-8")
    assert inspect(str(tmp_path / "x.txt"))["documents"] == 1
    assert inspect(str(tmp_path / "x.txt"), documents="line")["documents"] == 4
