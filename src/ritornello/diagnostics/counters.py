"""Languages that need counters (D10).

anbn, anbncn   from the first b on the next letter follows: as many b (and c) as there were a, then the end
shuffle-dyck   two kinds of brackets, each balanced by itself, mixed anyhow: which kinds are open?

All answers of a string must be right. A state that is a convex mix of what was seen is bounded and cannot count on; a cell
that adds can. A string as long as `length` allows holds between half as many letters and all.

Source: Weiss et al. 2018, arXiv:1805.04908; Shuffle-Dyck Bhattamishra et al. 2020, arXiv:2009.11264.
"""

from functools import partial

import torch
from torch import Tensor

from ritornello.diagnostics.task import Task


class Powers(Task):
    """a^n b^n (c^n): symbols 1, 2 (and 3); 0 is the end, also as an answer."""

    metric = "exact"

    def __init__(self, letters: int):
        self.letters, self.shortest = letters, 2 * letters
        self.symbols = self.answers = letters + 1
        name = "".join(f"{letter}ⁿ" for letter in "abc"[:letters])
        self.about = f"The next letter of {name}, asked from the first b on; the whole string must be right."

    def draw(self, generator: torch.Generator, n: int, length: int) -> Tensor:
        most = length // self.letters
        least = max(2, (most + 1) // 2)
        power = torch.randint(least, most + 1, (n, 1), generator=generator)
        letter = torch.arange(length) // power + 1
        return letter.masked_fill(letter > self.letters, 0)

    def oracle(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        seen = (inputs[..., None] == torch.arange(self.symbols)).cumsum(1)  # (n, T, symbols), how often each
        enough = seen.gather(-1, inputs[..., None])[..., 0] == seen[..., 1]
        following = torch.where(inputs < self.letters, inputs + 1, 0)
        mask = inputs >= 2
        return torch.where(enough, following, inputs) * mask, mask


class ShuffleDyck(Task):
    """Symbols 1 and 2 open and close the first kind, 3 and 4 the second; 0 is the end. Answer bit k: is kind k open?"""

    about = "Which of two kinds of brackets are open, asked at every step; the whole string must be right."
    metric = "exact"
    symbols, answers, kinds, shortest = 5, 4, 2, 4

    def draw(self, generator: torch.Generator, n: int, length: int) -> Tensor:
        size = length - length % 2  # every bracket is closed at the end
        coins, picks = torch.rand(n, size, 2, generator=generator).unbind(-1)
        levels, steps = torch.zeros(n, self.kinds, dtype=torch.long), []
        for t in range(size):
            depth = levels.sum(1)
            opens = (depth == 0) | ((coins[:, t] < 0.5) & (depth < size - t))
            first = torch.where(opens | (levels > 0).all(1), picks[:, t] < 0.5, levels[:, 0] > 0)
            kind = 1 - first.long()
            levels[torch.arange(n), kind] += 2 * opens.long() - 1
            steps.append(2 * kind + 2 - opens.long())
        return torch.nn.functional.pad(torch.stack(steps, 1), (0, length - size))

    def oracle(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        opened = [(inputs == 2 * kind + 1).cumsum(1) - (inputs == 2 * kind + 2).cumsum(1) for kind in range(self.kinds)]
        return sum(((level > 0).long() << kind for kind, level in enumerate(opened)), torch.zeros_like(inputs)), inputs > 0


TASKS = {"anbn": partial(Powers, 2), "anbncn": partial(Powers, 3), "shuffle-dyck": ShuffleDyck}
