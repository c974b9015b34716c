"""BEAR: which of a relation's answers makes the most probable statement?

An instance fills every answer of its relation, 5 to 60 of them (BEAR-big: to 194), into each of three templates: "[X] was born in [Y].".
The whole statement is scored, by the sum of its tokens' log-probabilities (the authors' rule) or by their mean. A relation's accuracy is
the mean over the templates; each template has a row of its own. "all instances" is the mean over instances, "all" that over relations.

Answers are balanced, so chance is 4.68 % of BEAR's 7,731 instances. BEAR's instances are those of BEAR-big that its authors call lite.
Source: Wiland, Ploner and Akbik 2024, arXiv:2404.04113.
"""

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from ritornello.errors import InputError
from ritornello.evals.choices import OFFICIAL, PER_TOKEN, TIES, choose, decisions, mean_row, not_finite
from ritornello.evals.files import Record, checksums, file_tasks, read_text
from ritornello.evals.means import macro, pooled
from ritornello.evals.report import Row
from ritornello.evals.scoring import Progress
from ritornello.evals.subject import Request, Subject
from ritornello.evals.suite import Outcome, Suite, Task, digest, spread


class Relation(NamedTuple):
    name: str
    templates: list[str]
    answers: list[str]
    instances: Sequence[tuple[str, int]]  # the subject, and the place of the right answer


def _suite(name: str, folder: str) -> Suite:
    def tasks(path: Path, limit: int | None) -> list[Task]:
        about = _metadata(path, checksums()["files"][f"{folder}/metadata_relations.json"])
        return file_tasks(path, partial(_tasks, suite=name, about=about, limit=limit), published=name)

    return Suite(name, tasks, _means)


def _metadata(path: Path, published: str) -> dict[str, dict[str, list[str]]]:
    """What is said of each relation: its templates and, in BEAR, its answers."""
    places = [path / f"metadata_relations.json{ending}" for ending in (".gz", "")]
    place = next((each for each in places if each.exists()), None)
    if place is None:
        raise InputError(f"{path}: holds no metadata_relations.json, which says the templates of each relation")
    return json.loads(read_text(place, published))


def _tasks(name: str, records: Sequence[Record], suite: str, about: dict[str, dict[str, list[str]]], limit: int | None) -> list[Task]:
    labels = [record.text("obj_label") for record in records]
    answers = about[name].get("answer_space_labels") or list(dict.fromkeys(labels))  # BEAR-big: all that occur, in that order
    subjects = [record.text("sub_label", empty=True) for record in records]  # one of BEAR-big has no name
    instances = [(subject, answers.index(label)) for subject, label in zip(subjects, labels, strict=True)]
    relation = Relation(name, about[name]["templates"], answers, spread(instances, limit))
    return [Task(name, digest(relation), partial(_run, suite, relation))]


def _run(suite: str, relation: Relation, subject: Subject, progress: Progress | None) -> Outcome:
    """A template is scored at a time: a relation of BEAR-big has up to half a million statements."""
    count, right = len(relation.templates), [answer for _, answer in relation.instances]
    sums, means = [], []
    for number, template in enumerate(relation.templates):
        requests = [Request(statement) for statement in statements(template, relation)]
        shown = (lambda done, whole, number=number: progress(number * whole + done, count * whole)) if progress else None
        scores = subject.log_probs(requests, shown)
        shape = (len(right), len(relation.answers))
        sums.append(list(scores.view(shape)))
        means.append(list((scores / subject.counts(requests)).view(shape)))
    predictions = tuple(
        {"id": f"{relation.name}_{index}", "pred": [relation.answers[choice] for choice in made]}
        for index, made in enumerate(zip(*map(choose, sums), strict=True))
    )
    return Outcome(tuple(_rows(suite, relation, sums, means)), predictions)


def statements(template: str, relation: Relation) -> list[str]:
    """Every instance with every answer, the first letter made a capital, as the authors' lm-pub-quiz does unless told otherwise."""
    texts = (template.replace("[Y]", answer).replace("[X]", subject) for subject, _ in relation.instances for answer in relation.answers)
    return [text[:1].upper() + text[1:] for text in texts]


def _rows(suite: str, relation: Relation, sums: list[list[Tensor]], means: list[list[Tensor]]) -> list[Row]:
    right, chance = [answer for _, answer in relation.instances], 1 / len(relation.answers)
    reason = not_finite([score for scores in sums for score in scores])
    by_template = [decisions(scores, right) for scores in sums]

    def row(metric: str, points: Sequence[Tensor]) -> Row:
        return mean_row(suite, relation.name, metric, torch.stack(list(points)).mean(0), None if metric == TIES else chance, reason)

    rows = [row(metric, [found[metric] for found in by_template]) for metric in by_template[0]]
    rows.append(row(PER_TOKEN, [decisions(scores, right)[OFFICIAL] for scores in means]))
    return rows + [row(f"accuracy (template {number})", [found[OFFICIAL]]) for number, found in enumerate(by_template, 1)]


def _means(rows: Sequence[Row]) -> tuple[Row, ...]:
    found: list[Row] = []
    for metric in dict.fromkeys(row.metric for row in rows):
        relations = [row for row in rows if row.metric == metric]
        found += [pooled(relations, "all instances"), macro(relations)]
    return tuple(found)


SUITE = _suite("bear", "BEAR")
BIG = _suite("bear-big", "BEAR-big")
