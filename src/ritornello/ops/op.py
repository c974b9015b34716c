"""An op: one formula, several implementations, one visible rule for which of them runs.

    y, state = op(*inputs, state=state, reset=reset, impl="auto")

Every op has a `loop`, the definition, which a student can check against the paper and which is never
optimised. The others must agree with it. `auto` takes the first implementation, in the order they were
given, that says nothing against the inputs; `explain` tells which that is and what the others said.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ritornello.errors import InputError, unknown
from ritornello.state import State, named_leaves

IMPLS = ("auto", "loop", "chunk")  # what a model may be asked for: every op has a loop, and a form in chunks


def always(*inputs: Tensor | None) -> None:
    """Nothing speaks against this implementation."""


@dataclass(frozen=True)
class Implementation:
    """How to compute, and when not to."""

    run: Callable[..., tuple[Tensor, Any]]
    against: Callable[..., str | None] = always  # inputs -> why `auto` passes it over; None if it would do
    narrow: bool = False  # takes inputs in the dtype they come in and sums in the state's; else they are cast before


def native(name: str, module: str = "native", few: int = 0, narrow: bool = False) -> Implementation:
    """The kernel of that name in C++, its module imported when it first runs. InputError if it is made to run where it cannot.

    `auto` passes it over for a first input of fewer than `few` numbers, where calling it costs more than it saves.
    """

    def against(*inputs: Tensor | None) -> str | None:
        from ritornello.ops import native as kernels

        count = inputs[0].numel()  # type: ignore[union-attr]
        return kernels.against(*inputs) or (f"{count} numbers, fewer than {few}" if count < few else None)

    def run(*arguments: Any) -> tuple[Tensor, Any]:
        from ritornello.ops import native, native_conv, native_scans

        if (reason := native.against(*arguments[:-2])) is not None:  # all but state and reset
            raise InputError(f"{name}: the native kernel cannot run here: {reason}; leave the choice to auto")
        modules = {"native": native, "native_conv": native_conv, "native_scans": native_scans}
        return getattr(modules[module], name)(*arguments)

    return Implementation(run, against, narrow)


def triton(name: str) -> Implementation:
    """The kernel of that name on a GPU; nothing is imported for it where there is none. InputError if it is made to run where it cannot."""

    def against(*inputs: Tensor | None) -> str | None:
        from ritornello.ops import triton as kernels

        return kernels.against(name, *inputs)

    def run(*arguments: Tensor | None) -> tuple[Tensor, Any]:
        if (reason := against(*arguments)) is not None:
            raise InputError(f"{name}: the GPU's kernel cannot run here: {reason}; leave the choice to auto")
        from ritornello.ops import triton as kernels

        return getattr(kernels, name)(*arguments)

    return Implementation(run, against, narrow=True)


class Op:
    """Named implementations of one formula: run(*inputs, state, reset) -> (y, state). Calling the op runs one of them.

    Autocast is off inside; inputs are cast to the dtype of the state's floating leaves and outputs back to the first
    input's. An input may be None where the formula lets it be absent. A reset (B, T) starts a row from a fresh state
    before that token.
    """

    def __init__(self, name: str, implementations: dict[str, Implementation]):
        self.name, self.implementations = name, implementations

    def __call__(self, *inputs: Tensor | None, state: State, reset: Tensor | None = None, impl: str = "auto") -> tuple[Tensor, Any]:
        first = inputs[0]
        assert first is not None, f"{self.name}: the first input cannot be absent"
        dtype = next(leaf.dtype for _, leaf in named_leaves(state) if leaf.is_floating_point())
        chosen, inputs = self._pick(inputs, impl, dtype)
        with torch.autocast(first.device.type, enabled=False):
            y, state = self.implementations[chosen].run(*inputs, state, reset)
        return y.to(first.dtype), state

    def choose(self, *inputs: Tensor | None, impl: str = "auto") -> str:
        """The name of the implementation that would run. InputError if `impl` is not one of ours."""
        return self._pick(inputs, impl, None)[0]

    def _pick(self, inputs: tuple[Tensor | None, ...], impl: str, dtype: torch.dtype | None) -> tuple[str, tuple[Tensor | None, ...]]:
        """That name, and the inputs as it takes them: cast to `dtype`, of the accumulators, unless it is narrow and they are float32."""
        if impl != "auto" and impl not in self.implementations:
            raise unknown("implementation", impl, self.implementations)
        cast: tuple[Tensor | None, ...] | None = None
        for name, each in self.implementations.items():
            taken = inputs
            if dtype is not None and not (each.narrow and dtype == torch.float32):
                cast = cast or tuple(None if tensor is None else tensor.to(dtype) for tensor in inputs)
                taken = cast
            if impl == name or (impl == "auto" and each.against(*taken) is None):
                return name, taken
        raise AssertionError(f"{self.name}: its loop, the last implementation, must take everything")

    def explain(self, *inputs: Tensor | None) -> str:
        """One line, such as "chunk; loop: comes after chunk"."""
        chosen = self.choose(*inputs)
        said = [
            f"{name}: {each.against(*inputs) or 'comes after ' + chosen}" for name, each in self.implementations.items() if name != chosen
        ]
        return "; ".join([chosen, *said])
