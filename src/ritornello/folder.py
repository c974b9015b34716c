"""Run folders and the files in them: whole or not there at all, and checked when read.

    config.json  tokenizer.json  model.safetensors  log.jsonl  results.json  report.html  provenance.json
    checkpoints/step-00001200.safetensors           weights, optimiser, data position, carried state
    words/00001000000.safetensors                   weights alone, once so many words of text had been seen

A file is written beside its place, flushed to the disk and renamed. A checkpoint carries a SHA-256 over every
name, shape and byte in it. Everyone loads a model through `load`.
"""

import contextlib
import hashlib
import json
import os
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as parse_tensors
from safetensors.torch import save as dump_tensors
from torch import Tensor

from ritornello.config import from_dict, read_file
from ritornello.data.tokenizers import Tokenizer, load_tokenizer
from ritornello.errors import InputError
from ritornello.model import LM, LMConfig

FORMAT = 1
FILES = ("config.json", "tokenizer.json", "model.safetensors", "log.jsonl", "results.json", "report.html", "provenance.json")


@dataclass(frozen=True)
class Loaded:
    """A model ready for use: in eval mode, on the CPU."""

    path: Path
    config: dict[str, Any]  # config.json
    model: LM
    tokenizer: Tokenizer
    words: int | None = None  # of training text the weights have seen, where such a checkpoint was asked for


def load(path: str | Path, words: int | None = None) -> Loaded:
    """The model, tokenizer and config of a run folder. A run that has not finished gives its newest checkpoint's weights.

    With `words` the weights are those kept when so many words had been seen. Raises InputError if it is no run folder, or if a file in it
    is missing, damaged or of a later format.
    """
    path = Path(path)
    config = read_config(path)
    model = LM(from_dict(LMConfig, config.get("model"), "model"), impl=str(config["train"].get("impl", "auto")))
    if words is not None:
        if words not in (kept := word_checkpoints(path)):
            known = f"has {', '.join(map(words_name, kept))}" if kept else "has none; a run keeps them with --checkpoint-words"
            raise InputError(f"{path}: no weights of {words_name(words)} words; it {known}")
        weights = read_tensors(kept[words])[0]
    elif (path / "model.safetensors").exists():
        weights = read_tensors(path / "model.safetensors")[0]
    else:
        newest = checkpoints(path)
        if not newest:
            raise InputError(f"{path}: no weights yet; finish it with: ritornello resume {path}")
        tensors = read_tensors(newest[-1])[0]
        weights = {}
        for kind in ("model.model.", "average.model."):  # the average, where there is one, is what the run keeps
            weights |= {name.removeprefix(kind): value for name, value in tensors.items() if name.startswith(kind)}
    put_weights(model, weights, str(path))
    return Loaded(path, config, model.eval(), load_tokenizer(path / "tokenizer.json"), words)


def put_weights(model: LM, weights: dict[str, Tensor], source: str) -> None:
    """Load weights by name, strictly; tied ones are stored once. InputError names the first that does not fit."""
    if model.config.tied:
        weights = weights | {"head.weight": weights.get("embedding.weight", torch.empty(0))}
    wanted = model.state_dict()
    for name in [*wanted, *weights]:
        if name not in weights or name not in wanted:
            raise InputError(f"{source}: weight {name} is {'missing' if name not in weights else 'not part of this model'}")
        if weights[name].shape != wanted[name].shape:
            raise InputError(f"{source}: weight {name} has shape {tuple(weights[name].shape)}, the model wants {tuple(wanted[name].shape)}")
    model.load_state_dict(weights)


def weights(model: LM) -> dict[str, Tensor]:
    """The model's weights by name, tied ones once."""
    return {name: value for name, value in model.state_dict().items() if not (model.config.tied and name == "head.weight")}


def read_config(path: Path) -> dict[str, Any]:
    """config.json of a run folder, its format checked."""
    if not (path / "config.json").is_file():
        near = [str(each.parent) for each in sorted(path.glob("*/config.json"))[:3]]
        hint = f"; did you mean {' or '.join(near)}?" if near else ""
        raise InputError(f"{path}: {'no run folder (it has no config.json)' if path.exists() else 'no such run folder'}{hint}")
    config = read_file(path / "config.json")
    if config.get("format") != FORMAT:
        raise InputError(f"{path}: run folder format {config.get('format')!r}; this version reads format {FORMAT}")
    for name in ("corpus", "tokenizer", "model", "train", "evaluate"):
        if not isinstance(config.get(name), dict):
            raise InputError(f"{path / 'config.json'}: the table {name} is missing; restore the file or begin another run")
    return config


def checkpoints(path: Path) -> list[Path]:
    """The checkpoints of a run folder, oldest first."""
    return sorted((path / "checkpoints").glob("step-*.safetensors"))


def word_checkpoints(path: Path) -> dict[int, Path]:
    """The weights a run kept by words seen, fewest first."""
    return {int(file.stem): file for file in sorted((path / "words").glob("[0-9]*.safetensors"))}


def word_checkpoint(path: Path, words: int) -> Path:
    """Where a run keeps its weights of so many words."""
    return path / "words" / f"{words:011d}.safetensors"


def words_name(words: int) -> str:
    """A count of words as people write it, and `words_of` reads it: 1M, 500k, 1234."""
    size, letter = next((size, letter) for size, letter in ((10**6, "M"), (10**3, "k"), (1, "")) if words % size == 0)
    return f"{words // size}{letter}"


def words_of(name: str) -> int:
    """The count in "1M", "500k" or "1234". InputError for anything else."""
    found = re.fullmatch(r"([0-9]{1,9})([kM]?)", name.strip())
    if not found or not int(found[1]):
        raise InputError(f"{name!r} is no count of words; write 1M, 500k or 1234")
    return int(found[1]) * {"": 1, "k": 10**3, "M": 10**6}[found[2]]


def write_bytes(path: Path, data: bytes) -> None:
    """Put a whole file in its place, durably, or leave what was there and raise InputError."""
    part = path.with_name(f".{path.name}.part")
    try:
        with open(part, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise InputError(f"{path}: cannot be written: {error.strerror}; what was there before is untouched") from error
    if hasattr(os, "O_DIRECTORY"):
        folder = os.open(path.parent, os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def write_json(path: Path, value: Any) -> None:
    write_bytes(path, (json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode())


def write_tensors(path: Path, tensors: dict[str, Tensor], meta: dict[str, Any]) -> None:
    """Tensors and a table of plain values as one safetensors file with a checksum."""
    tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    text = json.dumps(meta, sort_keys=True)
    seal = json.dumps({"meta": text, "sha256": digest(tensors, text)})
    write_bytes(path, dump_tensors(tensors, {"ritornello": seal}))  # one key: the library writes several in any order


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The inverse of `write_tensors`; InputError if the file is damaged in any bit or was never one."""
    try:
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file") from error
    try:
        tensors = parse_tensors(data)
        (size,) = struct.unpack("<Q", data[:8])
        seal = json.loads(json.loads(data[8 : 8 + size])["__metadata__"]["ritornello"])
        meta, sha256 = str(seal["meta"]), seal["sha256"]
    except (SafetensorError, ValueError, KeyError, TypeError, struct.error) as error:
        raise InputError(f"{path}: damaged or not a file of ours ({type(error).__name__}: {str(error).splitlines()[0]})") from error
    if sha256 != digest(tensors, meta):
        raise InputError(f"{path}: damaged: its checksum does not match its content")
    return tensors, json.loads(meta)


def digest(tensors: dict[str, Tensor], meta: str) -> str:
    """SHA-256 over every name, type, shape and byte, and a text."""
    found = hashlib.sha256(meta.encode())
    for name in sorted(tensors):
        tensor = tensors[name].contiguous()
        found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)} ".encode())
        found.update(tensor.view(-1).view(torch.uint8).numpy().data if tensor.numel() else b"")
    return found.hexdigest()


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a run folder for writing; InputError if another process holds it. The lock goes with the process, however it ends."""
    with open(path / ".lock", "a+b") as file:
        try:
            if os.name == "nt":
                import msvcrt

                msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined, unused-ignore]
            else:
                import fcntl

                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise InputError(f"{path}: another process is writing to this run; wait for it or stop it first") from error
        yield
