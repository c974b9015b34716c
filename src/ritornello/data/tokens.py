"""A corpus as token ids on disk: encoded once for each tokenizer, then memory-mapped."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ritornello.data.cache import new_folder
from ritornello.data.corpus import Corpus, Split
from ritornello.data.tokenizers import Tokenizer
from ritornello.errors import InputError

FORMAT = 1  # of the cache folder
GROUP = 1 << 20  # characters encoded at a time
TEXTS = 1 << 14  # texts encoded at a time, at most


class Tokens(NamedTuple):
    """Documents one after another, without special tokens: document i is ids[ends[i - 1] : ends[i]]."""

    ids: np.ndarray  # (N,) uint16 or uint32
    ends: np.ndarray  # (documents,) int64


def encode_corpus(corpus: Corpus, split: Split, tokenizer: Tokenizer, progress: Callable[[str], None] | None = None) -> Tokens:
    """A split's documents as tokens, from the cache beside the corpus where it has them. Memory does not grow with the text.

    Raises InputError if no tokens come out.
    """
    folder = corpus.folder / f"tokens{FORMAT}-{tokenizer.sha256[:32]}-{split}"
    dtype = np.dtype("<u2" if tokenizer.size <= 1 << 16 else "<u4")
    if not folder.exists():
        if progress is not None:
            progress(f"encoding the {split.replace('_', '-')} text of {corpus.name}")
        with new_folder(folder) as fresh:
            _write(fresh, corpus, split, tokenizer, dtype)
    if not (folder / "ids").stat().st_size:
        raise InputError(f"{corpus.name}: the tokenizer makes no tokens of its {split.replace('_', '-')} text; use another, such as bytes")
    return Tokens(np.memmap(folder / "ids", dtype, "r"), np.memmap(folder / "ends", "<i8", "r"))


def _write(folder: Path, corpus: Corpus, split: Split, tokenizer: Tokenizer, dtype: np.dtype) -> None:
    total, last = 0, 0  # tokens so far, the document they end in
    with open(folder / "ids", "wb") as ids, open(folder / "ends", "wb") as ends:
        for rows, texts in _groups(corpus.pieces(split)):
            found = tokenizer.encode_many(texts)
            for tokens in found:
                ids.write(tokens.astype(dtype).tobytes())
            before = total + np.cumsum([0, *map(len, found)])
            begins = np.flatnonzero(np.diff(rows, prepend=last))  # a document that begins ends the one before
            ends.write(before[begins].astype("<i8").tobytes())
            total, last = int(before[-1]), rows[-1]
        ends.write(np.array([total], "<i8").tobytes())


def _groups(pieces: Iterator[tuple[int, str]]) -> Iterator[tuple[list[int], list[str]]]:
    rows: list[int] = []
    texts: list[str] = []
    size = 0
    for row, text in pieces:
        rows.append(row)
        texts.append(text)
        size += len(text)
        if size >= GROUP or len(texts) == TEXTS:
            yield rows, texts
            rows, texts, size = [], [], 0
    if rows:
        yield rows, texts
