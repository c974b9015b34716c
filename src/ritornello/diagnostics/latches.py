"""Tasks that a latch solves: something is written once and kept (D5, D8).

even-pairs   is the first bit the last one? (the number of places where the bits change is even exactly then)
flip-flop    write a bit, ignore bits, read the bit written last; reads are sparse

A gate that is 0 on a write and 1 on everything else solves both for ever, so a diagonal model with positive gates can.

Source: even pairs as in Deletang et al. 2022, arXiv:2207.02098; flip-flop Liu et al. 2023, arXiv:2306.00946.
"""

import torch
from torch import Tensor

from ritornello.diagnostics.task import Task, integers


class EvenPairs(Task):
    about = "Is this bit the first one? Asked at every step but the first."
    symbols = answers = 2

    def draw(self, generator: torch.Generator, n: int, length: int) -> Tensor:
        return integers(generator, 2, n, length)

    def oracle(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        mask = torch.ones_like(inputs, dtype=torch.bool)
        mask[:, 0] = False
        return (inputs == inputs[:, :1]).long(), mask


class FlipFlop(Task):
    """Symbols 0, 1 write that bit; 2, 3 are the bits 0, 1 to be ignored; 4 reads."""

    about = "The bit written last, asked at reads: one step in ten, and the last."
    symbols, answers, read = 5, 2, 4
    rare = 0.1  # the share of writes, and of reads

    def draw(self, generator: torch.Generator, n: int, length: int) -> Tensor:
        bits, chance = integers(generator, 2, n, length), torch.rand(n, length, generator=generator)
        inputs = torch.where(chance < 2 * self.rare, self.read, bits + 2)
        inputs = torch.where(chance < self.rare, bits, inputs)
        inputs[:, 0], inputs[:, -1] = bits[:, 0], self.read
        return inputs

    def oracle(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        written = torch.where(inputs < 2, torch.arange(inputs.shape[1]), 0).cummax(1).values
        return inputs.gather(1, written), inputs == self.read


TASKS = {"even-pairs": EvenPairs, "flip-flop": FlipFlop}
