"""From what a user names to a subject of evaluation."""

import hashlib
from pathlib import Path

from ritornello.config import read_file
from ritornello.evals.subject import CausalSubject, Subject
from ritornello.folder import Loaded, digest, load, weights


def open_subject(spec: str, protocol: str = "ritornello") -> Subject:
    """The model of a run folder. InputError where there is none."""
    return of_run(load(Path(spec)), protocol)


def of_run(loaded: Loaded, protocol: str = "ritornello") -> CausalSubject:
    """A run's model, known by its weights, architecture and tokenizer: a copy of the folder is the same subject."""
    architecture = str(sorted((key, str(value)) for key, value in loaded.config["model"].items()))
    sha256 = hashlib.sha256(f"{digest(weights(loaded.model), architecture)} {loaded.tokenizer.sha256}".encode()).hexdigest()
    window = max(2, loaded.config["train"]["length"])
    return CausalSubject(loaded.model, loaded.tokenizer, loaded.path.resolve().name, sha256, protocol, window)


def default_out(spec: str) -> Path:
    """Where an evaluation of this model is kept: inside a run's folder, for other models beside where one stands."""
    return Path(spec) / "evaluation" if is_run(Path(spec)) else Path("evaluations") / Path(spec).name


def is_run(path: Path) -> bool:
    """Whether this is a run's folder."""
    return (path / "config.json").is_file() and "train" in read_file(path / "config.json")
