"""The last word of a text, as LAMBADA asks for it.

A file of texts: JSON lines {"text": "..."}, or plain text, one a line. The last word is what follows the last space. It counts as known if
each of its tokens is the most probable one after what stands before; its perplexity is exp of the mean of -log p(word | text before).

Source: Paperno et al. 2016, arXiv:1606.06031.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from ritornello.errors import InputError
from ritornello.evals.choices import mean_row
from ritornello.evals.files import bare_name, read_text, records
from ritornello.evals.means import macro
from ritornello.evals.report import Row
from ritornello.evals.scoring import Progress
from ritornello.evals.subject import Request, Subject
from ritornello.evals.suite import Outcome, Suite, Task, digest, spread

KNOWN, PERPLEXITY = "accuracy (greedy)", "perplexity of the last word"


def last_words_suite(name: str) -> Suite:
    """A suite of one file of texts."""

    def tasks(path: Path, limit: int | None) -> list[Task]:
        chosen = spread(read_texts(path), limit)
        return [Task(path.stem, digest(chosen), lambda subject, progress: _run(name, path.stem, chosen, subject, progress))]

    return Suite(name, tasks, lambda rows: tuple(macro([row]) for row in rows))


def read_texts(path: Path) -> list[Request]:
    """Each text, with its last word to be scored. InputError with file and line."""
    if bare_name(path):
        found = [(record.where, record.text("text").rstrip()) for record in records(path)]
    else:
        found = [(f"{path}:{number}", line.rstrip()) for number, line in enumerate(read_text(path).split("\n"), 1) if line.strip()]
    if not found:
        raise InputError(f"{path}: is empty")
    return [_request(where, text) for where, text in found]


def _request(where: str, text: str) -> Request:
    before = " ".join(text.rsplit(maxsplit=1)[:-1])
    if not before.strip():
        raise InputError(f"{where}: a text needs a word before its last one, found {text!r}")
    return Request(text, len(before))


def _run(suite: str, task: str, requests: Sequence[Request], subject: Subject, progress: Progress | None) -> Outcome:
    nats = -subject.log_probs(requests, progress)
    n, lost = len(nats), int((~nats.isfinite()).sum())
    reason = f"{lost} of {n} last words have no finite probability" if lost else None
    perplexity = _perplexity(mean_row(suite, task, PERPLEXITY, nats, None, reason))
    try:
        known = subject.greedy(requests)
    except InputError as error:
        known, reason = torch.zeros(n), str(error)
    rows = (mean_row(suite, task, KNOWN, known.double(), None, reason), perplexity)
    return Outcome(rows, tuple({"id": f"{task}_{index}", "pred": bool(each)} for index, each in enumerate(known)))


def _perplexity(nats: Row) -> Row:
    """exp of a mean, its standard error by the delta method. Beyond e^700, as of lines without spaces, it has no value."""
    if nats.value is None:
        return nats
    if nats.value > 700:
        return replace(nats, value=None, stderr=None, reason=f"{nats.value:,.0f} nats a last word: do the texts have spaces?")
    value = math.exp(nats.value)
    return replace(nats, value=value, stderr=value * (nats.stderr or 0.0))
