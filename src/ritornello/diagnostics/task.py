"""What every task is: a generator of sequences, an exact oracle, a chance level, a score.

    inputs, targets, mask = task.sample(generator, n, length)        targets, mask = task.oracle(inputs)

The oracle knows the answer from the inputs alone, so a sample is drawn inputs and what the oracle says to them. A model is
given inputs and must give, wherever the mask says, one of `answers` classes (for each of `heads` questions).

Scores are taken on the second half of a sequence: its first half is easy for a model that works only up to the lengths it
has seen. Where the metric is "exact" all answers of a sequence must be right, so everything is scored.
"""

from typing import Literal, NamedTuple

import torch
from torch import Tensor

from ritornello.errors import InputError


class Sample(NamedTuple):
    inputs: Tensor  # (n, T) int64 symbols, or (n, T, numbers) float32
    targets: Tensor  # (n, T) int64 classes, or (n, T, heads); float32 where numbers are asked for
    mask: Tensor  # (n, T) bool, where an answer is asked for


class Task:
    """A family of sequences of any length >= `shortest`."""

    about: str  # one sentence: what is asked, and where
    symbols: int  # kinds of input
    answers: int  # kinds of answer
    heads: int = 1  # questions asked at once
    numbers: int = 0  # the input is this many numbers a step, not a symbol
    shortest: int = 3
    metric: Literal["accuracy", "exact", "explained"] = "accuracy"

    @property
    def chance(self) -> float:
        """The score of the best constant answer."""
        return 1 / self.answers if self.metric == "accuracy" else 0.0

    def draw(self, generator: torch.Generator, n: int, length: int) -> Tensor:
        """n random inputs (n, T) of this length."""
        raise NotImplementedError

    def oracle(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """The right answers, (n, T) or (n, T, heads), and where they are asked for, (n, T)."""
        raise NotImplementedError

    def sample(self, generator: torch.Generator, n: int, length: int) -> Sample:
        """n sequences of this length with their answers; the same generator state gives the same sample."""
        if length < self.shortest:
            raise InputError(f"length {length}: this task needs at least {self.shortest}")
        inputs = self.draw(generator, n, length)
        return Sample(inputs, *self.oracle(inputs))

    def loss(self, outputs: Tensor, sample: Sample) -> Tensor:
        """Mean cross-entropy in nats over all answers; outputs are logits (n, T, heads * answers)."""
        logits = outputs[sample.mask].unflatten(-1, (self.heads, self.answers)).flatten(0, 1)
        return torch.nn.functional.cross_entropy(logits, sample.targets[sample.mask].flatten())

    def scores(self, outputs: Tensor, sample: Sample) -> Tensor:
        """The share of right answers (or whether all are right) of each sequence, (n, heads); nan where nothing is scored."""
        right = outputs.unflatten(-1, (self.heads, self.answers)).argmax(-1) == sample.targets.view(*sample.mask.shape, self.heads)
        if self.metric == "exact":
            return (right | ~sample.mask[..., None]).all(1).double()
        scored = second_half(sample.mask)[..., None]
        return (right & scored).sum(1) / scored.sum(1).double()


def second_half(mask: Tensor) -> Tensor:
    """The mask (n, T) without the first half of the time."""
    T = mask.shape[1]
    return mask & (torch.arange(T) >= T // 2)


def integers(generator: torch.Generator, high: int, *shape: int) -> Tensor:
    """Uniform from 0 to high - 1."""
    return torch.randint(high, shape, generator=generator)
