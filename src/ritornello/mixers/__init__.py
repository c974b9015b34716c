"""Every mixer by name. The names are known without importing torch; a class is imported when it is asked for."""

import importlib
from typing import TYPE_CHECKING

from ritornello.errors import unknown

if TYPE_CHECKING:
    from ritornello.mixers.base import Mixer

MIXERS = {
    "aaren": "Aaren",
    "attention": "Attention",
    "bidirectional": "Bidirectional",
    "block": "Block",
    "deltanet": "DeltaNet",
    "gated_deltanet": "GatedDeltaNet",
    "geglu": "GeGLU",
    "gelu": "GELU",
    "gla": "GLA",
    "gru": "GRU",
    "hgrn": "HGRN",
    "hgrn2": "HGRN2",
    "lru": "LRU",
    "lstm": "LSTM",
    "mamba": "Mamba",
    "mamba2": "Mamba2",
    "mingru": "MinGRU",
    "minlstm": "MinLSTM",
    "mlstm": "MLSTM",
    "retnet": "RetNet",
    "rglru": "RGLRU",
    "rnn": "RNN",
    "rwkv4": "RWKV4",
    "rwkv6": "RWKV6",
    "rwkv7": "RWKV7",
    "rwkv_channel": "RWKVChannel",
    "slstm": "SLSTM",
    "swiglu": "SwiGLU",
    "unitary": "Unitary",
    "window": "Window",
}
CHANNEL = frozenset({"geglu", "gelu", "rwkv_channel", "swiglu"})  # those that mix channels only


def mixer(name: str) -> "type[Mixer]":
    """The class behind a name of MIXERS; InputError with the nearest name if there is none."""
    if name not in MIXERS:
        raise unknown("mixer", name, MIXERS)
    return getattr(importlib.import_module(f"ritornello.mixers.{name}"), MIXERS[name])
