"""Ranked statements: any file of items of which one statement is true.

A line is {"statements": [...], "answer": i}, the right one being number i from 0. The score of a statement is the sum of its tokens'
log-probabilities, or their mean per token. A file is a task.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from ritornello.evals.choices import OFFICIAL, PER_TOKEN, choice_rows, choose
from ritornello.evals.files import Record, file_tasks
from ritornello.evals.means import means
from ritornello.evals.scoring import Progress
from ritornello.evals.subject import Request, Subject
from ritornello.evals.suite import Outcome, Suite, Task, digest, spread


def statements_suite(name: str) -> Suite:
    """A suite of a folder, or a file, of ranked statements."""

    def tasks(path: Path, limit: int | None) -> list[Task]:
        return file_tasks(path, partial(_tasks, suite=name, limit=limit))

    return Suite(name, tasks, means)


def _tasks(name: str, records: Sequence[Record], suite: str, limit: int | None) -> list[Task]:
    items = []
    for record in records:
        statements = record.texts("statements")
        items.append((statements, record.index("answer", len(statements))))
    chosen = spread(items, limit)
    sizes, answers = [len(statements) for statements, _ in chosen], [answer for _, answer in chosen]
    requests = [Request(statement) for statements, _ in chosen for statement in statements]

    def run(subject: Subject, progress: Progress | None) -> Outcome:
        sums = subject.log_probs(requests, progress)
        scores, means_of = list(sums.split(sizes)), list((sums / subject.counts(requests)).split(sizes))
        rows = choice_rows(suite, name, scores, answers)
        rows += [replace(row, metric=PER_TOKEN) for row in choice_rows(suite, name, means_of, answers) if row.metric == OFFICIAL]
        return Outcome(tuple(rows), tuple({"id": f"{name}_{index}", "pred": choice} for index, choice in enumerate(choose(scores))))

    return [Task(name, digest([name, chosen]), run)]
