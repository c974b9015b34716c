"""Add two marked numbers among many (D14).

    x_t = (number in (0, 1), mark)        y_T = the sum of the two numbers with mark 1

Always saying 1 has a mean squared error of 1/6, the variance of the sum. The score is the share of it that is explained,
1 - 6 (y - target)^2 in the mean: 0 for the best constant, 1 for a perfect sum, below 0 for worse than a constant.

Source: Hochreiter and Schmidhuber 1997.
"""

import torch
from torch import Tensor

from ritornello.diagnostics.task import Sample, Task

VARIANCE = 1 / 6


class Adding(Task):
    about = "The sum of the two marked numbers, one mark in each half, asked at the last step."
    symbols, answers, numbers = 1, 1, 2
    metric = "explained"

    def draw(self, generator: torch.Generator, n: int, length: int) -> Tensor:
        marks, half = torch.zeros(n, length), length // 2
        for start, end in ((0, half), (half, length)):
            marks.scatter_(1, torch.randint(start, end, (n, 1), generator=generator), 1.0)
        return torch.stack([torch.rand(n, length, generator=generator), marks], -1)

    def oracle(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        mask = torch.zeros(inputs.shape[:2], dtype=torch.bool)
        mask[:, -1] = True
        return inputs.prod(-1).cumsum(1), mask

    def loss(self, outputs: Tensor, sample: Sample) -> Tensor:
        """Mean squared error; outputs (n, T, 1)."""
        return (outputs[..., 0] - sample.targets)[sample.mask].square().mean()

    def scores(self, outputs: Tensor, sample: Sample) -> Tensor:
        """The share of the variance explained in each sequence, (n, 1)."""
        return 1 - (outputs[:, -1] - sample.targets[:, -1:]).square().double() / VARIANCE


TASKS = {"adding": Adding}
