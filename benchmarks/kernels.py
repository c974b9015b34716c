"""The recurrences' kernels against their Python twins and against attention, forward and backward: S1 to S4, S6, S7, S16, S19.

    python benchmarks/kernels.py [--rounds 7] [--keep] [--only outer]

One process, one thread, thread-CPU time, candidates interleaved, medians. Before anything is timed, each candidate's outputs and gradients
are compared with the float64 loop. A ratio is how many times longer the other takes. `--keep` appends a line for each row to
docs/results/speed.jsonl.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from ritornello.config import to_dict
from ritornello.ops.delta import delta
from ritornello.ops.outer import outer
from ritornello.ops.scan import scan
from ritornello.ops.selective import selective
from ritornello.provenance import collect

RESULTS = Path(__file__).resolve().parents[1] / "docs" / "results" / "speed.jsonl"
Work = Callable[[], list[Tensor]]  # outputs and gradients


def both(run: Callable[..., Tensor], leaves: list[Tensor]) -> Work:
    """Forward and backward of sum(y * w), w fixed."""
    leaves = [leaf.detach().clone().requires_grad_() for leaf in leaves]
    weight: list[Tensor] = []

    def work() -> list[Tensor]:
        y = run(*leaves)
        if not weight:
            weight.append(torch.linspace(-1, 1, y.numel()).view(y.shape).to(y.dtype))
        return [y.detach(), *torch.autograd.grad(y, leaves, weight[0])]

    return work


def indexed(q: Tensor, k: Tensor, v: Tensor, g: Tensor, S: Tensor) -> Tensor:
    """The outer loop as naive references write it, x[:, t]: its backward pass is quadratic in T."""
    outputs = []
    for t in range(q.shape[1]):
        S = g[:, t].exp()[..., None] * S + k[:, t][..., None] * v[:, t][..., None, :]
        outputs.append((q[:, t][..., None] * S).sum(-2))
    return torch.stack(outputs, 1)


def medians(work: dict[str, Work], rounds: int) -> dict[str, float]:
    """Seconds of thread-CPU time of each, interleaved; the first round is not counted."""
    took: dict[str, list[float]] = {name: [] for name in work}
    for _ in range(rounds + 1):
        for name, each in work.items():
            before = time.thread_time()
            each()
            took[name].append(time.thread_time() - before)
    return {name: statistics.median(times[1:]) for name, times in took.items()}


def errors(found: list[Tensor], wanted: list[Tensor]) -> list[float]:
    return [float((a.double() - b).norm() / b.norm().clamp_min(1e-30)) for a, b in zip(found, wanted, strict=True)]


def outer_rows(T: int, B: int, D: int, rounds: int) -> list[dict]:
    """S1 to S4 and S19: HGRN2's op, width 256 in heads of D, beside the loops, the chunk form and causal attention on the same sizes."""
    H = 256 // D
    torch.manual_seed(0)
    q, v, logits = (torch.randn(B, T, H, D) for _ in range(3))
    leaves, S = [q, logits, v], torch.zeros(B, H, D, D)

    def gated(run: Callable[..., Tensor]) -> Callable[..., Tensor]:
        return lambda q, f, v: run(q, torch.sigmoid(-f), v, F.logsigmoid(f))

    def op(impl: str, S: Tensor = S) -> Callable[..., Tensor]:
        return gated(lambda q, k, v, g: outer(q, k, v, g, None, state=S, impl=impl)[0])

    truth = both(op("loop", S.double()), [leaf.double() for leaf in leaves])()
    work = {impl: both(op(impl), leaves) for impl in ("native", "chunk", "loop")}
    work["indexed loop"] = both(gated(lambda q, k, v, g: indexed(q, k, v, g, S)), leaves)
    work["attention"] = both(
        lambda q, k, v: F.scaled_dot_product_attention(*(x.transpose(1, 2) for x in (q, k, v)), is_causal=True).transpose(1, 2), leaves
    )
    found = {name: errors(work[name](), truth) for name in ("native", "chunk", "loop")}
    assert max(found["native"][:2] + found["native"][3:]) < 5e-6, found
    slow = work.pop("indexed loop")
    times = medians(work, rounds) | medians({"indexed loop": slow}, 1)
    what = f"outer, B={B} T={T} width 256 heads of {D}"
    rows = [row(what, name, times[name] / times["native"], times["native"]) for name in times if name != "native"]
    return [*rows, {"what": what, "error": dict(zip(("y", "dq", "dgate", "dv"), found["native"], strict=True))}]


def scan_rows(rounds: int) -> list[dict]:
    """S6: the elementwise scan's share of what a triad moves in the same time."""
    B, T, N = 8, 2048, 256
    torch.manual_seed(0)
    a, b, h = torch.rand(B, T, N), torch.randn(B, T, N), torch.zeros(B, N)
    truth = both(lambda a, b: scan(a, b, state=h.double(), impl="loop")[0], [a.double(), b.double()])()
    work = {impl: both(lambda a, b, impl=impl: scan(a, b, state=h, impl=impl)[0], [a, b]) for impl in ("native", "chunk", "loop")}
    assert max(errors(work["native"](), truth)) < 5e-6
    times = medians(work, rounds)
    x, y, z = (torch.randn(B * T * N) for _ in range(3))
    raw = {
        "forward": lambda: scan(a, b, state=h, impl="native"),
        "triad": lambda: torch.add(x, y, alpha=3.0, out=z),
        "both": work["native"],
    }
    with torch.no_grad():
        forward = medians({name: raw[name] for name in ("forward", "triad")}, 4 * rounds)  # type: ignore[dict-item]
    share = forward["triad"] / forward["forward"]  # three arrays move in either
    backward = forward["triad"] * 6 / 3 / (times["native"] - forward["forward"])  # a, h and dy are read, da and db written, y read again
    what = f"scan, B={B} T={T} N={N}"
    return [
        *(row(what, name, times[name] / times["native"], times["native"]) for name in ("chunk", "loop")),
        {"what": what, "share_of_triad": {"forward": round(share, 3), "backward": round(backward, 3)}},
    ]


def selective_rows(rounds: int) -> list[dict]:
    """S7: Mamba's selective scan."""
    B, T, D, N = 2, 512, 512, 16
    torch.manual_seed(0)
    leaves = [torch.randn(B, T, D), torch.rand(B, T, D) * 0.1, -torch.rand(D, N) * N, torch.randn(B, T, N), torch.randn(B, T, N)]
    h = torch.zeros(B, D, N)
    truth = both(lambda *x: selective(*x, state=h.double(), impl="loop")[0], [leaf.double() for leaf in leaves])()
    work = {impl: both(lambda *x, impl=impl: selective(*x, state=h, impl=impl)[0], leaves) for impl in ("native", "chunk", "loop")}
    assert max(errors(work["native"](), truth)) < 1e-5
    times = medians(work, rounds)
    return [row(f"selective, B={B} T={T} D={D} N={N}", name, times[name] / times["native"], times["native"]) for name in ("chunk", "loop")]


def delta_rows(rounds: int) -> list[dict]:
    """S16: the delta rule as DeltaNet, gated DeltaNet and RWKV-7 use it."""
    B, T, H, K = 8, 512, 2, 128
    rows = []
    for name, gates in (("DeltaNet", None), ("gated DeltaNet", 1), ("RWKV-7", K)):
        torch.manual_seed(0)
        q, k, v, r, p = (torch.randn(B, T, H, K) for _ in range(5))
        p = F.normalize(p, dim=-1)
        k = p.clone() if gates != K else k * K**-0.5
        r = p * torch.rand(B, T, H, 1) if gates != K else p * torch.rand(B, T, H, K)
        leaves = [q * K**-0.5, k, v, r, p, *([] if gates is None else [-torch.rand(B, T, H, gates)])]
        S = torch.zeros(B, H, K, K)

        def call(impl: str, S: Tensor) -> Callable[..., Tensor]:
            return lambda *x: delta(*x[:5], x[5] if len(x) > 5 else None, state=S, impl=impl)[0]

        truth = both(call("loop", S.double()), [leaf.double() for leaf in leaves])()
        work = {impl: both(call(impl, S), leaves) for impl in ("native", "chunk", "loop")}
        assert max(errors(work["native"](), truth)) < 2e-5
        times = medians(work, max(2, rounds // 2))
        what = f"delta as {name}, B={B} T={T} H={H} K={K}"
        rows += [row(what, other, times[other] / times["native"], times["native"]) for other in ("chunk", "loop")]
    return rows


def row(what: str, other: str, ratio: float, native: float) -> dict:
    return {"what": what, "against": other, "ratio": round(ratio, 2), "native_ms": round(1000 * native, 2)}


def main() -> None:
    parser = argparse.ArgumentParser(description="The recurrences' kernels against their Python twins.")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--only", choices=("outer", "scan", "selective", "delta"))
    parser.add_argument("--keep", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    sizes = [(512, 8, 128), (512, 8, 64), (2048, 2, 128), (2048, 2, 64)]
    parts = {
        "outer": lambda: [line for T, B, D in sizes for line in outer_rows(T, B, D, options.rounds)],
        "scan": lambda: scan_rows(options.rounds),
        "selective": lambda: selective_rows(options.rounds),
        "delta": lambda: delta_rows(options.rounds),
    }
    made_by = to_dict(collect())
    for name, part in parts.items():
        for line in part() if options.only in (None, name) else []:
            print(line, flush=True)
            if options.keep:
                with RESULTS.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(line | {"threads": 1, "made_by": made_by}) + "\n")


if __name__ == "__main__":
    main()
