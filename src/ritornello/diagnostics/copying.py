"""Keep symbols and say them again, in order, after a sign (D12, D13).

copy             a few symbols, a long silence, then the symbols
repeat           half the sequence is symbols, the other half their repetition
selective-copy   a few symbols scattered in silence: the time between them is of no use

A state of b bits cannot repeat more than b / log2(kinds) random symbols.

Source: copying memory Hochreiter and Schmidhuber 1997, as in Arjovsky et al. 2015, arXiv:1511.06464; selective copying
Gu and Dao 2023, arXiv:2312.00752.
"""

from functools import partial
from typing import Literal

import torch
from torch import Tensor

from ritornello.diagnostics.task import Task, integers

SILENCE, GO = 0, 1


class Recite(Task):
    """After GO the symbols seen before it, in their order. Symbol 2 + k is answer k."""

    kinds = 8
    symbols, answers = 2 + kinds, kinds

    def __init__(self, where: Literal["start", "everywhere", "scattered"], items: int = 4):
        self.where, self.items = where, items
        self.shortest = 3 if where == "everywhere" else 2 * items
        what = {
            "start": f"The {items} symbols at the start",
            "everywhere": "Everything",
            "scattered": f"The {items} symbols scattered in silence",
        }
        self.about = f"{what[where]} again, in order, asked at the end."

    def draw(self, generator: torch.Generator, n: int, length: int) -> Tensor:
        items = length // 2 if self.where == "everywhere" else self.items
        body = items if self.where == "everywhere" else length - items
        inputs = torch.full((n, length), SILENCE)
        place = torch.arange(items).expand(n, items)
        if self.where == "scattered":
            place = torch.rand(n, body, generator=generator).argsort(1)[:, :items]
        inputs.scatter_(1, place, integers(generator, self.kinds, n, items) + 2)
        inputs[:, body] = GO
        return inputs

    def oracle(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        said = inputs > GO
        in_order = inputs.gather(1, (~said).int().argsort(dim=1, stable=True)) - 2  # (n, T), the symbols first
        since = torch.arange(inputs.shape[1]) - (inputs == GO).int().argmax(1, keepdim=True)
        mask = (since >= 0) & (since < said.sum(1, keepdim=True))
        return in_order.gather(1, since.clamp_min(0)) * mask, mask


TASKS = {"copy": partial(Recite, "start"), "repeat": partial(Recite, "everywhere"), "selective-copy": partial(Recite, "scattered")}
