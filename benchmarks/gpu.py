"""HGRN2's op on a GPU, in bfloat16, forward and backward, beside flash-linear-attention's kernel called directly: G1.

    python -m benchmarks.gpu [--rounds 20] [--keep]

65,536 tokens in rows of 4,096, width 1,024 in heads of 128; times by the GPU's own clock. Before anything is timed, the op's outputs and
gradients are compared with the float32 loop's on shorter rows, once in one document a row and once in several.
"""

import argparse
import importlib
import statistics
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.common import Row, both, errors, main
from ritornello.ops.outer import outer

HEADS, KEYS, LENGTH = 8, 128, 4096


def inputs(rows: int, length: int) -> list[Tensor]:
    """Queries, gate logits, values: (B, T, H, K) each."""
    torch.manual_seed(0)
    return [torch.randn(rows, length, HEADS, KEYS, device="cuda").bfloat16() for _ in range(3)]


def ours(state: Tensor, reset: Tensor | None, impl: str) -> Callable[..., Tensor]:
    return lambda q, f, v: outer(q, torch.sigmoid(-f), v, F.logsigmoid(f.float()), None, state=state, reset=reset, impl=impl)[0]


def check() -> None:
    q, f, v = inputs(2, 256)
    state = torch.zeros(2, HEADS, KEYS, KEYS, device="cuda")
    reset = torch.rand(2, 256, device="cuda") < 0.05
    for documents in (None, reset):
        found = both(ours(state, documents, "triton"), [q, f, v])()
        wanted = both(ours(state, documents, "loop"), [each.float() for each in (q, f, v)])()
        worst = max(errors(found, [each.double() for each in wanted]))
        print({"largest relative error": worst, "documents": documents is not None}, flush=True)
        assert worst < 3e-2, worst


def milliseconds(work: dict[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """Of a call of each, interleaved, medians, after three calls that do not count: kernels are tuned in them."""
    took: dict[str, list[float]] = {name: [] for name in work}
    for _ in range(rounds + 3):
        for name, each in work.items():
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            each()
            end.record()
            torch.cuda.synchronize()
            took[name].append(start.elapsed_time(end))
    return {name: statistics.median(times[3:]) for name, times in took.items()}


def op_rows(options: argparse.Namespace) -> Iterator[Row]:
    """G1."""
    if not torch.cuda.is_available():
        print("gpu: there is none here; left out")
        return
    check()
    rows = 2 if options.quick else 16
    leaves, state = inputs(rows, LENGTH), torch.zeros(rows, HEADS, KEYS, KEYS, device="cuda")
    kernel = importlib.import_module("fla.ops.gla").chunk_gla

    def theirs(q: Tensor, f: Tensor, v: Tensor) -> Tensor:
        y, _ = kernel(q, torch.sigmoid(-f), v, F.logsigmoid(f.float()), scale=1.0, initial_state=state, output_final_state=True)
        return y

    times = milliseconds({"ours": both(ours(state, None, "auto"), leaves), "theirs": both(theirs, leaves)}, options.rounds)
    yield {
        "row": "G1", "what": f"HGRN2's op, bfloat16, forward and backward, B={rows} T={LENGTH} H={HEADS} K={KEYS}",
        "against": "fla.ops.gla.chunk_gla", "ratio": round(times["theirs"] / times["ours"], 3), "ms": round(times["ours"], 3),
        "setting": {"initial state": "given"},
    }  # fmt: skip


PARTS = {"op": op_rows}

main(__name__, __doc__, PARTS, rounds=20)
