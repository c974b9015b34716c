"""EWoK: basic world knowledge. Which target fits which context?

An item has two contexts and two targets, and target i fits context i. Two scores are made of the same four log-probabilities:

official     BabyLM 2024: after context 1, is target 1 more probable than target 2; and the item swapped, as a row of its own
two-sided    the authors': P(T1 | C1) > P(T1 | C2), and P(T2 | C2) > P(T2 | C1); an item is the mean of the two, a tie gives half

The challenge keeps the items whose words are all in its vocabulary: 7,618 rows of 8,748 in 11 domains, over which scores are averaged.
GPT-2 XL reaches 65.6 % two-sided; models of 10M to 100M words have been at chance.

The items are protected: the authors ask that nobody publishes them as plain text. They are read from the archive in memory, and nothing
here writes them: predictions are item numbers and choices, and messages name files and domains only.

Source: Ivanova, Sathe, Lipkin et al. 2024, arXiv:2405.09605; rows and filter of the BabyLM 2024 evaluation pipeline.
"""

import csv
import hashlib
import io
import re
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from ritornello.errors import InputError
from ritornello.evals.choices import choice_rows, choose, mean_row, not_finite
from ritornello.evals.files import checksums, gap, read_text
from ritornello.evals.means import means
from ritornello.evals.subject import Request
from ritornello.evals.suite import Outcome, Suite, Task, scored_task, spread

ARCHIVE, PASSWORD = "ewok-core-1.0.items.zip", b"ewok"  # the authors' own, in their terms of use: it keeps crawlers out
VOCABULARY = "vocab.txt.gz"
TWO_SIDED = "accuracy (two-sided)"
MEMBER = re.compile(r".*vers=(\d+)/testsuite-(\w+)\.csv")
FIELDS = ("Context1", "Context2", "Target1", "Target2")
SPLIT = (  # Penn Treebank words as far as these sentences need it; the vocabulary was made with NLTK's word_tokenize
    (re.compile(r"([,?])|\.(?=\s|$)"), r" \g<0> "),
    (re.compile(r"(n't|'(?:s|m|d|ll|re|ve)?)(?=\s|$)"), r" \1"),
    (re.compile(r"\b(can)(not)\b"), r"\1 \2"),
)


class Item(NamedTuple):
    contexts: tuple[str, str]
    targets: tuple[str, str]


def read_items(archive: Path, vocabulary: Path | None = None) -> dict[str, list[Item] | InputError]:
    """Items by domain, those of all five versions of the fillers one after another; an error for a domain that is missing or changed.

    With a vocabulary only those whose words are in it. InputError, naming no item, for an archive that cannot be read.
    """
    known = set(read_text(vocabulary, checksums()["files"]["vocab.txt"]).split()) if vocabulary else None
    found: dict[str, list[Item] | InputError] = {}
    parts = _members(archive)
    for domain, published in checksums()["ewok"].items():
        contents = parts.get(domain, [])
        if not contents:
            found[domain] = InputError(f"{archive}: {domain} is missing; get the archive again")
        elif hashlib.sha256(b"".join(contents)).hexdigest() != published:
            found[domain] = InputError(f"{archive}: {domain} has changed since it was published; get the archive again")
        else:
            items = [item for content in contents for item in _items(content)]
            found[domain] = [item for item in items if known is None or known.issuperset(words(" ".join((*item.contexts, *item.targets))))]
    return found


def words(text: str) -> list[str]:
    """The words and signs of sentences, in lower case, as the challenge's filter sees them."""
    text = text.lower()
    for pattern, parts in SPLIT:
        text = pattern.sub(parts, text)
    return text.split()


def _members(archive: Path) -> dict[str, list[bytes]]:
    """The content of each domain's files, by version."""
    try:
        with zipfile.ZipFile(archive) as opened:
            names = sorted((match[2], int(match[1]), match[0]) for match in map(MEMBER.fullmatch, opened.namelist()) if match)
            found: dict[str, list[bytes]] = {}
            for domain, _, name in names:
                found.setdefault(domain.replace("_", "-"), []).append(opened.read(name, pwd=PASSWORD))
            return found
    except OSError as error:
        raise InputError(f"{archive}: cannot be read: {error.strerror}") from error
    except RuntimeError as error:
        raise InputError(f"{archive}: does not open with the password of its terms of use; get the authors' archive") from error
    except (zipfile.BadZipFile, EOFError, zlib.error, NotImplementedError) as error:
        raise InputError(f"{archive}: is damaged, or no zip archive that can be read here; get it again") from error


def _items(content: bytes) -> list[Item]:
    """The items of a file; its first line is a mark by which leaks are found."""
    rows = csv.DictReader(io.StringIO(content.decode().split("\n", 1)[1]))
    return [Item((row["Context1"], row["Context2"]), (row["Target1"], row["Target2"])) for row in rows]


def _tasks(suite: str, path: Path, limit: int | None) -> list[Task]:
    filtered = path / VOCABULARY if suite == "ewok" else None
    return [
        gap(domain, str(found)) if isinstance(found, InputError) else _task(suite, domain, spread(found, limit))
        for domain, found in read_items(path / ARCHIVE, filtered).items()
    ]


def _task(suite: str, domain: str, items: Sequence[Item]) -> Task:
    """Scores are asked for in the order T1|C1, T2|C1, T1|C2, T2|C2."""

    def grade(log_probs: Tensor) -> Outcome:
        scores = log_probs.view(-1, 2, 2)  # (items, context, target)
        rows = torch.stack([scores[:, 0], scores[:, 1].flip(-1)], 1).flatten(0, 1)  # (2 items, target): the right one first
        sides = torch.stack([scores[:, 0, 0] - scores[:, 1, 0], scores[:, 1, 1] - scores[:, 0, 1]], 1)
        points = ((sides.sign() + 1) / 2).mean(1)
        decisions = choice_rows(suite, domain, list(rows), [0] * len(rows))
        predictions = tuple({"id": f"{domain}_{row}", "pred": 1 + choice} for row, choice in enumerate(choose(list(rows))))
        return Outcome((*decisions, mean_row(suite, domain, TWO_SIDED, points, 0.5, not_finite(list(scores)))), predictions)

    requests = [Request(f"{context} {target}", len(context)) for item in items for context in item.contexts for target in item.targets]
    return scored_task(domain, items, requests, grade)


FILTERED = Suite("ewok", lambda path, limit: _tasks("ewok", path, limit), means)
FULL = Suite("ewok-full", lambda path, limit: _tasks("ewok-full", path, limit), means)
