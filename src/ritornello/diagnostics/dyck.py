"""Brackets of several kinds, never deeper than a bound (D11).

A closing bracket is shown without its kind, and the kind is asked for: that of the bracket it closes. Only closings of
brackets with something inside are asked, so looking at the symbol before does not help. A memory of depth times log2(kinds)
bits is enough.

Source: Hewitt et al. 2020, arXiv:2010.07515.
"""

import torch
from torch import Tensor

from ritornello.diagnostics.task import Task, integers


class Dyck(Task):
    """Symbol 0 closes; 1 to `kinds` open. Answer k: it closes a bracket of kind k + 1."""

    kinds, depth = 4, 4
    symbols, answers, shortest = kinds + 1, kinds, 8
    about = f"Which of {kinds} kinds of bracket is closed, asked at closings with something inside; at most {depth} are open."

    def draw(self, generator: torch.Generator, n: int, length: int) -> Tensor:
        kinds, coins = integers(generator, self.kinds, n, length) + 1, torch.rand(n, length, generator=generator)
        level, opens = torch.zeros(n, dtype=torch.long), []
        for coin in coins.unbind(1):
            opens.append((level == 0) | ((coin < 0.5) & (level < self.depth)))
            level = level + 2 * opens[-1].long() - 1
        return kinds * torch.stack(opens, 1)

    def oracle(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        n, T = inputs.shape
        opens, row = inputs > 0, torch.arange(n)
        level = (2 * opens.long() - 1).cumsum(1)
        stack, answers = inputs.new_zeros(n, T + 2), []
        for x_t, opens_t, level_t in zip(inputs.unbind(1), opens.unbind(1), level.unbind(1), strict=True):
            place = torch.where(opens_t, level_t, level_t + 1)  # of the bracket that opens or is closed here
            stack[row, place] = torch.where(opens_t, x_t, stack[row, place])
            answers.append(torch.where(opens_t, 0, stack[row, place] - 1))
        mask = ~opens
        mask[:, 1:] &= ~opens[:, :-1]
        return torch.stack(answers, 1), mask


TASKS = {"dyck": Dyck}
