"""Reber's grammar, and one inside another (D26).

A walk through a small graph writes a string; at every step one is asked which symbols may come next. In the embedded
grammar the second symbol, T or P, comes again before the last one: it has to be kept through a whole Reber string. All
answers of a string must be right.

Source: Reber 1967; Cleeremans, Servan-Schreiber and McClelland 1989; embedded as in Hochreiter and Schmidhuber 1997.
"""

import torch
from torch import Tensor

from ritornello.diagnostics.task import Task

LETTERS = "BTPSXVE"
GRAPH: dict[str, dict[str, str]] = {  # place: {letter: the place it leads to}
    "begin": {"B": "fork"},
    "fork": {"T": "s", "P": "t"},
    "s": {"S": "s", "X": "x"},
    "t": {"T": "t", "V": "v"},
    "x": {"X": "t", "S": "last"},
    "v": {"P": "x", "V": "last"},
    "last": {"E": "end"},
    "end": {},
}


def embedded() -> dict[str, dict[str, str]]:
    """B, then T or P, a string of the inner grammar, the same T or P again, E."""
    graph: dict[str, dict[str, str]] = {"begin": {"B": "choice"}, "choice": {}, "last": {"E": "end"}, "end": {}}
    for letter in "TP":
        graph["choice"][letter] = letter + "begin"
        graph |= {letter + place: {char: letter + to for char, to in steps.items()} for place, steps in GRAPH.items()}
        graph[letter + "end"] = {letter: "last"}
    return graph


class Walk(Task):
    """Strings of exactly the length asked for, each as likely as any other. An answer is a set of letters, by its place in `sets`."""

    symbols, metric = len(LETTERS), "exact"

    def __init__(self, graph: dict[str, dict[str, str]], shortest: int, about: str):
        places = list(graph)
        self.shortest, self.about, self.end = shortest, about, places.index("end")
        self.sets = sorted({"".join(sorted(steps)) for steps in graph.values() if steps})
        self.answers = len(self.sets)
        self.to = torch.full((len(places), len(LETTERS)), self.end)
        self.may = torch.zeros(len(places), len(LETTERS), dtype=torch.bool)
        for place, steps in enumerate(graph.values()):
            for letter, to in steps.items():
                self.to[place, LETTERS.index(letter)], self.may[place, LETTERS.index(letter)] = places.index(to), True
        self.asks = torch.tensor([self.sets.index("".join(sorted(steps))) if steps else 0 for steps in graph.values()])

    def draw(self, generator: torch.Generator, n: int, length: int) -> Tensor:
        ways = torch.zeros(length + 1, len(self.to), dtype=torch.float64)  # of reaching the end in so many letters
        ways[0, self.end] = 1
        for left in range(1, length + 1):
            ways[left] = (ways[left - 1][self.to] * self.may).sum(1)
        place, letters = torch.zeros(n, dtype=torch.long), []
        for left in range(length, 0, -1):
            weights = ways[left - 1][self.to[place]] * self.may[place]  # (n, letters)
            letters.append(torch.multinomial(weights, 1, generator=generator)[:, 0])
            place = self.to[place, letters[-1]]
        return torch.stack(letters, 1)

    def oracle(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        place, places = inputs.new_zeros(len(inputs)), []
        for x_t in inputs.unbind(1):
            place = self.to[place, x_t]
            places.append(place)
        at = torch.stack(places, 1)
        return self.asks[at], at != self.end


TASKS = {
    "reber": lambda: Walk(GRAPH, 5, "Which letters may come next in a Reber string, asked at every step; the whole string must be right."),
    "embedded-reber": lambda: Walk(
        embedded(), 9, "The same where a Reber string stands between two letters that must agree; the whole string must be right."
    ),
}
