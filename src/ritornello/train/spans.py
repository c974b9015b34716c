"""Learning from a teacher that cuts the text into other tokens: both give every span of bytes a probability.

A span reaches from one place where a token of both ends to the next. With p the teacher's probability of it and q the student's, both to
the power 1 / T, and as an outcome against all others:

    L = T sum over spans of  p log(p / q) + (1 - p) log((1 - p) / (1 - q))

T keeps the gradient's size when T changes. Source: Minixhofer, Vulić and Ponti 2025, arXiv:2503.20083 (approximate likelihood matching).
The teacher reads a document once, so what is known of all its spans is one number each, and students train at their own speed.
"""

import numpy as np
import torch
from torch import Tensor

from ritornello.data.batches import Batch
from ritornello.ops.linear_loss import IGNORED
from ritornello.state import State

LEAST = 1e-6  # nats of a span at least: nothing is certain


def spans(own: np.ndarray, theirs: np.ndarray, nats: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of a document's targets t1 .. tn EOS: whether a span ends with each (n + 1,) bool, and the teacher's nats of it (n + 1,), else 0.

    own, theirs: the bytes from its beginning to the end of each token (n,) and (m,); nats: the teacher's, of its m tokens and EOS.
    """
    ends, of_span = np.zeros(len(own) + 1, bool), np.zeros(len(own) + 1)
    _, at, at_theirs = np.intersect1d(own, theirs, return_indices=True)
    so_far = np.cumsum(nats[:-1], dtype=np.float64)
    ends[at], of_span[at] = True, np.diff(so_far[at_theirs], prepend=0.0)
    ends[-1], of_span[-1] = True, nats[-1]
    return ends, of_span


class Aligned:
    """A lesson from the spans of all places of a corpus."""

    def __init__(self, ends: np.ndarray, nats: np.ndarray, temperature: float):
        """ends (total,) bool and nats (total,), as `spans` gives them, document after document."""
        self.ends, self.nats, self.temperature = ends, nats, temperature

    def init_state(self, batch: int) -> State:
        return ()

    def __call__(self, batch: Batch, logits: Tensor, state: State) -> tuple[Tensor, State]:
        """Spans that began before the piece are left out: what the student made of their beginning is gone."""
        assert batch.places is not None, "batches of a corpus say their places"
        places = batch.places.numpy()
        ends = torch.from_numpy(self.ends[places]).to(logits.device)
        before_first = places[:, 0] - 1  # of all it is the last place, where a document ends
        begins = torch.from_numpy(self.ends[before_first]).to(logits.device)
        wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
        targets = batch.targets
        own = -torch.nn.functional.cross_entropy(wide.flatten(0, 1), targets.flatten(), ignore_index=IGNORED, reduction="none")
        so_far = own.view(targets.shape).double().cumsum(1)
        rows, at = ends.nonzero(as_tuple=True)
        first = torch.ones_like(rows, dtype=torch.bool)
        first[1:] = rows[1:] != rows[:-1]
        before = torch.cat([so_far.new_zeros(1), so_far[rows, at][:-1]]).where(~first, 0)
        complete = ~first | begins[rows]
        known = -torch.from_numpy(self.nats[places]).to(logits.device)[rows, at].double()
        return self.temperature * _outcomes(so_far[rows, at] - before, known, self.temperature)[complete].sum().to(wide.dtype), state


def _outcomes(own: Tensor, known: Tensor, temperature: float) -> Tensor:
    """KL of "this span or another" between the teacher's and the student's log-likelihoods (n,)."""
    q, p = (each.clamp(max=-LEAST) / temperature for each in (own, known))
    return p.exp() * (p - q) + _others(p).exp() * (_others(p) - _others(q))


def _others(log_p: Tensor) -> Tensor:
    """log(1 - p)."""
    return torch.log(-torch.expm1(log_p))
