"""An op: one formula, several implementations, one visible rule for which of them runs.

    y, state = op(*inputs, state=state, reset=reset, impl="auto")

Every op has a `loop`, the definition, which a student can check against the paper and which is never
optimised. The others must agree with it. `auto` takes the first implementation, in the order they were
given, that says nothing against the inputs; `explain` tells which that is and what the others said.
"""

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ritornello.errors import unknown


def always(*inputs: Tensor) -> None:
    """Nothing speaks against this implementation."""


@dataclass(frozen=True)
class Implementation:
    """How to compute, and when not to."""

    run: Callable[..., tuple[Tensor, Any]] | str  # the function, or "module:name", imported at first use
    against: Callable[..., str | None] = always  # inputs -> why `auto` passes it over; None if it would do

    def load(self) -> Callable[..., tuple[Tensor, Any]]:
        if not isinstance(self.run, str):
            return self.run
        module, name = self.run.split(":")
        return getattr(importlib.import_module(module), name)


class Op:
    """Named implementations of one formula. Calling it runs one of them.

    Autocast is off inside; inputs are cast to the accumulators' dtype and outputs back to the first input's.
    A reset (B, T) starts a row from a fresh state before that token.
    """

    def __init__(self, name: str, implementations: dict[str, Implementation]):
        self.name, self.implementations = name, implementations

    def __call__(self, *inputs: Tensor, state: Tensor, reset: Tensor | None = None, impl: str = "auto") -> tuple[Tensor, Any]:
        run = self.implementations[self.choose(*inputs, impl=impl)].load()
        with torch.autocast(inputs[0].device.type, enabled=False):
            y, state = run(*(tensor.to(state.dtype) for tensor in inputs), state, reset)
        return y.to(inputs[0].dtype), state

    def choose(self, *inputs: Tensor, impl: str = "auto") -> str:
        """The name of the implementation that would run. InputError if `impl` is not one of ours."""
        if impl == "auto":
            return next(name for name, each in self.implementations.items() if each.against(*inputs) is None)
        if impl not in self.implementations:
            raise unknown("implementation", impl, self.implementations)
        return impl

    def explain(self, *inputs: Tensor) -> str:
        """One line, such as "chunk; loop: needs 8 steps a token"."""
        chosen = self.choose(*inputs)
        said = [
            f"{name}: {each.against(*inputs) or 'comes after ' + chosen}" for name, each in self.implementations.items() if name != chosen
        ]
        return "; ".join([chosen, *said])
