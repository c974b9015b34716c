"""What there is to choose from: every mixer with its size, its state, and the ways it can be computed."""

import sys
from dataclasses import dataclass

import torch
from rich.table import Table

from ritornello.analysis.numerals import nbytes as shown_bytes
from ritornello.errors import InputError
from ritornello.experiments.scaling import model_config
from ritornello.experiments.summary import render
from ritornello.mixers import CHANNEL, MIXERS, mixer
from ritornello.mixers.base import Mixer
from ritornello.model import LM, state_nbytes
from ritornello.ops.op import Op


@dataclass(frozen=True)
class Entry:
    name: str
    what: str  # the first line of its file
    mixes: str  # "time" or "channels"
    parameters: int  # of one mixer at this width
    state_bytes: int  # of one sequence after its first token, weights in float32
    grows: bool  # whether the state grows with the text
    causal: bool
    computes: tuple[str, ...]  # by op, such as "outer: chunk, loop"


def catalogue(dim: int) -> list[Entry]:
    """Every entry of MIXERS at width `dim`, in a model whose heads fit it. InputError if a width is not possible."""
    if not 1 <= dim <= 65536:
        raise InputError(f"--dim: {dim} is out of range; the least is 1, the most 65536")
    return [_entry(name, dim) for name in sorted(MIXERS)]


def _entry(name: str, dim: int) -> Entry:
    kind, channel = mixer(name), name in CHANNEL
    config = model_config(2, dim, ("lstm",) if channel else (name,), channel=name if channel else None)
    bare = model_config(2, dim, ("lstm",), channel=None)
    with torch.device("meta"):
        block = LM(config).blocks[0]
        module: Mixer = block.channel if channel else block.time  # type: ignore[assignment]
    source = sys.modules[kind.__module__]
    ops = {op.name: op for op in vars(source).values() if isinstance(op, Op)}
    return Entry(
        name=name,
        what=(source.__doc__ or "").partition("\n")[0].rstrip("."),
        mixes="channels" if channel else "time",
        parameters=sum(weight.numel() for weight in module.parameters()),
        state_bytes=state_nbytes(config, 1) - (state_nbytes(bare, 1) if channel else 0),
        grows=bool(kind.grows),
        causal="causal" in kind.laws,
        computes=tuple(f"{op.name}: {', '.join(op.implementations)}" for op in ops.values()),
    )


def listing(entries: list[Entry], dim: int) -> str:
    """The entries as a table."""
    shown = Table(box=None, pad_edge=False)
    for column in ("mixer", "parameters", "state", "what it is"):
        shown.add_column(column, justify="right" if column in ("parameters", "state") else "left")
    for mixes, heading in (("time", None), ("channels", "between channels, for --channel")):
        if heading:
            shown.add_row("", "", "", "")
            shown.add_row(f"[bold]{heading}[/]")
        for entry in entries:
            if entry.mixes == mixes:
                size = shown_bytes(entry.state_bytes) + (" a token" if entry.grows else "") if entry.state_bytes else "none"
                shown.add_row(entry.name, f"{entry.parameters:,}", size, entry.what)
    return f"One mixer in a model {dim} wide; the state is what it remembers of one text.\n\n{render(shown)}"
