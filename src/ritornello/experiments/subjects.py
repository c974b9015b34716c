"""From what a user names to a subject of evaluation."""

import hashlib
from pathlib import Path

from ritornello.evals.subject import CausalSubject, Subject
from ritornello.folder import Loaded, digest, load, weights


def open_subject(spec: str, protocol: str = "ritornello") -> Subject:
    """The model of a run folder. InputError where there is none."""
    return of_run(load(Path(spec)), protocol)


def of_run(loaded: Loaded, protocol: str = "ritornello") -> CausalSubject:
    """A run's model, known by its weights, architecture and tokenizer: a copy of the folder is the same subject."""
    architecture = str(sorted((key, str(value)) for key, value in loaded.config["model"].items()))
    sha256 = hashlib.sha256(f"{digest(weights(loaded.model), architecture)} {loaded.tokenizer.sha256}".encode()).hexdigest()
    return CausalSubject(loaded.model, loaded.tokenizer, loaded.path.name, sha256, protocol)
