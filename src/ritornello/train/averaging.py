"""Averages of the weights over the steps of a run; what is evaluated and kept is the average, what goes on learning are the weights.

    ema       a_t = decay a_{t-1} + (1 - decay) w_t               from step `start` on, where a is w; before it there is none
    nt-asgd   a_t = mean of w_k .. w_t                            from the step k of the trigger on

The non-monotone trigger: at a check with a held-out loss v, k is the next step if v is above the best of all checks but the last
`patience` ones. So averaging begins once the loss has not got better for so many checks.

Sources: Polyak and Juditsky 1992 (averaging); Merity, Keskar and Socher 2017, arXiv:1708.02182 (the trigger; theirs runs on plain SGD at a
constant rate). An exponential average of 0.999 is GPT-BERT's (Charpentier and Samuel 2024, arXiv:2410.24159).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from ritornello.errors import InputError


@dataclass(frozen=True, kw_only=True)
class AverageConfig:
    """Which average. A setting of the other kind is refused."""

    kind: Literal["ema", "nt-asgd"] = "ema"
    decay: float | None = None  # ema: 0.999 unless given
    start: int | None = None  # ema: the first step that counts, 0 unless given
    patience: int | None = None  # nt-asgd: checks without a better loss, 5 unless given, as in the paper

    def __post_init__(self) -> None:
        foreign = ("patience",) if self.kind == "ema" else ("decay", "start")
        for name in foreign:
            if getattr(self, name) is not None:
                raise InputError(f"train.average.{name} does not go with {self.kind}; leave it out")
        if self.decay is not None and not 0 < self.decay < 1:
            raise InputError(f"train.average.decay: {self.decay} is not between 0 and 1")
        if self.start is not None and self.start < 0:
            raise InputError(f"train.average.start: {self.start} is less than 0")
        if self.patience is not None and self.patience < 1:
            raise InputError(f"train.average.patience: {self.patience} is less than 1")


class Average:
    """The average of a module's weights so far; everything it remembers is a tensor by name."""

    def __init__(self, module: nn.Module, config: AverageConfig):
        self.named = dict(module.named_parameters())
        self.config = config
        self.mean: dict[str, Tensor] = {}  # empty: not begun
        self.count = 0  # of steps in the mean
        self.since = 0  # the last step before the first of them
        self.heard: list[float] = []  # held-out losses, nt-asgd's

    def add(self, step: int) -> None:
        """The weights as they are after `step` steps."""
        ema = self.config.kind == "ema"
        if not self.mean:
            begins = step > (self.config.start or 0) if ema else self.since > 0
            if begins:
                self.mean = {name: weight.detach().clone() for name, weight in self.named.items()}
                self.count, self.since = 1, step - 1
            return
        self.count += 1
        share = 1 - (self.config.decay or 0.999) if ema else 1 / self.count
        with torch.no_grad():
            torch._foreach_lerp_(list(self.mean.values()), [self.named[name] for name in self.mean], share)

    def hear(self, step: int, loss: float) -> None:
        """The held-out loss of the weights after `step` steps; may pull the trigger."""
        if self.config.kind == "ema" or self.since:
            return
        earlier = self.heard[: -(self.config.patience or 5)]
        if earlier and loss > min(earlier):
            self.since = step
        self.heard.append(loss)

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Within, the module has the averaged weights, if there are any yet."""
        own = {name: self.named[name].detach().clone() for name in self.mean}
        self.put(self.mean)
        try:
            yield
        finally:
            self.put(own)

    def put(self, weights: dict[str, Tensor]) -> None:
        """Give the module these weights."""
        with torch.no_grad():
            for name, weight in weights.items():
                self.named[name].copy_(weight)

    def memory(self) -> dict[str, Tensor]:
        """The average by the weights' names, and under "." what is needed to go on."""
        return self.mean | {".steps": torch.tensor([self.count, self.since]), ".heard": torch.tensor(self.heard, dtype=torch.float64)}

    def restore(self, memory: dict[str, Tensor]) -> None:
        """The inverse of `memory`."""
        self.count, self.since = memory[".steps"].tolist()
        self.heard = memory[".heard"].tolist()
        self.mean = {name: memory[name].to(own.device, copy=True) for name, own in self.named.items() if name in memory}

    def __str__(self) -> str:
        if not self.mean:
            return f"the last step's: the average ({self.config.kind}) did not begin"
        if self.config.kind == "ema":
            return f"the exponential average, decay {self.config.decay or 0.999:g}, since step {self.since + 1:,}"
        return f"the mean of {self.count:,} steps since step {self.since + 1:,} (nt-asgd)"
