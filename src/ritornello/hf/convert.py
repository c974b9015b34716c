"""Models in and out: a folder in a Hugging Face layout becomes a run folder, and a run becomes such a folder.

Logits are the same both ways, to the rounding of float32. A model that a layout cannot say exactly is refused, and so is a setting
that is not known here: nothing is dropped in silence.
"""

from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import tokenizers
import torch

from ritornello import folder
from ritornello.config import read_file, to_dict
from ritornello.data.tokenizers import LibraryTokenizer, Tokenizer, load_tokenizer
from ritornello.errors import InputError, unknown
from ritornello.hf import files, hgrn2, llama, mamba, mamba2, recurrentgemma, rwkv4
from ritornello.hf.layout import Layout, Settings
from ritornello.mixers import mixer
from ritornello.mixers.layers import describe
from ritornello.model import DROPOUTS, LM, LMConfig, parameters
from ritornello.provenance import collect, sha256

LAYOUTS = {module.LAYOUT.model_type: module.LAYOUT for module in (hgrn2, llama, mamba, mamba2, recurrentgemma, rwkv4)}


def import_folder(path: str | Path, out: str | Path | None = None, tokenizer: str | Path | None = None) -> Path:
    """Make a run folder of a model in a Hugging Face layout, and return its path (default: runs/NAME).

    The tokenizer is the folder's tokenizer.json unless another is given. Raises InputError for whatever cannot be taken over exactly.
    """
    path = Path(path)
    table = files.settings(path)
    layout = _layout(table, path)
    settings = Settings(table, str(path / "config.json"))
    config = layout.read(settings)
    settings.done()
    stored = _without_copies(layout.older(files.tensors(path)), layout, config)
    with torch.device("meta"):
        model = LM(config)
    pairs = list(layout.pairs(model))
    shapes = model.state_dict()
    files.check(stored, {theirs: tuple(change.out(shapes[ours]).shape) for ours, theirs, change in pairs}, path)
    words = _tokenizer(path / "tokenizer.json" if tokenizer is None else Path(tokenizer), config.vocab)
    out = files.new_folder(Path("runs") / path.resolve().name if out is None else Path(out))
    words.save(out / "tokenizer.json")
    folder.write_tensors(
        out / "model.safetensors", {ours: change.back(stored[theirs].load()) for ours, theirs, change in pairs}, {"step": 0}
    )
    sources = {each.name: sha256(each) for each in (path / "config.json", *sorted(path.glob("*.safetensors")))}
    folder.write_json(out / "provenance.json", asdict(collect(sources)))
    folder.write_json(out / "config.json", _run_config(config, words, f"{path.resolve().name} ({layout.model_type} layout)", table))
    return out


def export_run(run: str | Path, out: str | Path | None = None) -> Path:
    """Write a run's model as a folder in the Hugging Face layout that its layers match, and return its path (default: RUN/hf-layout).

    Raises InputError, naming what differs, if there is no layout that says the model exactly.
    """
    loaded = folder.load(run)
    model, words = loaded.model, loaded.tokenizer
    layout, table = _matching(model)
    table |= {"bos_token_id": words.bos, "eos_token_id": words.eos, "dtype": "float32"}
    path = files.new_folder(Path(run) / "hf-layout" if out is None else Path(out))
    words.save(path / "tokenizer.json")
    added = {token["id"]: token["content"] for token in read_file(path / "tokenizer.json")["added_tokens"]}
    ends = {"bos_token": added[words.bos], "eos_token": added[words.eos]}
    folder.write_json(
        path / "tokenizer_config.json", {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False} | ends
    )
    weights = model.state_dict()
    files.write(path, table, {theirs: change.out(weights[ours]) for ours, theirs, change in layout.pairs(model)})
    return path


def _layout(table: dict[str, Any], path: Path) -> Layout:
    """The layout that a config.json names."""
    name, made = str(table.get("model_type")), table.get("architectures")
    if name not in LAYOUTS:
        raise InputError(f"{path / 'config.json'}: {unknown('model_type', name[:80], LAYOUTS)}")
    layout = LAYOUTS[name]
    if made not in (None, [], [layout.architecture]):
        raise InputError(
            f"{path / 'config.json'}: architectures are {ascii(made)[:80]}; a language model of this layout is {layout.architecture}"
        )
    return layout


def _without_copies(stored: dict[str, Any], layout: Layout, config: LMConfig) -> dict[str, Any]:
    """The tensors less a tied head's copy of the embedding, which must be one."""
    head, embedding = layout.names["head"] + ".weight", layout.names["embedding"] + ".weight"
    if not config.tied or head not in stored or embedding not in stored:
        return stored
    if not torch.equal(stored[head].load(), stored[embedding].load()):
        raise InputError(f"{head} and {embedding} differ, though config.json ties them (tie_word_embeddings)")
    return {name: tensor for name, tensor in stored.items() if name != head}


def _tokenizer(path: Path, vocab: int) -> Tokenizer:
    """The tokenizer of a model with `vocab` ids; ids of the model that it does not know get special tokens without text."""
    if not path.is_file():
        raise InputError(
            f"{path}: no such file; a model needs its tokenizer: put its tokenizer.json there, or name one with --tokenizer "
            "(a tokenizer.model or vocab.json becomes one with transformers: AutoTokenizer.from_pretrained(OLD).save_pretrained(NEW))"
        )
    found = load_tokenizer(path)
    if found.size < vocab:
        raw = tokenizers.Tokenizer.from_str(path.read_text(encoding="utf-8"))
        raw.add_special_tokens([f"<|unused {index}|>" for index in range(found.size, vocab)])
        found = LibraryTokenizer(raw)
    if found.size != vocab:
        raise InputError(f"{path}: the tokenizer needs {found.size:,} ids with those around a document, the model has {vocab:,}")
    return found


def _run_config(config: LMConfig, words: Tokenizer, origin: str, table: dict[str, Any]) -> dict[str, Any]:
    """config.json of a run folder in which nothing was trained."""
    plan = f"Imported from {origin}: {parameters(config) / 1e6:.2f}M parameters ({describe(config.layers)}, {config.dim} wide)."
    for name, ours in (("bos", words.bos), ("eos", words.eos)):
        if (theirs := table.get(f"{name}_token_id")) not in (None, ours):
            plan += f" Its config.json has {name}_token_id {ascii(theirs)[:40]}; {ours}, the tokenizer's, is used."
    return {
        "format": folder.FORMAT,
        "plan": plan,
        "minutes": None,
        "imported": origin,
        "corpus": {"spec": None, "name": origin},
        "tokenizer": {"kind": words.kind, "size": words.size, "sha256": words.sha256},
        "model": to_dict(config),
        "train": {"steps": 0, "length": 256},
        "evaluate": {},
    }


def _matching(model: LM) -> tuple[Layout, dict[str, Any]]:
    """The layout whose layers the model has, and the model's settings in it, which say everything about the model."""
    config = model.config
    layout = next((layout for layout in LAYOUTS.values() if set(config.layers) <= layout.mixers), None)
    if layout is None:
        known = "; ".join(f"{name} of {', '.join(sorted(layout.mixers))}" for name, layout in sorted(LAYOUTS.items()))
        raise InputError(f"no Hugging Face layout has layers of {', '.join(sorted(set(config.layers)))}; there is {known}")
    if config.channel != layout.channel:
        raise _unlike(layout, [f"model.channel is {config.channel}, there it is {layout.channel}"])
    table = {"architectures": [layout.architecture], "model_type": layout.model_type, "vocab_size": config.vocab, "hidden_size": config.dim}
    table |= {"num_hidden_layers": len(config.layers), "tie_word_embeddings": config.tied} | layout.write(model)
    said = layout.read(Settings(table, "config.json"))
    different = [
        f"model.{name} is {getattr(config, name)}, there it is {getattr(said, name)}"
        for name in (each.name for each in fields(LMConfig))
        if name not in ("mixers", *DROPOUTS) and getattr(config, name) != getattr(said, name)
    ]
    for index, block in enumerate(model.blocks):
        for name, part in ((config.layers[index], block.time), (config.channel, block.channel)):
            different += [line for line in _differences(name, part, said) if line not in different] if name is not None else []
    if different:
        raise _unlike(layout, different)
    return layout, table


def _differences(name: str, part: Any, said: LMConfig) -> list[str]:
    """Settings of a mixer that come back different from the layout. What the mixer resolved itself, such as None, counts as resolved."""
    found, own = [], said.mixers.get(name, mixer(name).Config())
    for each in fields(part.config):
        asked, resolved, there = getattr(part.config, each.name), getattr(part, each.name, None), getattr(own, each.name)
        if there not in (asked, resolved) and asked is not None:
            found.append(f"model.mixers.{name}.{each.name} is {asked}, there it is {there}")
    return found


def _unlike(layout: Layout, different: list[str]) -> InputError:
    return InputError(f"the {layout.model_type} layout cannot say this model: {'; '.join(different)}")
