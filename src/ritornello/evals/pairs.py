"""Minimal pairs: is the grammatical sentence of two more probable?

The score of a sentence is the plain sum of its tokens' log-probabilities. What is put before it is the
protocol's (see subject.py).

Both official pipelines call a tie right, and a scorer that gives everything the same score gets 100 % by it. So ties are counted, and
accuracy is also given with half a point for each. "all" is the unweighted mean over subtasks, as published scores are; "all pairs"
is the mean over pairs. BLiMP: Warstadt et al. 2020, arXiv:1912.00582.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from ritornello.data.tokenizers import Tokenizer
from ritornello.evals.choices import choice_rows, choose
from ritornello.evals.files import Record, record_files, records
from ritornello.evals.means import means
from ritornello.evals.report import Row
from ritornello.evals.subject import Request, Subject, tokenized
from ritornello.evals.suite import Outcome, Task, scored_task

NAMES = (("good", "bad"), ("sentence_good", "sentence_bad"))


class MinimalPair(NamedTuple):
    good: str
    bad: str
    context: str = ""  # put before both as it stands, its last space included
    tag: str = ""  # what sort of pair, such as "singular"


def read_pairs(path: Path, say: Callable[[str], None] | None = None) -> dict[str, list[MinimalPair]]:
    """Pairs by subtask: a file of JSON lines, plain, .gz or .xz, or a folder of such files. The subtask is the file's bare name.

    A line has `good` and `bad`, or `sentence_good` and `sentence_bad`; `context` and `tag` may be there, other fields are left.
    Other files of a folder are left too, and `say` is told which. Raises InputError with file and line.
    """
    files = record_files(path)
    if say and path.is_dir() and (left := sorted(other.name for other in path.iterdir() if other not in files.values())):
        say(f"{path}: left out {', '.join(left)}")
    return {name: pairs_of(records(file)) for name, file in files.items()}


def pairs_of(records: Sequence[Record]) -> list[MinimalPair]:
    """The pairs in lines of JSON. Raises InputError with file and line."""
    pairs = []
    for record in records:
        good, bad = next((names for names in NAMES if names[0] in record.fields or names[1] in record.fields), NAMES[0])
        record.need(good, bad)
        rest = {name: record.text(name, empty=True) for name in ("context", "tag") if name in record.fields}
        pairs.append(MinimalPair(record.text(good), record.text(bad), **rest))
    return pairs


def requests(pairs: Sequence[MinimalPair]) -> list[Request]:
    """Good, bad, good, bad ..., each behind its context."""
    return [Request(pair.context + side) for pair in pairs for side in (pair.good, pair.bad)]


def pair_task(suite: str, name: str, pairs: Sequence[MinimalPair]) -> Task:
    """A subtask: of two candidates the good one, which comes first, is right."""

    def grade(log_probs: Tensor) -> Outcome:
        scores = list(log_probs.view(-1, 2))
        chosen = [(pair.good, pair.bad)[place] for pair, place in zip(pairs, choose(scores), strict=True)]
        predictions = tuple({"id": f"{name}_{index}", "pred": f" {text}"} for index, text in enumerate(chosen))
        return Outcome(tuple(choice_rows(suite, name, scores, [0] * len(pairs))), predictions)

    return scored_task(name, pairs, requests(pairs), grade)


def pair_rows(subject: Subject, suite: str, subtasks: Mapping[str, Sequence[MinimalPair]]) -> tuple[Row, ...]:
    """Rows of subtasks and of the means over them."""
    rows = [row for name, pairs in subtasks.items() for row in pair_task(suite, name, pairs).run(subject, None).rows]
    return (*rows, *means(rows, "all pairs"))


def count_tokens(tokenizer: Tokenizer, subtasks: Mapping[str, Sequence[MinimalPair]], protocol: str = "ritornello") -> int:
    """Tokens that `pair_rows` will score, equal sentences of a subtask counted once."""
    texts = [tokenized(tokenizer, requests(pairs), protocol)[0] for pairs in subtasks.values()]
    return sum(len(text) - 1 for part in texts for text in set(map(tuple, part)))
