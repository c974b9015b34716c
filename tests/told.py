"""A subject that gives each request the log-probability it is told to, and a model that writes one text."""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from ritornello.evals.subject import Request


@dataclass(frozen=True)
class Told:
    score: Callable[[Request], float]
    name: str = "told"
    sha256: str = "0"
    protocol: str = "ritornello"

    def log_probs(self, requests, progress=None):
        return torch.tensor([self.score(request) for request in requests], dtype=torch.float64)

    def counts(self, requests):
        """Letters that are scored."""
        return torch.tensor([len(request.text) - request.start for request in requests])

    def greedy(self, requests):
        """Whatever is certain."""
        return torch.tensor([self.score(request) == 0 for request in requests])


def uniform(request):
    return -1.0


def rows_of(outcome, metric):
    """The one row of that metric."""
    (row,) = [row for row in outcome.rows if row.metric == metric]
    return row
