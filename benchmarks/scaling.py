"""How training grows with the length of a piece: its time a token (S18) and its memory.

    python -m benchmarks.scaling [--only S18] [--rounds 3] [--quick] [--keep]

Each candidate is a process of its own, and they take a step each in turn, as in benchmarks/training_step.py: processor time of one thread.
"""

import argparse
from collections.abc import Iterator
from typing import Any

from benchmarks import common
from benchmarks.training_step import SIZES, TIMED, Candidate, race

RECURRENT = ("hgrn2", "mingru", "mamba", "lstm", "gated_deltanet", "rwkv7")
SMALL = {"vocab": 512, "dim": 128, "layers": 2}


def s18(options: argparse.Namespace) -> Iterator[common.Row]:
    """Cost a token of long pieces over that of short ones, the same rows."""
    long, size = (512, SMALL) if options.quick else (8192, {**SIZES["10M"], "layers": 4})
    for kind in (*RECURRENT, "attention"):
        base = TIMED | {"kind": kind, "size": size, "batch": 2, "threads": 1}
        found = race(options.rounds, long=base | {"length": long}, short=base | {"length": long // 16})
        each = {name: runner.seconds / 2 / length for (name, runner), length in zip(found.items(), (long, long // 16), strict=True)}
        yield {
            "row": "S18",
            "what": f"{kind}, a training step, T={long} over T={long // 16}",
            "mixer": kind,
            "ratio": round(each["long"] / each["short"], 3),
            "ms_a_token": round(1000 * each["short"], 4),
        }


def plot(options: argparse.Namespace) -> Iterator[common.Row]:
    """Cost a token at each length; attention's grows with it."""
    lengths = (64, 128) if options.quick else (512, 2048, 8192, 32768)
    for kind in (*RECURRENT, "attention"):
        base = TIMED | {"kind": kind, "size": SMALL, "batch": 1, "threads": 1}
        for length in lengths:
            each = race(1, one=base | {"length": length})["one"].seconds / length
            yield {
                "row": "S18 plot", "what": f"{kind}, a training step, T={length}", "mixer": kind, "T": length,
                "ms_a_token": round(1000 * each, 5),
            }  # fmt: skip


def memory(options: argparse.Namespace) -> Iterator[common.Row]:
    """Peak bytes of two steps of 4,096 or 8,192 tokens."""
    for name, size in ({"small": SMALL} if options.quick else SIZES).items():
        for kind in ("hgrn2", "attention"):
            for length in (64, 256) if options.quick else (512, 8192):
                for chunk in (None, 512):
                    spec = {"kind": kind, "size": size, "length": length, "batch": max(1, 4096 // length), "loss_chunk": chunk}
                    runner = Candidate(**spec, threads=1, precision="bfloat16")
                    runner.step(), runner.step()
                    how = "loss whole" if chunk is None else "loss in chunks"
                    what = f"peak memory of training, {name} {kind}, B={spec['batch']} T={length}, {how}"
                    more: dict[str, Any] = {"size": name, "mixer": kind, "T": length, "loss_chunk": chunk}
                    yield {"row": "memory", "what": what, "bytes": runner.end()["peak_memory"]} | more


PARTS = {"S18": s18, "plot": plot, "memory": memory}

common.main(__name__, __doc__, PARTS, rounds=3)
