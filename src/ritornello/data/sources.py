"""From whatever a user calls a corpus to parts of text: files, folders, globs, standard input, archives.

A part is a file of text, a member of an archive, or a row of a table. Its text comes in bounded pieces, so a line of
500 MB takes no more memory than a short one; a row of a table is held whole. Archives are read as streams and never unpacked.
"""

import bz2
import codecs
import csv
import glob
import gzip
import hashlib
import io
import json
import lzma
import os
import sys
import tarfile
import zlib
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path, PurePosixPath
from typing import BinaryIO, NamedTuple, Self, cast

import zstandard

from ritornello.errors import InputError

PIECE = 1 << 20  # bytes read at a time
MANIFEST = "manifest.json"  # says how a folder of text came about, and is none itself
COMPRESSED = (".gz", ".xz", ".zst", ".bz2")
SHORT = {".tgz": ".tar.gz", ".txz": ".tar.xz", ".tbz2": ".tar.bz2", ".tzst": ".tar.zst"}
ORDINARY = frozenset(b"\t\n\v\f\r\b\x1b")  # control characters that text may hold
DAMAGE = (EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile, tarfile.TarError, zstandard.ZstdError)


@dataclass(frozen=True)
class Source:
    """A raw file: its name within the corpus, and where it lies."""

    name: str
    path: Path

    def sha256(self) -> str:
        """Of the raw bytes. Raises InputError if they cannot be read."""
        try:
            with open(self.path, "rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise unreadable(self.path, error) from error


class Part(NamedTuple):
    """A stretch of text that may be one document. Use up `pieces` before asking for the next part."""

    name: str  # "folder/file.txt", "a.tar/b.jsonl:12"
    row: bool  # from a table, not a file of text
    pieces: Iterator[str]


class Format(NamedTuple):
    """How raw bytes are to be read: the encoding of text, the column of tables."""

    encoding: str = "utf-8"
    column: str = "text"


def find(spec: str, spool: Path) -> list[Source]:
    """The raw files behind a path, a folder (all below it, hidden ones and its manifest.json left out), a glob, or "-"; sorted by name.

    What can be read only once (standard input, a pipe) is first written to the folder `spool`.
    Raises InputError if nothing is there.
    """
    if spec == "-":
        return [_spooled("stdin", sys.stdin.buffer, spool)]
    path = Path(spec)
    try:
        if path.is_fifo():
            with open(path, "rb") as file:
                return [_spooled(path.name, file, spool)]
        if path.is_dir():
            base, files = path, [file for file in _below(path) if file != path / MANIFEST]
        elif path.exists():
            base, files = path.parent, [path]
        elif glob.has_magic(spec):
            base, files = _glob(spec)
        else:
            raise _missing(path)
    except OSError as error:
        raise unreadable(path, error) from error
    sources = [Source(file.relative_to(base).as_posix(), file) for file in files if file.is_file()]
    if not sources:
        raise InputError(f"{spec}: no file to read; expected text, .jsonl, .csv or .tsv, or a .tar of them")
    return sorted(sources, key=lambda source: source.name)


def parts(source: Source, form: Format) -> Generator[Part, None, None]:
    """Every part of a raw file, in its order. Raises InputError, one line, for anything that is not clean text."""
    _check_encoding(form.encoding)
    try:
        with open(source.path, "rb") as file:
            yield from _parts(file, source.name, source.name, form)
    except OSError as error:
        raise unreadable(source.path, error) from error


def stem(name: str) -> str:
    """A file's name without the suffixes that say how to read it."""
    path = PurePosixPath(_spelt(name))
    while path.suffix.lower() in (*COMPRESSED, ".txt", ".jsonl", ".csv", ".tsv", ".tar"):
        path = path.with_suffix("")
    return path.name


def unreadable(path: Path | str, error: OSError) -> InputError:
    """The line for a file the system will not give."""
    return InputError(f"{path}: cannot be read: {error.strerror or error}")


def _below(folder: Path) -> list[Path]:
    found = []
    for here, folders, files in os.walk(folder, onerror=_raise):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [Path(here, name) for name in files if not name.startswith(".")]
    return found


def _raise(error: OSError) -> None:
    raise error


def _glob(spec: str) -> tuple[Path, list[Path]]:
    fixed = []
    for word in Path(spec).parts:
        if glob.has_magic(word):
            break
        fixed.append(word)
    files: dict[Path, None] = {}
    for match in map(Path, glob.iglob(spec, recursive=True)):
        files.update(dict.fromkeys(_below(match) if match.is_dir() else [match]))
    return Path(*fixed), list(files)


def _missing(path: Path) -> InputError:
    if not path.parent.is_dir():
        return InputError(f"{path}: no such file, nor the folder {path.parent}")
    near = get_close_matches(path.name, os.listdir(path.parent), n=1, cutoff=0.5)
    return InputError(f"{path}: no such file." + (f" Did you mean {str(path.parent / near[0])!r}?" if near else ""))


def _spooled(name: str, stream: BinaryIO, spool: Path) -> Source:
    path = spool / "raw"
    with open(path, "wb") as file:
        while block := stream.read(PIECE):
            file.write(block)
    return Source(name, path)


def _check_encoding(encoding: str) -> None:
    try:
        "".encode(encoding)
    except LookupError as error:
        raise InputError(
            f"unknown encoding {encoding!r}; use a name that Python knows, such as utf-8, latin-1, cp1252 or utf-16"
        ) from error


def _parts(stream: BinaryIO, name: str, label: str, form: Format) -> Iterator[Part]:
    """`name` says how to read the stream; `label` is what messages call it."""
    name = _spelt(name)
    kind = PurePosixPath(name).suffix.lower()
    if kind in COMPRESSED:
        yield from _parts(_decompress(stream, kind), name[: -len(kind)], label, form)
    elif kind == ".tar":
        yield from _members(stream, label, form)
    elif kind == ".jsonl":
        yield from _json_rows(_lines(_text(stream, label, form)), label, form.column)
    elif kind in (".csv", ".tsv"):
        yield from _table_rows(_lines(_text(stream, label, form)), label, form.column, kind)
    else:
        yield Part(label, False, _text(stream, label, form))


def _spelt(name: str) -> str:
    suffix = PurePosixPath(name).suffix
    return name.removesuffix(suffix) + SHORT.get(suffix.lower(), suffix)


def _decompress(stream: BinaryIO, kind: str) -> BinaryIO:
    if kind == ".gz":
        return cast(BinaryIO, gzip.GzipFile(fileobj=stream))
    if kind == ".xz":
        return cast(BinaryIO, lzma.LZMAFile(stream))
    if kind == ".bz2":
        return cast(BinaryIO, bz2.BZ2File(stream))
    return cast(BinaryIO, io.BufferedReader(_Zstd(stream), PIECE))


class _Zstd(io.RawIOBase):
    """Reads all frames, and notices a missing end, which zstandard's own reader passes over."""

    STEP = 256  # compressed bytes at a time: four of them can stand for 128 KiB

    def __init__(self, stream: BinaryIO):
        self.stream = stream
        self.frame: zstandard.ZstdDecompressionObj | None = None
        self.raw = self.out = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer) -> int:
        while not self.out:
            self.raw = self.raw or self.stream.read(self.STEP)
            if not self.raw:
                if self.frame is not None:
                    raise EOFError("the last frame has no end")
                return 0
            frame = self.frame or zstandard.ZstdDecompressor().decompressobj()
            self.out = frame.decompress(self.raw)
            self.frame, self.raw = (None, frame.unused_data) if frame.eof else (frame, b"")
        count = min(len(buffer), len(self.out))
        buffer[:count], self.out = self.out[:count], self.out[count:]
        return count


class _Header(tarfile.TarInfo):
    """A header that complains: TarFile takes a broken or missing one after the first for the archive's end."""

    @classmethod
    def fromtarfile(cls, archive: tarfile.TarFile) -> Self:
        try:
            return super().fromtarfile(archive)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]
            raise
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(str(error)) from error


def _members(stream: BinaryIO, label: str, form: Format) -> Iterator[Part]:
    """The regular files of a tar stream. Links and devices are passed over; nothing touches the disk."""
    with _damage(label), tarfile.open(fileobj=stream, mode="r|", tarinfo=_Header) as archive:
        for member in archive:
            archive.members = []  # type: ignore[attr-defined]  # else it remembers every header
            hidden = any(word.startswith(".") for word in PurePosixPath(member.name).parts)
            content = archive.extractfile(member) if member.isreg() and not hidden else None
            if content is not None:
                yield from _parts(cast(BinaryIO, content), member.name, f"{label}/{member.name}", form)
        while stream.read(PIECE):
            pass  # a compressed archive's own checksum comes last


class _damage:
    """Turns every way in which a stream can break into one line."""

    def __init__(self, label: str):
        self.label = label

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, OSError) and error.errno is not None:
            raise unreadable(self.label, error) from error
        if isinstance(error, (*DAMAGE, OSError)):
            raise InputError(f"{self.label}: damaged or cut short ({error}); get it again") from error


def _text(stream: BinaryIO, label: str, form: Format) -> Iterator[str]:
    """Decoded pieces with newlines as "\\n" and no byte order mark. Raises InputError if this is not text."""
    decoder = codecs.getincrementaldecoder(form.encoding)()
    newlines = io.IncrementalNewlineDecoder(None, translate=True)
    offset, begun, final = 0, False, False
    while not final:
        with _damage(label):
            block = stream.read(PIECE)
        final = not block
        if offset == 0:
            _check_text(block, label, form.encoding)
        pending = len(decoder.getstate()[0])
        try:
            text = decoder.decode(block, final)
        except UnicodeError as error:
            start = offset - pending + getattr(error, "start", 0)
            byte = f"byte 0x{error.object[error.start]:02X} at offset {start}" if isinstance(error, UnicodeDecodeError) else str(error)
            raise InputError(f"{label}: not {form.encoding} text: {byte}; say what it is with --encoding, such as latin-1") from error
        if "\0" in text:
            raise InputError(f"{label}: binary, not text: a NUL between byte {offset} and {offset + len(block)}")
        text = newlines.decode(text if begun else text.removeprefix("\ufeff"), final)
        offset += len(block)
        begun = begun or bool(text)
        if text:
            yield text


def _check_text(block: bytes, label: str, encoding: str) -> None:
    wide = codecs.lookup(encoding).name.startswith(("utf-16", "utf-32"))
    if not wide and block.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise InputError(f"{label}: not {encoding} text: it begins with the mark of UTF-16; try --encoding utf-16")
    head = block[:65536]
    odd = sum(head.count(byte) for byte in range(32) if byte not in ORDINARY)
    if not wide and (b"\0" in block or odd > len(head) * 0.3):
        raise InputError(
            f"{label}: binary, not text; expected text, .jsonl, .csv or .tsv, each plain or {', '.join(COMPRESSED)}, or a .tar of them"
        )


def _lines(pieces: Iterator[str]) -> Iterator[str]:
    """Lines with their newline; only "\\n" ends one."""
    rest: list[str] = []
    for piece in pieces:
        *whole, last = piece.split("\n")
        for line in whole:
            yield "".join((*rest, line, "\n"))
            rest = []
        if last:
            rest.append(last)
    if rest:
        yield "".join(rest)


def _json_rows(lines: Iterator[str], label: str, column: str) -> Iterator[Part]:
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        where = f"{label}:{number}"
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise InputError(f"{where}: malformed JSON: {error or 'nested too deeply'}") from error
        if not isinstance(record, dict):
            raise InputError(f"{where}: expected a JSON object with the field {column!r}, found {type(record).__name__}")
        if column not in record:
            raise _no_column(where, column, list(record))
        if not isinstance(record[column], str):
            raise InputError(f"{where}: field {column!r} should be a string, found {type(record[column]).__name__}")
        yield Part(where, True, iter([_unix(record[column])]))


def _table_rows(lines: Iterator[str], label: str, column: str, kind: str) -> Iterator[Part]:
    """Rows of CSV (quoted as in RFC 4180) or TSV (never quoted); the first one names the columns."""
    csv.field_size_limit(2**31 - 1)  # the module's limit of 128 KiB a field is one for the whole process
    if kind == ".tsv":
        reader = csv.reader(lines, delimiter="\t", quoting=csv.QUOTE_NONE)
    else:
        reader = csv.reader(lines, strict=True)
    index = None
    try:
        for row in reader:
            where = f"{label}:{reader.line_num}"
            if not row:
                continue
            if index is None:
                if column not in row:
                    raise _no_column(where, column, row)
                index = row.index(column)
            elif len(row) <= index:
                raise InputError(f"{where}: a row of {len(row)} fields; column {column!r} is number {index + 1}")
            else:
                yield Part(where, True, iter([row[index]]))
    except csv.Error as error:
        raise InputError(f"{label}:{reader.line_num}: malformed {kind}: {error}") from error


def _no_column(where: str, column: str, found: list[str]) -> InputError:
    names = ", ".join(repr(name) for name in found[:20]) or "none"
    return InputError(f"{where}: no column {column!r}; found {names}; choose one with --column")


def _unix(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n")
