"""Parity of the last N bits, for several N at once (D2).

    y_t(N) = x_t + x_{t-1} + ... + x_{t-N+1}  mod 2        N = 2 ... most

One head a question. How far up a model answers right tells how long its memory is made by training: several heads at once
teach a longer one than one N after the other.

Source: Khajehabdollahi et al. 2023, arXiv:2309.12927.
"""

import torch
from torch import Tensor
from torch.nn.functional import pad

from ritornello.diagnostics.task import Task, integers


class NParity(Task):
    symbols = answers = 2

    def __init__(self, most: int = 8):
        self.most, self.heads = most, most - 1
        self.about = f"Is the number of ones among the last N bits odd, for N = 2 to {most}? Asked at every step."

    def draw(self, generator: torch.Generator, n: int, length: int) -> Tensor:
        return integers(generator, 2, n, length)

    def oracle(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        T = inputs.shape[1]
        ones = pad(inputs.cumsum(1), (self.most, 0))  # zeros before the first bit
        last = [ones[:, self.most :] - ones[:, self.most - size : self.most - size + T] for size in range(2, self.most + 1)]
        return torch.stack(last, -1) % 2, torch.ones_like(inputs, dtype=torch.bool)


TASKS = {"n-parity": NParity}
