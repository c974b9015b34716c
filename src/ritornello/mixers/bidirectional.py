"""Bidirectional: one mixer reads a piece forwards, another backwards, and a linear map joins what they say.

    y = [forwards(x); backwards(x)] W

Reading backwards is reading the flipped piece with its resets moved by one: each document is flipped where it lies, and begins
fresh at its end. A document so gives the same alone and packed between others. The forward reader's state is handed on; the
backward one begins at the piece's end and so cannot be, hence neither cutting a document nor seeing only the past is a law here:
for tagging and reading, not for predicting the next token. Padding is to be a document of its own.

Source: Schuster and Paliwal 1997; for LSTM Graves and Schmidhuber 2005.
"""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ritornello.errors import InputError
from ritornello.mixers import CHANNEL, mixer
from ritornello.mixers.base import LAWS, Context, Mixer, Place


class Bidirectional(Mixer):
    laws = LAWS - {"split", "causal"}

    @dataclass(frozen=True, kw_only=True)
    class Config(Mixer.Config):
        inner: str = "lstm"  # the mixer that reads both ways, with weights for each
        settings: dict[str, Mixer.Config] = field(default_factory=dict)  # the inner mixer's, under its name; absent: its defaults

        @staticmethod
        def member(_: str, key: str) -> type[Mixer.Config]:
            return mixer(key).Config

        def __post_init__(self) -> None:
            why = unfit(self.inner)
            if why is not None:
                raise InputError(f"bidirectional.inner: {self.inner} {why}; use a mixer such as lstm, gru or hgrn2")
            if set(self.settings) - {self.inner}:
                raise InputError(f"bidirectional.settings: {', '.join(self.settings)}; those of {self.inner} alone would be used")

    def __init__(self, dim: int, config: Config, place: Place):
        super().__init__(dim, config, place)
        inner = mixer(config.inner)
        settings = config.settings.get(config.inner, inner.Config())
        self.forwards, self.backwards = (inner(dim, settings, place) for _ in range(2))
        self.out = nn.Linear(2 * dim, dim, bias=False)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """The inner mixer's own, twice, and torch's default for the map that joins them."""
        for module in (self.forwards, self.backwards, self.out):
            module.reset_parameters()

    def init_state(self, batch: int) -> Any:
        """The forward reader's."""
        return self.forwards.init_state(batch)

    def forward(self, x: Tensor, state: Any, context: Context) -> tuple[Tensor, Any]:
        ends = None if context.reset is None else context.reset.roll(-1, 1).flip(1)  # a document's last token is read first
        y, state = self._read("forwards", x, state, context, context.reset)
        z, _ = self._read("backwards", x.flip(1), self.backwards.init_state(len(x)), context, ends)
        return self.out(torch.cat([y, z.flip(1)], -1)), state

    def _read(self, way: str, x: Tensor, state: Any, context: Context, reset: Tensor | None) -> tuple[Tensor, Any]:
        """One reader; what its kind shares across layers goes by under a name of its own."""
        prefix = f"bidirectional.{way}."
        shared = {key.removeprefix(prefix): value for key, value in context.shared.items() if key.startswith(prefix)}
        y, state = getattr(self, way)(x, state, Context(reset, context.impl, shared))
        context.shared |= {prefix + key: value for key, value in shared.items()}
        return y, state


def unfit(name: str) -> str | None:
    """Why a mixer cannot be read with both ways; None if it can."""
    if name in CHANNEL:
        return "mixes channels, not time"
    if mixer(name).grows:
        return "has a state that grows with the text"
    return None if mixer(name).laws == LAWS else "sees both ways already"
