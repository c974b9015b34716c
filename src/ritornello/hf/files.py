"""Folders in a Hugging Face layout: config.json, and weights in one safetensors file or several.

What someone downloaded is not trusted. Weights are read from safetensors only, which cannot run code; names of files in an index
may not leave the folder; nothing is read before every name and shape is known to be the one that the settings ask for.
"""

import re
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as dump_tensors
from torch import Tensor

from ritornello import folder
from ritornello.config import read_file
from ritornello.errors import InputError
from ritornello.hf.layout import Stored

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
UNSAFE = ("pytorch_model*", "*.bin", "*.pt", "*.pth", "*.ckpt")
FLOATS = {"F32", "F16", "BF16"}


def settings(path: Path) -> dict[str, Any]:
    """The table in config.json."""
    if not path.is_dir():
        raise InputError(f"{path}: no such folder")
    if not (path / "config.json").is_file():
        raise InputError(f"{path}: no config.json; give the folder of a model in a Hugging Face layout, with config.json and {WEIGHTS}")
    return read_file(path / "config.json")


def tensors(path: Path) -> dict[str, Stored]:
    """Every tensor of the folder by name, not yet read. InputError for what is missing, damaged, no safetensors or no float."""
    need_safetensors(path)
    if (path / WEIGHTS).is_file():
        return _open(path / WEIGHTS)
    places = read_file(path / INDEX).get("weight_map")
    if not isinstance(places, dict) or not all(isinstance(place, str) for place in places.values()):
        raise InputError(f"{path / INDEX}: its weight_map is no table of tensors and files")
    for place in places.values():
        if not re.fullmatch(r"\w[\w.-]*\.safetensors", place):
            raise InputError(f"{path / INDEX}: {ascii(place)[:80]} is not the name of a safetensors file beside it")
    found: dict[str, Stored] = {}
    for place in sorted(set(places.values())):
        part = _open(path / place)
        named = {name for name, home in places.items() if home == place}
        if part.keys() != named:
            raise InputError(f"{path / place}: the index and the file differ on {_listed(part.keys() ^ named)}")
        found |= part
    return found


def need_safetensors(path: Path) -> None:
    """InputError unless the folder has its weights as safetensors."""
    if not (path / WEIGHTS).is_file() and not (path / INDEX).is_file():
        unsafe = [found.name for pattern in UNSAFE for found in sorted(path.glob(pattern))]
        raise InputError(_refusal(path, unsafe[0]) if unsafe else f"{path}: no {WEIGHTS} and no {INDEX}")


def check(stored: dict[str, Stored], wanted: dict[str, tuple[int, ...]], where: Path) -> None:
    """InputError, in one line, unless exactly these tensors of these shapes are stored."""
    problems = [
        f"{what} {_listed(names)}"
        for what, names in (("missing", wanted.keys() - stored.keys()), ("not part of the model", stored.keys() - wanted.keys()))
        if names
    ]
    if not problems:
        for name, shape in sorted(wanted.items()):
            if stored[name].shape != shape:
                problems = [f"{_listed([name])} has shape {stored[name].shape}, config.json makes it {shape}"]
                break
    if problems:
        raise InputError(f"{where}: weights do not fit config.json: {'; '.join(problems)}")


def write(path: Path, table: dict[str, Any], weights: dict[str, Tensor]) -> None:
    """config.json and model.safetensors in a folder, the former last."""
    data = {name: weight.detach().cpu().contiguous().clone() for name, weight in weights.items()}
    folder.write_bytes(path / WEIGHTS, dump_tensors(data, {"format": "pt"}))
    folder.write_json(path / "config.json", table)


def new_folder(path: Path) -> Path:
    """A folder with nothing in it."""
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise InputError(f"{path} exists; choose another --out")
    path.mkdir(parents=True, exist_ok=True)
    return path


def _open(path: Path) -> dict[str, Stored]:
    try:
        file = safe_open(path, "pt")
        found = {}
        for name in file.keys():  # noqa: SIM118 (no dict)
            part = file.get_slice(name)
            if part.get_dtype() not in FLOATS:
                raise InputError(f"{path}: {_listed([name])} is stored as {part.get_dtype()}; only {', '.join(sorted(FLOATS))} are read")
            found[name] = Stored(tuple(part.get_shape()), lambda name=name: file.get_tensor(name).to(torch.float32))  # type: ignore[misc]
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file, though {INDEX} names it") from error
    except SafetensorError as error:
        raise InputError(f"{path}: damaged or no safetensors file ({str(error).splitlines()[0]})") from error
    return found


def _refusal(path: Path, name: str) -> str:
    return (
        f"{path / name}: not read, because loading such a file can run code hidden in it; get the model as safetensors, or, if you trust "
        "its source, convert it with transformers, where that may run: AutoModelForCausalLM.from_pretrained(OLD).save_pretrained(NEW)"
    )


def _listed(names: Any, most: int = 8) -> str:
    """Names for one line, the first few of many."""
    names = sorted(names)
    return ", ".join(ascii(name)[1:-1][:100] for name in names[:most]) + (f" and {len(names) - most:,} more" if len(names) > most else "")
