"""Text to ids and back: bytes, byte-level BPE, and any `tokenizer.json` of the Hugging Face library.

The built-in two are lossless for every text that UTF-8 can hold. In all of them a special token's name in a text is text.
BPE: Sennrich, Haddow and Birch 2016, arXiv:1508.07909; over bytes: Radford et al. 2019.
"""

import hashlib
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import tokenizers
import torch
from tokenizers import AddedToken, decoders, models, pre_tokenizers, trainers
from torch import Tensor

from ritornello.data.documents import parted, utf8
from ritornello.errors import InputError

END = "<|endoftext|>"  # stands before and after every document
BOS_NAMES = (END, "<s>", "<bos>", "[CLS]", "<|begin_of_text|>", "<|startoftext|>", "[BOS]", "<|bos|>")
EOS_NAMES = (END, "</s>", "<eos>", "[SEP]", "<|end_of_text|>", "[EOS]", "<|eos|>")
PIECE = 1 << 20  # bytes that the library is given at a time
SAMPLE = 200_000_000  # characters that BPE is trained on at most
UNSPACED = 8  # times the memory that a text without spaces takes: all its runs differ
RUN = re.compile(r"\S{100}(?=\S)")  # the longest run without a space that BPE training takes as one
CHECKED = 8_000_000  # characters on which an imported tokenizer is tried


class Tokenizer(Protocol):
    """Ids are 0 .. size - 1. No text encodes to `bos` or `eos`, which may be the same id; decoding drops both."""

    kind: str  # "bytes", "bpe" or "imported"
    size: int
    bos: int
    eos: int
    lossless: bool  # decode(encode(text)) == text for all valid Unicode

    @property
    def sha256(self) -> str: ...  # of what `save` writes
    @property
    def token_bytes(self) -> list[bytes]: ...  # what each id adds to a text; exact if lossless, b"" for special tokens
    def encode(self, text: str) -> list[int]: ...
    def encode_many(self, texts: Sequence[str]) -> list[np.ndarray]: ...  # one (n,) array of integers a text
    def encode_from(self, texts: Sequence[str], starts: Sequence[int]) -> list[tuple[np.ndarray, int]]: ...  # see _Tokenizer
    def decode(self, ids: Sequence[int]) -> str: ...
    def nbytes(self, ids: Tensor) -> Tensor: ...  # int64, the shape of `ids`: UTF-8 bytes behind each id
    def save(self, path: Path) -> None: ...


class _Tokenizer:
    """What all kinds share, given `json`, `token_bytes`, `encode_many`."""

    json: str
    token_bytes: list[bytes]
    encode_many: Callable[[Sequence[str]], list[np.ndarray]]

    def encode_from(self, texts: Sequence[str], starts: Sequence[int]) -> list[tuple[np.ndarray, int]]:
        """The ids of each text, and the place of the first token with a character at `start` or after it; their number if there is none."""
        found = []
        for text, start, ids in zip(texts, starts, self.encode_many(texts), strict=True):
            ends = self._lengths[torch.from_numpy(ids.astype(np.int64))].cumsum(0)  # bytes
            found.append((ids, int(torch.searchsorted(ends, len(text[:start].encode()), right=True))))
        return found

    @cached_property
    def sha256(self) -> str:
        return hashlib.sha256(self.json.encode()).hexdigest()

    @cached_property
    def _lengths(self) -> Tensor:
        return torch.tensor([len(token) for token in self.token_bytes])

    def decode(self, ids: Sequence[int]) -> str:
        """The text of the ids; bytes that are not UTF-8 become U+FFFD."""
        return b"".join([self.token_bytes[index] for index in ids]).decode("utf-8", "replace")

    def nbytes(self, ids: Tensor) -> Tensor:
        """UTF-8 bytes behind each id, int64, the shape of `ids`; 0 for special tokens."""
        return self._lengths.to(ids.device)[ids]

    def save(self, path: Path) -> None:
        """Write a `tokenizer.json`, whole or not at all."""
        fresh = path.with_name(path.name + ".tmp")
        fresh.write_text(self.json, encoding="utf-8")
        os.replace(fresh, path)


class ByteTokenizer(_Tokenizer):
    """One id a byte, and id 256 for the end of a document."""

    kind, size, bos, eos, lossless = "bytes", 257, 256, 256, True

    @cached_property
    def json(self) -> str:  # type: ignore[override]
        raw = tokenizers.Tokenizer(models.BPE(vocab={sign: byte for byte, sign in enumerate(_signs())}, merges=[]))
        raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        raw.decoder = decoders.ByteLevel()
        raw.add_special_tokens([END])
        return raw.to_str()

    @cached_property
    def token_bytes(self) -> list[bytes]:  # type: ignore[override]
        return [bytes([byte]) for byte in range(256)] + [b""]

    def encode(self, text: str) -> list[int]:
        """The UTF-8 bytes. Raises InputError for a lone surrogate."""
        return list(utf8(text, "text"))

    def encode_many(self, texts: Sequence[str]) -> list[np.ndarray]:
        """The bytes of each text, uint8."""
        return [np.frombuffer(utf8(text, "text"), np.uint8) for text in texts]


class LibraryTokenizer(_Tokenizer):
    """A tokenizer of the Hugging Face library, set up so that no text reaches `bos` or `eos`: `ends`, or tokens of the usual names."""

    def __init__(self, raw: tokenizers.Tokenizer, ends: tuple[int, int] | None = None):
        raw.encode_special_tokens = True  # their names in a text are text
        raw.no_truncation()
        raw.no_padding()
        if getattr(raw.model, "dropout", None):
            raw.model.dropout = None  # a text always gives the same ids
        self.bos, self.eos = ends or _ends(raw)
        self.raw = raw
        self.json = raw.to_str()
        spec = json.loads(self.json)
        self.lossless = _is_byte_level(spec)
        self.kind = "bpe" if self.lossless else "imported"
        self.size = max(raw.get_vocab(with_added_tokens=True).values()) + 1
        self._bytewise = (spec["decoder"] or {}).get("type") == "ByteLevel"

    def encode(self, text: str) -> list[int]:
        """The ids of a text of any length. Raises InputError for a lone surrogate."""
        data = utf8(text, "text")
        pieces = [text] if len(data) <= PIECE else [data[start:end].decode() for start, end in parted(data, 0, len(data), PIECE)]
        return [index for piece in pieces for index in self._clean(self.raw.encode(piece, add_special_tokens=False).ids)]

    def encode_many(self, texts: Sequence[str]) -> list[np.ndarray]:
        """The ids of each text, uint32; of at most some megabytes in all. Raises InputError for a lone surrogate."""
        for text in texts:
            utf8(text, "text")
        encodings = self.raw.encode_batch_fast(texts, add_special_tokens=False)
        return [np.array(self._clean(encoding.ids), np.uint32) for encoding in encodings]

    def encode_from(self, texts: Sequence[str], starts: Sequence[int]) -> list[tuple[np.ndarray, int]]:
        """See above. Where the tokenizer drops or changes text, the places are those that the library tells."""
        if self.lossless:
            return super().encode_from(texts, starts)
        found = []
        for start, encoding in zip(starts, self.raw.encode_batch(list(texts), add_special_tokens=False), strict=True):
            kept = [
                (index, end) for index, (_, end) in zip(encoding.ids, encoding.offsets, strict=True) if index not in (self.bos, self.eos)
            ]
            first = next((place for place, (_, end) in enumerate(kept) if end > start), len(kept))
            found.append((np.array([index for index, _ in kept], np.uint32), first))
        return found

    def _clean(self, ids: list[int]) -> list[int]:
        """Models that look whole words up find a special token's name in their vocabulary; those ids are dropped."""
        if self.lossless or not {self.bos, self.eos}.intersection(ids):
            return ids
        return [index for index in ids if index not in (self.bos, self.eos)]

    def decode(self, ids: Sequence[int]) -> str:
        """The text of the ids, special tokens left out."""
        return super().decode(ids) if self.lossless else self.raw.decode(list(ids))

    @cached_property
    def token_bytes(self) -> list[bytes]:  # type: ignore[override]
        special = {token for token, added in self.raw.get_added_tokens_decoder().items() if added.special}
        tokens = [self.raw.id_to_token(index) or "" if index not in special else "" for index in range(self.size)]
        if self._bytewise:
            byte = {sign: value for value, sign in enumerate(_signs())}
            return [bytes(byte[sign] for sign in token) if set(token) <= byte.keys() else token.encode() for token in tokens]
        return _bytes_by_decoding(self.raw, tokens)


def train_bpe(pieces: Iterable[str], vocab: int, *, nbytes: int = 0) -> LibraryTokenizer:
    """Byte-level BPE with at most `vocab` entries, 256 bytes and one special token included; fewer if the text is short.

    nbytes: the size of all the pieces; of more than 200 MB every nth piece is used. The same pieces give the same tokenizer.
    Raises InputError for a vocabulary below 257.
    """
    if vocab < 257:
        raise InputError(f"vocabulary of {vocab}: 256 bytes and the end of a document need 257; use 257 or more, or bytes")
    raw = tokenizers.Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab,
        min_frequency=2,
        special_tokens=[END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    raw.train_from_iterator(_sample(pieces, -(-nbytes // SAMPLE) or 1), trainer)
    return LibraryTokenizer(raw)


def load_tokenizer(path: Path) -> Tokenizer:
    """The tokenizer in a `tokenizer.json`, ours or any other. Raises InputError if it is not one."""
    try:
        text = Path(path).read_text(encoding="utf-8")
        json.loads(text)
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not a tokenizer.json: {error}") from error
    with _Foreign(path):
        raw = tokenizers.Tokenizer.from_str(text)
    if raw.get_vocab_size(with_added_tokens=False) == 0:
        raise InputError(f"{path}: not a usable tokenizer.json: its vocabulary is empty")
    return ByteTokenizer() if raw.to_str() == ByteTokenizer().json else LibraryTokenizer(raw)


class Loss(NamedTuple):
    """What does not come back: the share of lines, and the first of them before and after."""

    share: float
    text: str
    back: str

    def __str__(self) -> str:
        return f"{self.share:.1%} of lines do not come back, the first {self.text!r} as {self.back!r}"


def loss_on(tokenizer: Tokenizer, pieces: Iterable[tuple[int, str]]) -> Loss | None:
    """What the tokenizer loses of a corpus's pieces, judged line by line on their first 8 MB; None if it loses nothing."""
    total = lost = read = 0
    example = ("", "")
    for _, piece in pieces:
        lines = re.findall(r".*\n|.+", piece)
        for line, ids in zip(lines, tokenizer.encode_many(lines), strict=True):
            back = tokenizer.decode(ids.tolist())
            if back != line:
                example = example if lost else (line[:80], back[:80])
                lost += 1
        total, read = total + len(lines), read + len(piece)
        if read > CHECKED:
            break
    return Loss(lost / total, *example) if lost else None


class _Foreign:
    """The library raises the bare class Exception for a file that it cannot use; nothing else is taken for that."""

    def __init__(self, path: Path):
        self.path = path

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if kind is Exception:
            raise InputError(f"{self.path}: not a usable tokenizer.json: {' '.join(str(error).split())}") from error


def _sample(pieces: Iterable[str], every: int) -> Iterator[str]:
    left = SAMPLE
    for number, piece in enumerate(pieces):
        if number % every or left < 0:
            continue
        spaced = (piece.count(" ") + piece.count("\n")) * 20 > len(piece)
        left -= len(piece) * (1 if spaced else UNSPACED)
        utf8(piece, "text")
        yield RUN.sub("\\g<0>\n", piece)


def _ends(raw: tokenizers.Tokenizer) -> tuple[int, int]:
    """The ids of the tokens before and after a document: special tokens of a usual name, else `END`, added or made special."""
    special = {added.content: index for index, added in raw.get_added_tokens_decoder().items() if added.special}
    bos = next((special[name] for name in BOS_NAMES if name in special), None)
    eos = next((special[name] for name in EOS_NAMES if name in special), bos)
    if eos is None:
        raw.add_special_tokens([AddedToken(END, special=True, normalized=False)])
        eos = raw.get_vocab()[END]
    return bos if bos is not None else eos, eos


def _is_byte_level(spec: dict[str, Any]) -> bool:
    """Whether the parts are such that every text comes back, and that none encodes to a special token."""
    model, before, decoder = spec["model"], spec["pre_tokenizer"] or {}, spec["decoder"] or {}
    *first, last = before.get("pretokenizers") or [before]
    if spec["normalizer"] or model["type"] != "BPE" or last.get("type") != "ByteLevel" or decoder.get("type") != "ByteLevel":
        return False
    names = {token["content"] for token in spec["added_tokens"]}
    made = set(model["vocab"]) if model.get("ignore_merges") else {"".join(pair) for pair in _merges(model)}
    return (
        not last["add_prefix_space"]
        and all(step["type"] in ("Split", "Digits") and step.get("behavior") != "Removed" for step in first)
        and not model.get("continuing_subword_prefix")
        and not model.get("end_of_word_suffix")
        and set(_signs()) <= model["vocab"].keys()
        and all(token["special"] for token in spec["added_tokens"])
        and not names & made
    )


def _merges(model: dict[str, Any]) -> Iterator[list[str]]:
    return (pair.split(" ") if isinstance(pair, str) else pair for pair in model["merges"])


def _signs() -> list[str]:
    """The printable character that stands for each byte in byte-level vocabularies (GPT-2's table)."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = iter(range(256, 512))
    return [chr(byte) if byte in plain else chr(next(others)) for byte in range(256)]


def _bytes_by_decoding(raw: tokenizers.Tokenizer, tokens: list[str]) -> list[bytes]:
    """What each id adds when it follows another; special ids have an empty token here."""
    anchor = next((index for index, token in enumerate(tokens) if token.isalnum()), 0)
    alone = raw.decode([anchor])
    after = raw.decode_batch([[anchor, index] for index in range(len(tokens))])
    found = []
    for token, text in zip(tokens, after, strict=True):
        byte = re.fullmatch(r"<0x([0-9A-F]{2})>", token)
        added = text[len(alone) :] if text.startswith(alone) else token
        found.append(bytes.fromhex(byte[1]) if byte else added.encode("utf-8", "replace") if token else b"")
    return found
