"""Look something up in what was read (D15, D16).

recall      pairs of a key and a value, then keys: the value of each
induction   a random text: what came after this symbol the last time?

Attention looks anything up. A matrix state K x V holds K pairs without error when keys are orthogonal, and a rule that
takes the old value out before it writes holds more of what is random; a vector has little room. Both tasks need the
previous symbol at hand: from a lower layer, a convolution or a shift.

Source: Arora et al. 2023, arXiv:2312.04927 (recall of several pairs); Olsson et al. 2022, arXiv:2209.11895 (induction).
"""

import torch
from torch import Tensor

from ritornello.diagnostics.task import Task, integers


class Recall(Task):
    """Symbols 0 to keys - 1 are keys, the others values. A third of the length is pairs, or as many as there are keys."""

    keys, values = 64, 8
    symbols, answers = keys + values, values
    about = f"The value of a key: pairs of {keys} keys and {values} values, then keys, asked at each of these."

    def draw(self, generator: torch.Generator, n: int, length: int) -> Tensor:
        pairs = min(length // 3, self.keys)
        key = torch.rand(n, self.keys, generator=generator).argsort(1)[:, :pairs]
        value = integers(generator, self.values, n, pairs) + self.keys
        query = key.gather(1, integers(generator, pairs, n, length - 2 * pairs))
        return torch.cat([torch.stack([key, value], -1).flatten(1), query], 1)

    def oracle(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        first = (inputs[:, :, None] == inputs[:, None, :]).int().argmax(-1)  # (n, T), where this symbol stood first
        mask = (first < torch.arange(inputs.shape[1])) & (inputs < self.keys)
        value = inputs.gather(1, (first + 1).clamp_max(inputs.shape[1] - 1)) - self.keys
        return value * mask, mask


class Induction(Task):
    symbols = answers = 16
    about = f"What came after this symbol the last time, in a random text of {symbols} symbols, asked wherever it had come before."

    def draw(self, generator: torch.Generator, n: int, length: int) -> Tensor:
        return integers(generator, self.symbols, n, length)

    def oracle(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        T = inputs.shape[1]
        before = torch.ones(T, T, dtype=torch.bool).tril(-1)
        same = (inputs[:, :, None] == inputs[:, None, :]) & before
        last = torch.where(same, torch.arange(T), -1).amax(-1)  # (n, T), -1: not seen before
        return inputs.gather(1, last + 1) * (last >= 0), last >= 0


TASKS = {"recall": Recall, "induction": Induction}
