"""The recurrences' kernels against their Python twins and against attention, forward and backward: S1 to S7, S16, S19.

    python -m benchmarks.kernels [--rounds 7] [--keep] [--only outer]

Before anything is timed, each candidate's outputs and gradients are compared with the float64 loop.
"""

import argparse
from collections.abc import Callable, Iterator
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.common import Row, Work, both, errors, gradients, main, medians, ratio
from ritornello.experiments.machine import fastest_gemm, keep_freed_memory, matrix_products
from ritornello.mixers import mixer
from ritornello.mixers.base import Context, Place
from ritornello.model import Block, LMConfig
from ritornello.ops.conv import conv
from ritornello.ops.delta import delta
from ritornello.ops.divergence import divergence_of_top
from ritornello.ops.dropout import dropout
from ritornello.ops.outer import outer
from ritornello.ops.pointwise import forget
from ritornello.ops.scan import scan, scan_complex
from ritornello.ops.selective import selective
from ritornello.ops.softmax_scan import NONE, State, softmax_scan


def indexed(q: Tensor, k: Tensor, v: Tensor, g: Tensor, S: Tensor) -> Tensor:
    """The outer loop as naive references write it, x[:, t]: its backward pass is quadratic in T."""
    outputs = []
    for t in range(q.shape[1]):
        S = g[:, t].exp()[..., None] * S + k[:, t][..., None] * v[:, t][..., None, :]
        outputs.append((q[:, t][..., None] * S).sum(-2))
    return torch.stack(outputs, 1)


def outer_rows(options: argparse.Namespace) -> Iterator[Row]:
    """S1 to S4 and S19."""
    for T, B, D in [(32, 2, 64)] if options.quick else [(512, 8, 128), (512, 8, 64), (2048, 2, 128), (2048, 2, 64)]:
        yield from outer_rows_of(T, B, D, options.rounds)


def outer_rows_of(T: int, B: int, D: int, rounds: int) -> Iterator[Row]:
    """HGRN2's op and its gates, width 256 in heads of D, beside the loops, the chunk form and causal attention on the same sizes."""
    H = 256 // D
    torch.manual_seed(0)
    q, v, logits = (torch.randn(B, T, H, D) for _ in range(3))
    leaves, S = [q, logits, v], torch.zeros(B, H, D, D)

    def gates(f: Tensor, impl: str) -> tuple[Tensor, Tensor]:
        """The key and the log decay, by the product's kernel for its own and by torch's for the others."""
        if impl != "native":
            return torch.sigmoid(-f), F.logsigmoid(f)
        k, g = forget(f.flatten(-2), torch.zeros(H * D))
        return k.view(f.shape), g.view(f.shape)

    def op(impl: str, S: Tensor = S) -> Callable[..., Tensor]:
        def run(q: Tensor, f: Tensor, v: Tensor) -> Tensor:
            k, g = gates(f, impl)
            return indexed(q, k, v, g, S) if impl == "indexed loop" else outer(q, k, v, g, None, state=S, impl=impl)[0]

        return run

    truth = both(op("loop", S.double()), [leaf.double() for leaf in leaves])()
    work = {impl: both(op(impl), leaves) for impl in ("native", "chunk", "loop", "indexed loop")}
    work["attention"] = both(
        lambda q, k, v: F.scaled_dot_product_attention(*(x.transpose(1, 2) for x in (q, k, v)), is_causal=True).transpose(1, 2), leaves
    )
    found = {name: errors(work[name](), truth) for name in ("native", "chunk", "loop")}
    assert max(found["native"][:2] + found["native"][3:]) < 5e-6, found
    slow = work.pop("indexed loop")
    times = medians(work, rounds) | medians({"indexed loop": slow}, 1)
    what, size = f"HGRN2's recurrence, B={B} T={T} width 256 heads of {D}", {"T": T, "head_dim": D}
    loops = "S1" if T <= 512 else "S2"
    for name, each in (("loop", loops), ("indexed loop", loops), ("chunk", "S3"), ("attention", "S4")):
        yield ratio(each, what, name, times, **size)
    y, dq, dgate, dv = found["native"]
    yield {"row": "S19", "what": what, "of": "outputs", "error": max(y, dq, dv), **size}
    yield {"row": "S19", "what": what, "of": "gate gradient", "error": dgate, **size}


def layer_rows(options: argparse.Namespace) -> Iterator[Row]:
    """S5: a layer of HGRN2 beside one of attention, heads of 128: norm, projections, mixer, residual. A peer has its best precision."""
    gemm = fastest_gemm(1)
    for T, B in [(32, 2)] if options.quick else [(512, 8), (2048, 2)]:
        work: dict[str, Work] = {}
        for name in ("hgrn2", "attention"):
            torch.manual_seed(0)
            mixers = {name: mixer(name).Config(head_dim=128)}
            block = Block(LMConfig(vocab=2, dim=256, layers=(name,), mixers=mixers, channel=None), Place(0, 1, 0, 1))
            leaves = [torch.randn(B, T, 256).requires_grad_(), *block.parameters()]
            for precision in ("float32", "bfloat16"):
                work[f"{name} {precision}"] = gradients(partial(_layer, block, leaves[0], precision, "auto"), leaves)
            if name == "hgrn2":
                found = errors(work["hgrn2 float32"](), gradients(partial(_layer, block, leaves[0], "float32", "loop"), leaves)())
                assert max(found) < 1e-4, found
        with matrix_products(gemm) as by:
            times = medians(work, options.rounds)
        for precision in ("float32", "bfloat16"):
            other = min(times["attention float32"], times["attention bfloat16"] if precision == "bfloat16" else torch.inf)
            best = "float32" if other == times["attention float32"] else "bfloat16"
            what = f"HGRN2's layer, forward and backward, B={B} T={T} width 256 heads of 128"
            figures = {"share": round(times[f"hgrn2 {precision}"] / other, 3), "ms": round(1000 * times[f"hgrn2 {precision}"], 3)}
            setting = {"gemm": by, "precision": best}
            yield {"row": "S5", "what": what, "against": "attention", "setting": setting, "T": T, "precision": precision} | figures


def _layer(block: Block, x: Tensor, precision: str, impl: str) -> Tensor:
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
        return block([x], block.init_state(len(x)), Context(impl=impl))[0]


def scan_rows(options: argparse.Namespace) -> Iterator[Row]:
    """S6: the elementwise scan's share of what a triad moves in the same time, with the allocator as it is and then as in training."""
    rounds, (B, T, N) = options.rounds, (2, 64, 64) if options.quick else (8, 2048, 256)
    torch.manual_seed(0)
    x, y, z = (torch.randn(B * T * N) for _ in range(3))
    for kept in (False, True):
        if kept and not keep_freed_memory():
            return
        for op, tail in ((scan, (N,)), (scan_complex, (N // 2, 2))):
            a, b, h = torch.rand(B, T, *tail) * 0.7, torch.randn(B, T, *tail), torch.zeros(B, *tail)
            call = {impl: partial(op, state=h, impl=impl) for impl in ("native", "chunk", "loop")}
            truth = both(lambda a, b, op=op, h=h: op(a, b, state=h.double(), impl="loop")[0], [a.double(), b.double()])()
            work = {impl: both(lambda a, b, each=each: each(a, b)[0], [a, b]) for impl, each in call.items()}
            assert max(errors(work["native"](), truth)) < 5e-6
            forward = {"forward": lambda a=a, b=b, each=call["native"]: each(a, b), "triad": lambda: torch.add(x, y, alpha=3.0, out=z)}
            with torch.no_grad():
                times = medians(forward, 4 * rounds)
            times |= medians(work, rounds) | medians({"backward": backward(call["native"], a, b)}, 4 * rounds)
            what, setting = f"{op.name}, B={B} T={T} N={N}", {"kept_memory": kept}
            for name in ("chunk", "loop"):
                yield ratio("scan", what, name, times, **setting)
            # forward moves three arrays, as a triad does; backward reads a, y and dy and writes da and db
            for direction, arrays in (("forward", 3), ("backward", 5)):
                share = times["triad"] * arrays / 3 / times[direction]
                row = {"row": "S6" if op is scan else "S6 complex", "what": what, "direction": direction}
                yield row | {"against": "triad", "share": round(share, 3)} | setting


def backward(run: Callable[..., tuple[Tensor, Tensor]], a: Tensor, b: Tensor) -> Callable[[], object]:
    """The backward pass alone, again and again, of one forward pass."""
    leaves = [a.clone().requires_grad_(), b.clone().requires_grad_()]
    y = run(*leaves)[0]
    weight = torch.randn_like(y)
    return lambda: torch.autograd.grad(y, leaves, weight, retain_graph=True)


def selective_rows(options: argparse.Namespace) -> Iterator[Row]:
    """S7: Mamba's selective scan."""
    B, T, D, N = (2, 32, 32, 16) if options.quick else (2, 512, 512, 16)
    torch.manual_seed(0)
    leaves = [torch.randn(B, T, D), torch.rand(B, T, D) * 0.1, -torch.rand(D, N) * N, torch.randn(B, T, N), torch.randn(B, T, N)]
    h = torch.zeros(B, D, N)
    truth = both(lambda *x: selective(*x, state=h.double(), impl="loop")[0], [leaf.double() for leaf in leaves])()
    work = {impl: both(lambda *x, impl=impl: selective(*x, state=h, impl=impl)[0], leaves) for impl in ("native", "chunk", "loop")}
    assert max(errors(work["native"](), truth)) < 1e-5
    times = medians(work, options.rounds)
    for name in ("chunk", "loop"):
        yield ratio("S7", f"selective scan, B={B} T={T} D={D} N={N}", name, times)


def softmax_rows(options: argparse.Namespace) -> Iterator[Row]:
    """The softmax recurrence as RWKV-4 and as Aaren, in heads of 64, use it."""
    B, T, D = (2, 32, 64) if options.quick else (8, 512, 256)
    for name, S, V, more in (("RWKV-4", (D,), (D,), 2), ("Aaren", (D // 64, 1), (D // 64, 64), 0)):
        torch.manual_seed(0)
        leaves = [torch.randn(B, T, *S), torch.randn(B, T, *V), *(torch.rand(S) for _ in range(more))]
        fresh = State(torch.full((B, *S), NONE), torch.zeros(B, *V), torch.zeros(B, *S))

        def call(impl: str, state: State, absent: int = 2 - more) -> Callable[..., Tensor]:
            return lambda *x: softmax_scan(*x, *[None] * absent, state=state, impl=impl)[0]

        truth = both(call("loop", State(*(each.double() for each in fresh))), [leaf.double() for leaf in leaves])()
        work = {impl: both(call(impl, fresh), leaves) for impl in ("native", "chunk", "loop")}
        assert max(errors(work["native"](), truth)) < 5e-6
        times = medians(work, options.rounds)
        for other in ("chunk", "loop"):
            yield ratio("softmax scan", f"softmax recurrence as in {name}, B={B} T={T} width {D}", other, times, mixer=name)


def delta_rows(options: argparse.Namespace) -> Iterator[Row]:
    """S16: the delta rule as DeltaNet, gated DeltaNet and RWKV-7 use it."""
    B, T, H, K = (2, 32, 2, 32) if options.quick else (8, 512, 2, 128)
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
        times = medians(work, max(2, options.rounds // 2))
        for other in ("chunk", "loop"):
            yield ratio("S16", f"delta rule as in {name}, B={B} T={T} H={H} K={K}", other, times, mixer=name)


def conv_rows(options: argparse.Namespace) -> Iterator[Row]:
    """The short convolution as Mamba has it, documents beginning here and there; in bfloat16 it is held to the float32 loop's digits."""
    B, T, D = (2, 32, 32) if options.quick else (16, 128, 512)
    for dtype, bound in ((torch.float32, 5e-6), (torch.bfloat16, 1e-2)):
        torch.manual_seed(0)
        leaves = [torch.randn(B, T, D).to(dtype), torch.randn(D, 4), torch.randn(D)]
        past, reset = torch.randn(B, 3, D), torch.rand(B, T) < 0.01

        def call(impl: str, past: Tensor, reset: Tensor = reset) -> Callable[..., Tensor]:
            return lambda *x: conv(*x, state=past, reset=reset, impl=impl)[0]

        truth = both(call("loop", past.double()), [leaf.double() for leaf in leaves])()
        work = {impl: both(call(impl, past), leaves) for impl in ("native", "chunk", "loop")}
        assert max(errors(work["native"](), truth)) < bound
        times = medians(work, options.rounds)
        for other in ("chunk", "loop"):
            name = str(dtype).removeprefix("torch.")
            yield ratio("short convolution", f"short convolution in {name}, B={B} T={T} D={D}, 4 taps", other, times, dtype=name)


def dropout_rows(options: argparse.Namespace) -> Iterator[Row]:
    """Dropout beside torch's, whose masks come from one sequence, and beside the definition in plain torch, which has the same mask."""
    B, T, D = (4, 64, 64) if options.quick else (64, 128, 256)
    for dtype in (torch.float32, torch.bfloat16):
        torch.manual_seed(0)
        leaves = [torch.randn(B, T, D).to(dtype)]
        forms: dict[str, Callable[[Tensor], Tensor]] = {
            "native": lambda x: dropout(x, 0.1),
            "definition": lambda x: dropout(x, 0.1, "loop"),
            "torch": lambda x: F.dropout(x, 0.1),
        }
        work = {name: both(_seeded(form), leaves) for name, form in forms.items()}
        assert all(torch.equal(a, b) for a, b in zip(work["native"](), work["definition"](), strict=True))
        times = medians(work, options.rounds)
        for other in ("torch", "definition"):
            name = str(dtype).removeprefix("torch.")
            yield ratio("dropout", f"dropout of a tenth in {name}, B={B} T={T} D={D}", other, times, dtype=name)


def divergence_rows(options: argparse.Namespace) -> Iterator[Row]:
    """What a student with kept teachers pays beside its cross-entropy, by the kernel and in plain torch, logits in bfloat16."""
    N, V, K = (64, 256, 4) if options.quick else (2048, 4096, 16)
    torch.manual_seed(0)
    logits, log_p = torch.randn(N, V), torch.randn(N, V).mul(2).log_softmax(-1)
    values, ids = log_p.topk(K)
    rest = torch.log1p(-values.exp().sum(-1))

    def call(impl: str, values: Tensor = values, rest: Tensor = rest) -> Callable[[Tensor], Tensor]:
        return lambda x: divergence_of_top(x, ids, values, rest, 1.0, impl)

    truth = both(call("loop", values.double(), rest.double()), [logits.to(torch.bfloat16).double()])()
    work = {impl: both(call(impl), [logits.to(torch.bfloat16)]) for impl in ("auto", "loop")}
    assert max(errors(work["auto"](), truth)) < 5e-3
    times = medians(work, options.rounds)
    times["native"] = times.pop("auto")
    yield ratio("divergence", f"divergence from the {K} likeliest of {V}, {N} places", "loop", times)


def _seeded(form: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    def run(x: Tensor) -> Tensor:
        torch.manual_seed(1)
        return form(x)

    return run


PARTS = {
    "conv": conv_rows,
    "divergence": divergence_rows,
    "dropout": dropout_rows,
    "outer": outer_rows,
    "layer": layer_rows,
    "selective": selective_rows,
    "softmax_scan": softmax_rows,
    "delta": delta_rows,
    "scan": scan_rows,
}

main(__name__, __doc__, PARTS)
