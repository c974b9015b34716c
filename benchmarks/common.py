"""What the speed topics share: fair timing, relative errors, and one shape of row.

A topic is a module with PARTS, a dict of name -> function(options) that yields rows, and ends in `main(__name__, __doc__, PARTS)`:

    python -m benchmarks.kernels [--only outer] [--rounds 7] [--quick] [--keep]

Fair means: candidates interleaved in one process, the processor time of one thread, medians, the first round not counted, and nothing
timed before it is found to compute the same as the other side. `--keep` puts the rows of each part that ran in place of that part's
older ones in docs/results/speed.json; `--quick` makes everything small, to try a script.

A row is one figure with what a reader needs to judge it:

    row        "S1" as in benchmarks/targets.py; a word after it ("S13 context") for what feeds a plot or is told beside a target
    what       what was timed, in words
    against    the other side, where there is one: "loop", "attention", "onnxruntime int8"
    ratio      how many times longer the other takes; or share (of a bandwidth, a peak, the other's time: 1 = all), error (relative norm)
    setting    the other side's configuration, where it has any: {"gemm": "onednn", "precision": "bfloat16"}
    threads    set by `main` unless the row has it

and fields that tell rows of one name apart. Those that targets and plots read:

    S1-S4, S19   T, head_dim; S19 also of ("outputs", "gate gradient")
    S5           T, precision ("float32", "bfloat16"), share = our layer's time over attention's
    S6           direction ("forward", "backward"), kept_memory (malloc set as in training: true, false)
    S7 step      mixer; S16 mixer ("DeltaNet", ...); S15 mixer ("sLSTM", "GRU"), B
    S8, S9       precision, S9 also compiled (true, false)
    S10          ours, against
    S11, S14     weights ("float32", "bfloat16", "int8"), B;  S12, S14 size ("10M", "100M")
    S13          weights, context (1000, 8000)
    S13 position weights, position, ratio = time there over time at the beginning
    S13 context  who ("float32", "int8", "Llama"), context, tokens_per_second
    S18          mixer, ratio = ms a token at T=8192 over T=512;  S18 plot: mixer, T, ms_a_token
    profile      when ("before", "after"), precision, part ("matrix products", ...), ms of one step
"""

import argparse
import contextlib
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from importlib import metadata
from typing import Any

import torch
from torch import Tensor

from benchmarks import document
from ritornello._native import library
from ritornello.config import to_dict
from ritornello.provenance import collect

PEERS = ("transformers", "onnxruntime", "fla-core", "triton")  # those that a row may be measured against, where they are installed
Row = dict[str, Any]
Part = Callable[[argparse.Namespace], Iterable[Row]]
Work = Callable[[], list[Tensor]]  # outputs and gradients


def gradients(run: Callable[[], Tensor], leaves: list[Tensor]) -> Work:
    """Forward and backward of sum(y * w), w fixed and at random, as a sum of alike terms cancels: y and the gradients of the leaves."""
    weight: list[Tensor] = []

    def work() -> list[Tensor]:
        y = run()
        if not weight:
            weight.append(torch.randn(y.shape, generator=torch.Generator().manual_seed(2)).to(y))
        return [y.detach(), *torch.autograd.grad(y, leaves, weight[0])]

    return work


def both(run: Callable[..., Tensor], leaves: list[Tensor]) -> Work:
    """The same for a function of its leaves, which are copied."""
    leaves = [leaf.detach().clone().requires_grad_() for leaf in leaves]
    return gradients(lambda: run(*leaves), leaves)


def medians(
    work: dict[str, Callable[[], Any]], rounds: int, steps: int = 1, clock: Callable[[], float] = time.thread_time
) -> dict[str, float]:
    """Seconds a call of each, interleaved in turns of so many calls; the first turn is not counted."""
    took: dict[str, list[float]] = {name: [] for name in work}
    for _ in range(rounds + 1):
        for name, each in work.items():
            before = clock()
            for _ in range(steps):
                each()
            took[name].append((clock() - before) / steps)
    return {name: statistics.median(times[1:]) for name, times in took.items()}


def errors(found: list[Tensor], wanted: list[Tensor]) -> list[float]:
    """Relative, each: the norm of the difference over that of the wanted."""
    return [float((a.double() - b).norm() / b.norm().clamp_min(1e-30)) for a, b in zip(found, wanted, strict=True)]


def ratio(row: str, what: str, against: str, times: dict[str, float], ours: str = "native", **more: Any) -> Row:
    """The row of a comparison: how many times longer `against` takes than `ours`."""
    figures = {"ratio": round(times[against] / times[ours], 3), "ms": round(1000 * times[ours], 3)}
    return {"row": row, "what": what, "against": against} | figures | more


def main(
    module: str, about: str | None, parts: Mapping[str, Part], rounds: int = 7, more: Callable[[Any], Any] = lambda parser: None
) -> None:
    """A topic's command line; `more` adds its own options to the parser. Only what runs as a script does anything here."""
    if module != "__main__":
        return
    topic = sys.modules["__main__"].__spec__.name.removeprefix("benchmarks.")  # type: ignore[union-attr]
    parser = argparse.ArgumentParser(
        prog=f"python -m benchmarks.{topic}", description=about, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.set_defaults(threads=1)
    parser.add_argument("--rounds", type=int, default=rounds)
    parser.add_argument("--only", choices=tuple(parts))
    parser.add_argument("--quick", action="store_true", help="small sizes and one round: to try the script, not to measure")
    parser.add_argument("--keep", action="store_true", help="put the rows into docs/results/speed.json")
    more(parser)
    options = parser.parse_args()
    if options.quick and options.keep:
        parser.error("--quick does not measure, so there is nothing to --keep; leave one of them out")
    if options.quick:
        options.rounds = 1
    torch.set_num_threads(options.threads)
    made_by = to_dict(collect()) | {"command": " ".join([f"python -m benchmarks.{topic}", *sys.argv[1:]]), "kernels": library.active()}
    for name in PEERS:
        with contextlib.suppress(metadata.PackageNotFoundError):
            made_by["versions"][name] = metadata.version(name)
    for name, part in parts.items():
        if options.only not in (None, name):
            continue
        rows = []
        for row in part(options):
            print(row, flush=True)
            rows.append({"topic": topic, "part": name} | row | {"threads": row.get("threads", options.threads)})
        if options.keep and rows:
            document.keep(rows, made_by)
            print(*document.check(), sep="\n", flush=True)
