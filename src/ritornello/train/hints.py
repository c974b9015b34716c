"""Features of a teacher as a help: a learned map W takes the student's to the teacher's, whatever either is made of.

    squared   |W h - g|^2 / mean |g|^2          1 says nothing of the teacher's; Romero et al. 2014, arXiv:1412.6550 (FitNets)
    cosine    1 - cos(W h, g)                   Sanh et al. 2019, arXiv:1910.01108 (DistilBERT)

h and g are the outputs of a block of each, at one token. No attention map is asked for, so a recurrent student may learn from a
transformer and the other way round.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from ritornello.errors import InputError
from ritornello.model import LM


@dataclass(frozen=True, kw_only=True)
class HintConfig:
    weight: float = 1.0  # of the hints, against nats of a token
    distance: Literal["squared", "cosine"] = "squared"
    pairs: tuple[tuple[int, ...], ...] = ()  # [student's block, teacher's] from 1; none: all of the student's

    def __post_init__(self) -> None:
        if not 0 < self.weight < float("inf"):
            raise InputError(f"teach.hints.weight: {self.weight} is not a positive number; leave the hints out to have none")


class Hints(nn.Module):
    """The maps of the paired blocks. They are learned with the student and thrown away with the run."""

    def __init__(self, student: LM, teacher: LM, config: HintConfig):
        super().__init__()
        self.config, self.teacher = config, (teacher,)  # in a tuple: the teacher's weights are not ours
        self.pairs = paired(len(student.blocks), len(teacher.blocks), config.pairs)
        self.maps = nn.ModuleList(nn.Linear(student.config.dim, teacher.config.dim, bias=False) for _ in self.pairs)

    @contextmanager
    def heard(self, student: LM) -> Iterator[tuple[list[Tensor], list[Tensor]]]:
        """What the paired blocks of both give (B, T, D) while this is open: the student's, the teacher's."""
        with _listening(student, [a for a, _ in self.pairs]) as own, _listening(self.teacher[0], [b for _, b in self.pairs]) as theirs:
            yield own, theirs

    def forward(self, own: list[Tensor], theirs: list[Tensor], scored: Tensor) -> Tensor:
        """The distance of all pairs together, its mean over the pairs summed over the tokens that are `scored` (B, T)."""
        total = torch.zeros((), device=scored.device)
        for known, wanted, to in zip(own, theirs, self.maps, strict=True):
            guess = to(known)
            wide = torch.promote_types(guess.dtype, torch.float32)
            guess, aim = guess.to(wide), wanted.to(wide)
            if self.config.distance == "cosine":
                apart = 1 - nn.functional.cosine_similarity(guess, aim, dim=-1)
            else:
                apart = (guess - aim).square().mean(-1) / aim.square().mean()
            total = total + apart.where(scored, 0).sum()
        return total / len(self.pairs)


def paired(student: int, teacher: int, asked: tuple[tuple[int, ...], ...] = ()) -> list[tuple[int, int]]:
    """Pairs of blocks, from 0: those asked for (from 1), or each of the student's with the one at its share of the teacher's depth."""
    if not asked:
        return [(block, max(1, round((block + 1) * teacher / student)) - 1) for block in range(student)]
    for pair in asked:
        if len(pair) != 2 or not (1 <= pair[0] <= student and 1 <= pair[1] <= teacher):
            raise InputError(f"teach.hints.pairs: {list(pair)}; expected [1 .. {student} of the student, 1 .. {teacher} of the teacher]")
    return [(a - 1, b - 1) for a, b in asked]


@contextmanager
def _listening(model: LM, blocks: list[int]) -> Iterator[list[Tensor]]:
    """The outputs of these blocks of a forward pass inside, in this order."""
    heard: dict[int, Tensor] = {}
    found: list[Tensor] = []
    hooks = [
        model.blocks[block].register_forward_hook(lambda _, __, output, block=block: heard.__setitem__(block, output[0]))
        for block in set(blocks)
    ]
    try:
        yield found
        found.extend(heard[block] for block in blocks)
    finally:
        for hook in hooks:
            hook.remove()
