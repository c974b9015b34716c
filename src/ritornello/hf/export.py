"""A run as a folder that transformers opens: our own classes, so any model that predicts the next token will do.

    config.json  generation_config.json  model.safetensors  modeling_ritornello.py  tokenizer.json  tokenizer_config.json  README.md

`push` puts such a folder on the Hugging Face hub. Nothing else here uses a network.
"""

from pathlib import Path

from ritornello import folder
from ritornello.config import to_dict
from ritornello.errors import InputError
from ritornello.hf import files
from ritornello.hf.card import card
from ritornello.hf.remote import AUTO_MAP, CLASSES, MODEL_TYPE, write_code
from ritornello.hf.tokenizer import write_tokenizer


def export_model(run: str | Path, out: str | Path | None = None, name: str | None = None) -> Path:
    """Write a run's model as a folder of our own classes, and return its path (default: RUN/hf). `name` is what its card calls it."""
    loaded = folder.load(run)
    if not loaded.model.causal:
        raise InputError(f"{run}: the model sees ahead (bidirectional), so it cannot write; there is no class of transformers for it here")
    path = files.new_folder(loaded.path / "hf" if out is None else Path(out))
    special = write_tokenizer(loaded.tokenizer, path)
    write_code(path)
    folder.write_bytes(path / "README.md", card(loaded, name or loaded.path.resolve().name).encode())
    folder.write_json(path / "generation_config.json", special)
    table = {"architectures": [CLASSES["AutoModelForCausalLM"]], "model_type": MODEL_TYPE, "auto_map": AUTO_MAP, "dtype": "float32"}
    weights = {f"model.lm.{name}": weight for name, weight in folder.weights(loaded.model).items()}
    files.write(path, table | special | {"lm": to_dict(loaded.model.config)}, weights)
    return path


def push(path: Path, name: str) -> str:
    """Upload a folder to the hub repository `name`, made private if it is new, and return its address.

    Whoever is logged in there (hf auth login) does it. Raises InputError, in one line, for whatever the hub or the way to it refuses.
    """
    try:
        from huggingface_hub import HfApi
        from huggingface_hub.errors import HTTPError
    except ImportError as error:
        raise InputError("--push needs huggingface_hub: pip install 'ritornello[hf]'") from error
    try:
        api = HfApi()
        made = api.create_repo(name, private=True, exist_ok=True)
        api.upload_folder(repo_id=made.repo_id, folder_path=path, commit_message="A model made with Ritornello")
    except (HTTPError, OSError, ValueError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"{path} is written, but not pushed: {reason[:300]}; once that is mended: hf upload {name} {path}") from error
    return str(made)
