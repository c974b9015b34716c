"""Every format, plain and packed, gives the same text; everything else gives one line that says what is wrong."""

import bz2
import gzip
import io
import json
import lzma
import os
import sys
import tarfile
import tracemalloc
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from ritornello.data import sources
from ritornello.data.sources import Format, Source, find, parts, stem
from ritornello.errors import InputError

PACK = {"": bytes, ".gz": gzip.compress, ".xz": lzma.compress, ".bz2": bz2.compress, ".zst": zstandard.compress}


def tar(*members: tuple[str, bytes], link: bool = False) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
        if link:
            info = tarfile.TarInfo("link.txt")
            info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
            archive.addfile(info)
    return out.getvalue()


def read(path: Path, **form: str) -> list[tuple[str, bool, str]]:
    with closing(parts(Source(path.name, path), Format(**form))) as found:
        return [(part.name, part.row, "".join(part.pieces)) for part in found]


def wrong(path: Path, content: bytes, **form: str) -> str:
    path.write_bytes(content)
    with pytest.raises(InputError) as caught:
        read(path, **form)
    assert "\n" not in str(caught.value)
    assert path.name in str(caught.value)
    return str(caught.value)


CASES = {
    "a.txt": ("ä 1\r\nb\rc\n".encode(), [("", False, "ä 1\nb\nc\n")]),
    "a.unknown": (b"x\n", [("", False, "x\n")]),
    "mark.txt": (b"\xef\xbb\xbfx\xef\xbb\xbf", [("", False, "x\ufeff")]),
    "a.jsonl": (b'{"text": "a\\r\\nb\\u2028"}\n\n{"x": 1, "text": ""}', [(":1", True, "a\nb\u2028"), (":3", True, "")]),
    "a.csv": (b'x,text\n1,"a, ""b""\r\nc"\n\n2,d\n', [(":3", True, 'a, "b"\nc'), (":5", True, "d")]),
    "a.tsv": (b'text\tx\n"a\t1\n', [(":2", True, '"a')]),
    "a.tar": (
        tar(("d/x.txt", b"one"), (".hidden", b"no"), ("y.jsonl.gz", gzip.compress(b'{"text": "two"}')), link=True),
        [("/d/x.txt", False, "one"), ("/y.jsonl.gz:1", True, "two")],
    ),
}


@pytest.mark.parametrize("packed", PACK)
@pytest.mark.parametrize("name", CASES)
def test_every_format_plain_and_packed(tmp_path, name, packed):
    content, expected = CASES[name]
    path = tmp_path / (name + packed)
    path.write_bytes(PACK[packed](content))
    assert read(path) == [(path.name + where, row, text) for where, row, text in expected]


def test_short_spelling_of_packed_archives(tmp_path):
    (tmp_path / "a.tgz").write_bytes(gzip.compress(tar(("x.txt", b"one"))))
    assert read(tmp_path / "a.tgz") == [("a.tgz/x.txt", False, "one")]


def test_several_frames_of_zstandard_follow_each_other(tmp_path):
    (tmp_path / "a.zst").write_bytes(zstandard.compress(b"one ") + zstandard.compress(b"two"))
    assert read(tmp_path / "a.zst") == [("a.zst", False, "one two")]


@given(text=st.text("a\r\n\u00e9\u20ac\U0001f600"), size=st.integers(1, 7))
def test_pieces_join_to_the_text_wherever_they_are_cut(tmp_path_factory, text, size):
    path = tmp_path_factory.mktemp("cut") / "a.txt"
    path.write_bytes(text.encode())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sources, "PIECE", size)
        got = "".join(piece for part in parts(Source("a.txt", path), Format()) for piece in part.pieces)
    assert got == text.replace("\r\n", "\n").replace("\r", "\n")


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16", "utf-16-le", "utf-32", "cp1252"])
def test_other_encodings(tmp_path, encoding):
    (tmp_path / "a.txt").write_bytes("dé\r\nà".encode(encoding))
    assert read(tmp_path / "a.txt", encoding=encoding)[0][2] == "dé\nà"


@pytest.mark.parametrize("packed", [name for name in PACK if name])
@pytest.mark.parametrize("name", ["a.txt", "a.jsonl", "a.tar"])
@pytest.mark.parametrize("keep", [0.3, 0.9, -1])
def test_truncated(tmp_path, name, packed, keep):
    content = PACK[packed](CASES[name][0])
    cut = content[: int(len(content) * keep)] if keep > 0 else content[:-1]
    assert "damaged or cut short" in wrong(tmp_path / (name + packed), cut)


def test_archive_cut_between_or_within_members(tmp_path):
    whole = tar(("x.txt", b"x" * 512), ("y.txt", b"y" * 512))
    for cut in (1024, 1030, 1536, 2048):
        assert "damaged or cut short" in wrong(tmp_path / "a.tar", whole[:cut])


def test_archive_with_a_broken_second_header(tmp_path):
    whole = bytearray(tar(("x.txt", b"x" * 512), ("y.txt", b"y" * 512)))
    whole[1024 + 10] ^= 1
    assert "damaged or cut short" in wrong(tmp_path / "a.tar", bytes(whole))


def test_archive_whose_checksum_is_wrong_after_its_end(tmp_path):
    packed = bytearray(gzip.compress(tar(("x.txt", b"x"))))
    packed[-8] ^= 1
    assert "damaged or cut short" in wrong(tmp_path / "a.tar.gz", bytes(packed))


ERRORS = [
    ("a.txt", b"abc\0def", {}, "binary, not text"),
    ("a.txt", b"x" * sources.PIECE + b"\0", {}, f"binary, not text: a NUL between byte {sources.PIECE} and {sources.PIECE + 1}"),
    ("a.txt", bytes(range(1, 32)) * 9, {}, "binary, not text"),
    ("a.png", b"\x89PNG\r\n\x1a\n\0\0", {}, "binary, not text"),
    ("a.txt", "hé".encode("latin-1"), {}, "not utf-8 text: byte 0xE9 at offset 1; say what it is with --encoding"),
    ("a.txt", b"x" * (sources.PIECE - 1) + b"\xe2\x82y", {}, f"byte 0xE2 at offset {sources.PIECE - 1}"),
    ("a.txt", b"abc\xe2\x82", {}, "byte 0xE2 at offset 3"),
    ("a.txt", "hé".encode("utf-16"), {}, "try --encoding utf-16"),
    ("a.txt", b"h\x81", {"encoding": "cp1252"}, "not cp1252 text: byte 0x81 at offset 1"),
    ("a.jsonl", b'{"text": "a"}\n{"text": oops}\n', {}, "a.jsonl:2: malformed JSON"),
    ("a.jsonl", b"[" * 100_000, {}, "a.jsonl:1: malformed JSON"),
    ("a.jsonl", b'["a"]\n', {}, "expected a JSON object with the field 'text', found list"),
    ("a.jsonl", b'{"body": "a", "id": 1}\n', {}, "no column 'text'; found 'body', 'id'; choose one with --column"),
    ("a.jsonl", b'{"text": 3}\n', {}, "should be a string, found int"),
    ("a.csv", b"id,body\n1,a\n", {}, "no column 'text'; found 'id', 'body'; choose one with --column"),
    ("a.csv", b"id,text\n1,a\n2\n", {}, "a.csv:3: a row of 1 fields; column 'text' is number 2"),
    ("a.csv", b'text\n"a\n', {}, "malformed .csv"),
]


@pytest.mark.parametrize(("name", "content", "form", "message"), ERRORS)
def test_bad_content_is_one_clear_line(tmp_path, name, content, form, message):
    assert message in wrong(tmp_path / name, content, **form)


def test_unknown_encoding(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"a")
    for encoding in ("utf-9", "hex"):
        with pytest.raises(InputError, match=f"unknown encoding '{encoding}'"):
            read(tmp_path / "a.txt", encoding=encoding)


def test_a_field_may_be_longer_than_the_csv_modules_limit(tmp_path):
    (tmp_path / "a.csv").write_text("text\n" + "x" * 200_000)
    assert len(read(tmp_path / "a.csv")[0][2]) == 200_000


def names(spec: Path | str, spool: Path) -> list[str]:
    return [source.name for source in find(str(spec), spool)]


@pytest.fixture
def tree(tmp_path):
    for name in ("b.txt", "a/z.txt", "a/c.jsonl", ".git/x.txt", ".hidden.txt", "a/.DS_Store"):
        (tmp_path / "tree" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "tree" / name).write_text("x")
    return tmp_path / "tree"


def test_find(tree, tmp_path, monkeypatch):
    assert names(tree, tmp_path) == ["a/c.jsonl", "a/z.txt", "b.txt"]
    assert names(tree / "b.txt", tmp_path) == ["b.txt"]
    assert names(tree / "*.txt", tmp_path) == ["b.txt"]
    assert names(tree / "**" / "*.txt", tmp_path) == ["a/z.txt", "b.txt"]
    assert names(tree / "*", tmp_path) == ["a/c.jsonl", "a/z.txt", "b.txt"]
    (tree / "[x].txt").write_text("a file that looks like a glob")
    assert names(tree / "[x].txt", tmp_path) == ["[x].txt"]
    monkeypatch.chdir(tree)
    assert names("*/*.txt", tmp_path) == ["a/z.txt"]
    assert names("b.txt", tmp_path) == ["b.txt"]


def test_standard_input_is_kept_for_a_second_reading(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(b"hello")))
    (source,) = find("-", tmp_path)
    assert source.name == "stdin"
    assert [text for *_, text in read(source.path)] == ["hello"]


def test_a_pipe_is_kept_too(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    if os.fork() == 0:
        (tmp_path / "pipe").write_bytes(b"hello")
        os._exit(0)
    (source,) = find(str(tmp_path / "pipe"), tmp_path)
    os.wait()
    assert (source.name, source.path.read_bytes()) == ("pipe", b"hello")


def test_nothing_there(tree, tmp_path):
    (tmp_path / "void").mkdir()
    for spec, message in [
        (tree / "a" / "z.tx", "no such file. Did you mean"),
        (tree / "nowhere" / "z.txt", "no such file, nor the folder"),
        (tree / "*.csv", "no file to read"),
        (tmp_path / "void", "no file to read"),
        ("/dev/null", "no file to read"),
    ]:
        with pytest.raises(InputError, match=message):
            find(str(spec), tmp_path)


@pytest.mark.skipif(not os.path.exists("/proc/self/mem"), reason="needs a file that exists and cannot be read: /proc/self/mem")
def test_unreadable():
    source = Source("mem", Path("/proc/self/mem"))
    for reading in (source.sha256, lambda: read(source.path)):
        with pytest.raises(InputError, match="cannot be read: Input/output error"):
            reading()


def test_stem():
    assert [stem(name) for name in ("a.txt.gz", "b.tgz", "c.train.xz", "d")] == ["a", "b", "c.train", "d"]


@pytest.mark.parametrize("packed", ["", ".zst", ".gz"])
def test_one_long_line_takes_little_memory(tmp_path, packed):
    path = tmp_path / f"a.txt{packed}"
    path.write_bytes(PACK[packed](b"word " * 6_000_000))
    tracemalloc.start()
    try:
        total = sum(len(piece) for part in parts(Source(path.name, path), Format()) for piece in part.pieces)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert total == 30_000_000
    assert peak < 12e6


def test_many_rows_without_line_breaks_between_pieces(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "PIECE", 5)
    rows = [{"text": "ab" * n} for n in range(20)]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert [text for *_, text in read(tmp_path / "a.jsonl")] == [row["text"] for row in rows]
