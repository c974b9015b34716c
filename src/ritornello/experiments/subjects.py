"""From what a user names to a subject of evaluation."""

import hashlib
import re
from pathlib import Path

from ritornello.config import read_file
from ritornello.errors import InputError
from ritornello.evals.masked import MaskedSubject
from ritornello.evals.subject import CausalSubject, Subject
from ritornello.folder import Loaded, digest, load, weights, words_name, words_of

HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")
WINDOW = 512  # tokens of a long text that a model of transformers reads at a time, if it can


def open_subject(spec: str, protocol: str = "ritornello", device: str = "cpu") -> Subject:
    """The model of a run ("RUN", or "RUN@1M") or an export, or any Hugging Face model on disk or hub. InputError where there is none."""
    path, words = at_words(spec)
    if words is None and _is_of_transformers(spec):
        return _of_transformers(spec, protocol, device)
    return of_run(load(path, words), protocol, device)


def at_words(spec: str) -> tuple[Path, int | None]:
    """ "RUN@1M" as the run's folder and the words its weights are to have seen. A folder of just that name is itself."""
    run, at, words = spec.rpartition("@")
    return (Path(run), words_of(words)) if at and is_run(Path(run)) and not Path(spec).exists() else (Path(spec), None)


def of_run(loaded: Loaded, protocol: str = "ritornello", device: str | None = None) -> CausalSubject:
    """A run's model, known by its weights, architecture and tokenizer: a copy of the folder is the same subject.

    `device`: where the model is to go; None leaves it where it is.
    """
    architecture = str(sorted((key, str(value)) for key, value in loaded.config["model"].items()))
    sha256 = hashlib.sha256(f"{digest(weights(loaded.model), architecture)} {loaded.tokenizer.sha256}".encode()).hexdigest()
    window = max(2, loaded.config["train"]["length"])
    name = loaded.path.resolve().name + (f"@{words_name(loaded.words)}" if loaded.words is not None else "")
    if device is not None:
        loaded.model.to(device)
    return CausalSubject(loaded.model, loaded.tokenizer, name, sha256, protocol, window)


def default_out(spec: str) -> Path:
    """Where an evaluation of this model is kept: inside a run's folder, for other models beside where one stands."""
    path, words = at_words(spec)
    kept = "evaluation" if words is None else f"evaluation@{words_name(words)}"
    return path / kept if is_run(path) else Path("evaluations") / path.name


def is_run(path: Path) -> bool:
    """Whether this is a run's folder."""
    return (path / "config.json").is_file() and "train" in read_file(path / "config.json")


def _is_of_transformers(spec: str) -> bool:
    """Whether this is a folder of a Hugging Face model, or OWNER/NAME on the hub: asking there is slow where there is no network."""
    path = Path(spec)
    if path.exists():
        return (path / "config.json").is_file() and "model_type" in read_file(path / "config.json")
    return HUB_NAME.fullmatch(spec) is not None and not path.parent.exists()


def _of_transformers(spec: str, protocol: str, device: str) -> Subject:
    try:
        from ritornello.hf.model import HFMaskedModel, open_model
    except ImportError as error:
        raise InputError(f"{spec}: no run folder; for a Hugging Face model: pip install 'ritornello[hf]'") from error
    opened = open_model(spec)
    opened.model.to(device)
    about = (opened.tokenizer, opened.name, opened.sha256, protocol)
    if isinstance(opened.model, HFMaskedModel):
        return MaskedSubject(opened.model, *about)
    return CausalSubject(opened.model, *about, min(WINDOW, opened.length))
