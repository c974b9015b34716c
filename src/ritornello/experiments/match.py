"""A model with a wanted number of parameters, so that architectures are compared at equal size.

First the coarse knob, the width or the depth, then the channel mixer's hidden width for the rest. Of all that come near enough, the model
whose channel mixer keeps most nearly its proportion to the width is taken. What the search makes is on the meta device and has one layer
of each kind, or two of one: the count of a stack is affine in how many there are of a kind.
"""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from typing import Any, Literal, NamedTuple

from ritornello.config import from_dict, to_dict
from ritornello.errors import InputError, unknown
from ritornello.experiments.scaling import head_dim
from ritornello.mixers import mixer
from ritornello.mixers.layers import MOST, describe
from ritornello.model import LMConfig, parameters

NEAR = 0.02  # of the wanted number
STEPS = (8, 2)  # between widths: those that multiply fast, and if none of them will do, finer ones
WIDEST = 2**15
AROUND = 1.4  # times smaller or larger than what would fit with the channel mixer as it is
TRIED = 16  # sizes between one and its double

Vary = Literal["dim", "layers", "channel"]
Counts = Callable[[LMConfig], int]


class Sized(NamedTuple):
    """A model that can be had."""

    config: LMConfig
    number: int  # of its parameters
    bent: float = 0.0  # |log| of how far the channel mixer is from its proportion


def match(config: LMConfig, wanted: int, *, embedding: bool = True, vary: Vary = "dim") -> LMConfig:
    """`config` with `wanted` parameters, to 2 %; with `embedding=False` the embedding and the head are not counted.

    `vary` is the coarse knob: the width, at which heads keep their size (in a model without channel mixer they become the largest that
    fit); the number of layers, the pattern going round; or the channel mixer alone. Settings in absolute numbers, such as an LSTM's
    projection, stay. InputError if `config` itself cannot be built, and with the nearest that can be had if there is none so near.
    """
    if vary not in ("dim", "layers", "channel"):
        raise unknown("knob", vary, ("dim", "layers", "channel"))
    _count(config, embedding)  # what no width would mend is said at once
    made: list[Sized] = []
    for step in STEPS:
        found = _candidates(config, vary, step, wanted, lambda each: _count(each, embedding))
        near = [each for each in found if abs(each.number - wanted) <= NEAR * wanted]
        if near:
            return min(near, key=lambda each: (each.bent, abs(each.number - wanted))).config
        made += found
    nearest = min(made, key=lambda each: abs(each.number - wanted))
    shape = f"{nearest.config.dim} wide, {len(nearest.config.layers)} layers"
    raise InputError(
        f"parameters: {describe(config.layers)} cannot have {wanted:,} by changing its {vary}; the nearest is {nearest.number:,} "
        f"({shape}); ask for that, or change another of dim, layers and channel"
    )


def _candidates(config: LMConfig, vary: Vary, step: int, wanted: int, count: Counts) -> list[Sized]:
    """The models of sizes about the one that would fit, each with the channel mixer that brings it nearest."""
    hidden = _hidden(config)
    if vary == "channel":
        if not hidden:
            raise InputError(f"parameters: channel mixer {config.channel or 'none'} has no width to change; change dim or layers")
        return [_tuned(Sized(config, count(config)), step, wanted, count)]

    @cache
    def at(size: int) -> Sized | None:
        try:
            sized = (
                replace(config, layers=_round(config.layers, size)) if vary == "layers" else _wide(config, size, keep_heads=bool(hidden))
            )
            return Sized(sized, count(sized))
        except InputError:
            return None

    sizes = range(1, MOST + 1) if vary == "layers" else range(step, WIDEST, step)
    fits = _first(sizes, at, wanted)
    below, above = _next(reversed(sizes[:fits]), at), _next(sizes[fits:], at)
    found = {size: each for size, each in (below, above) if each is not None}
    if not hidden:
        return list(found.values())
    middle = min(found)
    stride = sizes.step * max(1, 2 ** int(math.log2(max(1, middle / sizes.step / TRIED))))
    around = (size for size in sizes if size % stride == 0 and middle / AROUND <= size <= middle * AROUND)
    found |= {size: each for size in around if (each := at(size)) is not None}
    return [_tuned(each, step, wanted, count) for each in found.values()]


def _first(sizes: Sequence[int], at: Callable[[int], Sized | None], wanted: int) -> int:
    """Where in `sizes` the models begin to have `wanted` parameters; sizes that a mixer refuses go with the next that it takes."""
    low, high = 0, len(sizes)
    while low < high:
        middle = (low + high) // 2
        size, each = _next(sizes[middle:high], at)
        if each is None or each.number >= wanted:
            high = middle
        else:
            low = sizes.index(size) + 1
    return low


def _next(sizes: Any, at: Callable[[int], Sized | None]) -> tuple[int, Sized | None]:
    """The first size that every mixer takes, and the model; None if there is none."""
    return next(((size, each) for size in sizes if (each := at(size)) is not None), (0, None))


def _round(layers: tuple[str, ...], count: int) -> tuple[str, ...]:
    return tuple(layers[index % len(layers)] for index in range(count))


def _wide(config: LMConfig, dim: int, *, keep_heads: bool) -> LMConfig:
    """The config at another width, hidden widths in proportion."""
    mixers = {}
    for name in {*config.layers, *_hidden(config)}:
        own = config.mixers.get(name, mixer(name).Config())
        changed: dict[str, Any] = {}
        if getattr(own, "hidden", None):
            changed["hidden"] = max(1, round(own.hidden * dim / config.dim))  # type: ignore[attr-defined]
        if not keep_heads and hasattr(own, "head_dim"):
            changed["head_dim"] = head_dim(dim, own.head_dim)
        mixers[name] = from_dict(type(own), to_dict(own) | changed)
    return replace(config, dim=dim, mixers=config.mixers | mixers)


def _tuned(each: Sized, step: int, wanted: int, count: Counts) -> Sized:
    """The same with the hidden width that brings it nearest. Each channel of it costs the same, so two counts tell what it costs."""

    def hidden(size: int) -> LMConfig:
        own = {name: each.config.mixers.get(name, mixer(name).Config()) for name in _hidden(each.config)}
        wider = {name: from_dict(type(config), to_dict(config) | {"hidden": size}) for name, config in own.items()}
        return replace(each.config, mixers=each.config.mixers | wider)

    least = count(hidden(step))
    one = (count(hidden(2 * step)) - least) / step
    natural = step + (each.number - least) / one
    size = step * max(1, round((step + (wanted - least) / one) / step))
    return Sized(hidden(size), round(least + one * (size - step)), abs(math.log(size / natural)))


def _hidden(config: LMConfig) -> list[str]:
    """The channel mixers whose hidden width can be chosen."""
    return [name for name in dict.fromkeys(config.channels) if name is not None and hasattr(mixer(name).Config(), "hidden")]


def _count(config: LMConfig, embedding: bool) -> int:
    """As `model.parameters`, from one layer of each kind and what another of it adds."""
    kinds = Counter(config.layers)
    if config.wiring == "dense":  # each layer's inlet is wider than the one before it
        return parameters(config, embedding=embedding)
    once = parameters(replace(config, layers=tuple(kinds)), embedding=embedding)
    more = sum(
        (count - 1) * (parameters(replace(config, layers=(*kinds, kind)), embedding=embedding) - once)
        for kind, count in kinds.items()
        if count > 1
    )
    return once + more
