"""The contract every mixer keeps: y, state = mixer(x, state, context).

The laws, tested for every entry of MIXERS, alone and stacked:

split    cutting x (and reset with it) anywhere and threading the state changes neither y nor the end state
causal   y[:, :t] depends on x[:, :t] and the incoming state only
reset    where context.reset[b, t], row b goes on from a fresh state *before* token t
rows     row b of y and of every state leaf depends on row b only (shapes up to left padding)
grad     gradients w.r.t. x, parameters and incoming state agree with the loop's in float64
bytes    state bytes do not grow with time, unless `grows` names the leaves that do
dtype    returned leaves have init_state's dtypes, also under autocast and with bf16 weights

Hence T = 1 is decoding, T = chunk is streaming, T = the text is training: one path, no modes.
"""

import math
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from ritornello.errors import InputError

LAWS = frozenset({"split", "causal", "reset", "rows", "grad", "bytes", "dtype"})
POSITIVE = ("eps", "rope_base")  # settings without which nothing finite comes out


@dataclass(frozen=True)
class Place:
    """Where in the model a mixer sits."""

    index: int = 0  # which layer of all
    count: int = 1  # how many layers there are
    nth: int = 0  # which of its own kind
    of: int = 1  # how many of its own kind there are


class Empty(NamedTuple):
    """The state of a mixer that remembers nothing."""


@dataclass
class Context:
    """One forward pass."""

    reset: Tensor | None = None  # (B, T) bool: a fresh state before this token; None: no reset in this piece
    impl: str = "auto"  # how ops compute; see Op.explain
    shared: dict[str, Tensor] = field(default_factory=dict)  # written by the layer with place.nth == 0, read by later ones of its kind


class Mixer(nn.Module):
    """Mixes along time or along channels: (B, T, D) -> (B, T, D), with a state that is a value."""

    laws: ClassVar[frozenset[str]] = LAWS
    grows: ClassVar[frozenset[str]] = frozenset()  # state leaves that grow with time, along axis 1
    partner: ClassVar[str | None] = "swiglu"  # the channel mixer that its paper puts above it; None: it is a whole block by itself
    plain: ClassVar[tuple[str, ...]] = ()  # parameters with neither weight decay nor Muon though they have two axes

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """What it is, never how it is computed."""

    def __init__(self, dim: int, config: Any, place: Place):
        super().__init__()
        for name in POSITIVE:
            if not 0 < getattr(config, name, 1) < math.inf:
                raise InputError(f"{type(self).__name__} {name}: {getattr(config, name)} is no positive number")
        self.dim, self.config, self.place = dim, config, place

    def reset_parameters(self) -> None:
        """The documented initialisation; also after `to_empty`."""
        raise NotImplementedError

    def init_state(self, batch: int) -> Any:
        """A fresh state for `batch` rows."""
        return Empty()

    def forward(self, x: Tensor, state: Any, context: Context) -> tuple[Tensor, Any]:
        """(B, T, D) and a state to (B, T, D) and the state after them."""
        raise NotImplementedError

    def zeros(self, *shape: int) -> Tensor:
        """Zeros for an accumulator: float32, or float64 where the weights are."""
        weight = next(self.parameters())
        return torch.zeros(shape, dtype=torch.promote_types(weight.dtype, torch.float32), device=weight.device)

    def no_past(self, *shape: int) -> Tensor:
        """Zeros for a buffer of past inputs: the weights' dtype."""
        weight = next(self.parameters())
        return torch.zeros(shape, dtype=weight.dtype, device=weight.device)
