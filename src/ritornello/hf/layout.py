"""What a Hugging Face layout is: the settings in its config.json and the names of its weights, each beside ours.

A layout is data and two functions. `read` takes settings and gives our config, `write` the reverse; `names` pairs our weights'
names with theirs, # standing for the number of a layer; `changes` holds those weights that are stored in another form.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from torch import Tensor

from ritornello.errors import InputError
from ritornello.mixers.layers import MOST
from ritornello.model import LM, LMConfig

LARGEST = 2**24  # any size in a config.json
# What says nothing about the function: bookkeeping, training, generation, limits that a rotary or recurrent model does not have.
HARMLESS = {
    *("_name_or_path", "architectures", "dtype", "model_type", "torch_dtype", "transformers_version"),
    *("attention_dropout", "initializer_range", "max_position_embeddings", "use_cache"),
    *("bos_token_id", "eos_token_id", "pad_token_id"),
}


class Settings:
    """The table of a config.json. Whoever reads it takes every key by name; `done` refuses those that nobody took."""

    def __init__(self, table: dict[str, Any], where: str):
        self.table, self.where = table, where
        self.left = set(table) - HARMLESS

    def get(self, name: str, default: Any = None) -> Any:
        """The value as it is; null counts as absent."""
        self.left.discard(name)
        value = self.table.get(name)
        return default if value is None else value

    def size(self, name: str, default: int | None = None, most: int = LARGEST) -> int:
        """A whole number from 1 to `most`."""
        value = self.get(name, default)
        if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= most:
            raise self.error(name, value, f"with a whole number from 1 to {most:,}")
        return value

    def depth(self) -> int:
        """How many layers there are."""
        return self.size("num_hidden_layers", most=MOST)

    def number(self, name: str, default: float) -> float:
        """A positive, finite number."""
        value = self.get(name, default)
        if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value < float("inf"):
            raise self.error(name, value, "with a positive number")
        return float(value)

    def flag(self, name: str, default: bool) -> bool:
        value = self.get(name, default)
        if not isinstance(value, bool):
            raise self.error(name, value, "with true or false")
        return value

    def only(self, name: str, *known: Any) -> None:
        """The value must be one of `known`, or absent."""
        value = self.get(name)
        if value is not None and not any(value == each and isinstance(value, bool) == isinstance(each, bool) for each in known):
            raise self.error(name, value, f"with {' or '.join(map(repr, known))}" if known else "without it")

    def skip(self, *names: str) -> None:
        """Keys known to change nothing in this layout."""
        self.left.difference_update(names)

    def error(self, name: str, value: Any, wanted: str) -> InputError:
        return InputError(f"{self.where}: {name} is {ascii(value)[:80]}; such a model is read only {wanted}")

    def done(self) -> None:
        """Raise InputError if a key is left that nobody knows."""
        if self.left:
            raise InputError(
                f"{self.where}: {', '.join(ascii(name)[1:-1] for name in sorted(self.left))[:300]}: not known in this layout; "
                "if it does not change what the model computes, remove it from a copy of the file"
            )


class Stored(NamedTuple):
    """A tensor in a file, not yet read."""

    shape: tuple[int, ...]
    load: Callable[[], Tensor]


class Change(NamedTuple):
    """A weight that is stored in another form: the map out of our model, and the one back."""

    out: Callable[[Tensor], Tensor]
    back: Callable[[Tensor], Tensor]


SAME = Change(lambda weight: weight, lambda weight: weight)


@dataclass(frozen=True)
class Layout:
    model_type: str
    architecture: str
    mixers: frozenset[str]  # the time mixers that its layers are
    channel: str | None  # the channel mixer of every block
    read: Callable[[Settings], LMConfig]
    write: Callable[[LM], dict[str, Any]]
    names: dict[str, str]  # our name, or the beginning of one, with the mixer's name for "time", to theirs
    changes: dict[str, Change] = field(default_factory=dict)  # by the end of our name
    older: Callable[[dict[str, Stored]], dict[str, Stored]] = lambda stored: stored  # how earlier files of this layout become later ones

    def pairs(self, model: LM) -> Iterator[tuple[str, str, Change]]:
        """(our name, their name, change) of every weight of a model that fits the layout; a tied head is not one."""
        for name in model.state_dict():
            if not (model.config.tied and name == "head.weight"):
                change = next((change for end, change in self.changes.items() if name.endswith(end)), SAME)
                yield name, self.theirs(name, model.config.layers), change

    def theirs(self, name: str, layers: tuple[str, ...]) -> str:
        """Their name for a weight of ours."""
        parts = name.split(".")
        number = parts[1] if parts[0] == "blocks" else ""
        if number:
            parts[1] = "#"
            parts[2] = layers[int(number)] if parts[2] == "time" else parts[2]
        for size in range(len(parts), 0, -1):
            if (found := self.names.get(".".join(parts[:size]))) is not None:
                return ".".join([found.replace("#", number), *parts[size:]])
        raise InputError(f"weight {name} has no place in the {self.model_type} layout")
