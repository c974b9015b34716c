"""Words of a finite group: the running product of random elements (D1, D4, D7).

    y_t = x_1 x_2 ... x_t

Parity is the group of two elements, the sum mod M the cyclic group of M. The permutations of three (s3) do not commute;
the even permutations of five (a5) and all of them (s5) cannot be put together from commutative steps at all, so tracking
them in one pass is beyond a fixed number of layers whose transitions are diagonal.

Source: parity and sum mod M as in Grazzi et al. 2024, arXiv:2411.12537, and Fan et al. 2023, arXiv:2309.07412; words of
groups as in Merrill et al. 2024, arXiv:2404.08819.
"""

from collections.abc import Sequence
from functools import cache, partial
from itertools import permutations

import torch
from torch import Tensor

from ritornello.diagnostics.task import Task, integers


class Words(Task):
    """The product so far, at every step. Element 0 is the identity; table[a, b] is the element "first a, then b"."""

    def __init__(self, table: Tensor, about: str):
        self.table, self.about = table, about
        self.symbols = self.answers = len(table)

    def draw(self, generator: torch.Generator, n: int, length: int) -> Tensor:
        return integers(generator, self.symbols, n, length)

    def oracle(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        product, products = inputs.new_zeros(len(inputs)), []
        for x_t in inputs.unbind(1):
            product = self.table[product, x_t]
            products.append(product)
        return torch.stack(products, 1), torch.ones_like(inputs, dtype=torch.bool)


def cyclic(order: int) -> Tensor:
    """The table of addition mod `order`."""
    element = torch.arange(order)
    return (element[:, None] + element) % order


@cache
def symmetric(points: int, even: bool = False) -> Tensor:
    """The table of the permutations of so many points in lexicographic order (the identity first), or of the even ones."""
    elements = [each for each in permutations(range(points)) if not even or _is_even(each)]
    number = {each: index for index, each in enumerate(elements)}
    return torch.tensor([[number[tuple(b[point] for point in a)] for b in elements] for a in elements])


def _is_even(permutation: Sequence[int]) -> bool:
    """Whether the number of pairs in the wrong order is even."""
    size = len(permutation)
    return sum(permutation[i] > permutation[j] for i in range(size) for j in range(i + 1, size)) % 2 == 0


def _permutations(points: int, even: bool, what: str) -> Words:
    return Words(symmetric(points, even), f"The product so far of {what}, asked at every step.")


TASKS = {
    "parity": lambda: Words(cyclic(2), "Is the number of ones so far odd? Asked at every step."),
    "mod-sum": lambda: Words(cyclic(5), "The sum so far of the numbers 0 to 4, mod 5, asked at every step."),
    "s3": partial(_permutations, 3, False, "permutations of three things"),
    "a5": partial(_permutations, 5, True, "even permutations of five things"),
    "s5": partial(_permutations, 5, False, "permutations of five things"),
}
