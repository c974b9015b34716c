"""Texts: how well any text is predicted, in bits per byte and perplexity a token. All its documents count, each from its beginning."""

from pathlib import Path

import numpy as np

from ritornello.data.corpus import read_corpus
from ritornello.errors import InputError
from ritornello.evals.perplexity import held_out
from ritornello.evals.scoring import Progress
from ritornello.evals.subject import CausalSubject, Subject
from ritornello.evals.suite import Outcome, Suite, Task, digest, spread


def text_suite(name: str) -> Suite:
    """A suite of whatever a corpus can be: one task."""

    def tasks(path: Path, limit: int | None) -> list[Task]:
        corpus = read_corpus(str(path))
        chosen = spread(corpus.whole().tolist(), limit)

        def run(subject: Subject, progress: Progress | None) -> Outcome:
            if not isinstance(subject, CausalSubject):
                raise InputError(f"{subject.name} is no causal model, and only those predict a text token by token")
            texts = [corpus.text(span) for span in chosen]
            scored = subject.stream([np.array(subject.tokenizer.encode(text), np.int64) for text in texts], progress)
            nbytes = subject.tokenizer.nbytes(scored.targets).double()
            if not subject.tokenizer.lossless:  # what it drops is counted on the text itself
                nbytes = nbytes * (sum(len(text.encode()) for text in texts) / nbytes.sum())
            return Outcome(held_out(scored.nats, scored.documents, nbytes, suite=name))

        return [Task("all", digest([corpus.sources, corpus.documents, chosen]), run)]

    return Suite(name, tasks, lambda rows: ())
