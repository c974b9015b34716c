"""The matrix recurrences on a GPU, by the Triton kernels of flash-linear-attention where that package is installed.

Source: Yang et al. 2023, arXiv:2312.06635; Yang et al. 2024, arXiv:2406.06484; version 0.6.0 of the package. Its conventions: log decays,
queries scaled by K^-0.5 unless told otherwise, states (N, H, K, V) in float32, N documents packed into one row with their bounds. So a
reset ends a document here: each row's first one goes on from the incoming state, later ones start from nothing.

Its generalised delta rule S = (diag(exp gk) + b a') S + k v' is ours (see ops/delta.py) with a = p and b = -r.
"""

import importlib
import importlib.util
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ritornello.ops.outer import few_steps

FASTEST = -20.0  # a step's log decay: an infinite one, minus itself, would be no number
WIDEST = 256  # keys of the delta rule's kernels


def against(name: str, *inputs: Tensor | None) -> str | None:
    """Why the kernel of that name cannot run on these inputs; None if it can."""
    q = inputs[0]
    assert q is not None, "the first input cannot be absent"
    if q.device.type != "cuda":
        return f"inputs are on {q.device.type}" if torch.cuda.is_available() else "no GPU"
    missing = [package for package in ("fla", "triton") if importlib.util.find_spec(package) is None]
    if missing:
        return "flash-linear-attention is not installed" if "fla" in missing else "triton is not installed"
    return _unfit(name, q)


def _unfit(name: str, q: Tensor) -> str | None:
    if q.dtype not in (torch.bfloat16, torch.float16, torch.float32):
        return f"inputs are {str(q.dtype).removeprefix('torch.')}"
    if q.dtype == torch.float32 and name == "delta":
        return "inputs are float32, which these kernels take on some GPUs only"
    if q.dtype == torch.float32 and torch.get_float32_matmul_precision() == "highest":
        return "inputs are float32 and these kernels multiply in TF32; torch.set_float32_matmul_precision('high') allows it"
    if name == "delta" and q.shape[-1] > WIDEST:
        return f"keys of {q.shape[-1]}, wider than {WIDEST}"
    return few_steps(q)


def outer(q: Tensor, k: Tensor, v: Tensor, g: Tensor, u: Tensor | None, S: Tensor, reset: Tensor | None) -> tuple[Tensor, Tensor]:
    """See ops/outer.py. With a bonus, RWKV-6's kernel; with one decay a head, that of simple GLA; with one a channel, GLA's."""
    g = g.float().clamp_min(FASTEST)
    if u is not None:
        run = _kernel("rwkv6", "chunk_rwkv6")
        return _packed(lambda **x: run(u=u, **x), {"r": q, "k": k, "v": v, "w": g.expand_as(q)}, S, reset)
    if g.shape[-1] == 1 and q.shape[-1] != 1:
        return _packed(_kernel("simple_gla", "chunk_simple_gla"), {"q": q, "k": k, "v": v, "g": g[..., 0]}, S, reset)
    return _packed(_kernel("gla", "chunk_gla"), {"q": q, "k": k, "v": v, "g": g}, S, reset)


def delta(
    q: Tensor, k: Tensor, v: Tensor, r: Tensor, p: Tensor, g: Tensor | None, S: Tensor, reset: Tensor | None
) -> tuple[Tensor, Tensor]:
    """See ops/delta.py. The kernel of RWKV-7, whatever the decays."""
    g = torch.zeros_like(q[..., :1]) if g is None else g
    inputs = {"q": q, "k": k, "v": v, "a": p, "b": -r, "gk": g.float().clamp_min(FASTEST).expand_as(q)}
    return _packed(_kernel("generalized_delta_rule", "chunk_dplr_delta_rule"), inputs, S, reset)


def _kernel(module: str, name: str) -> Callable[..., tuple[Tensor, Tensor]]:
    return getattr(importlib.import_module(f"fla.ops.{module}"), name)


def _packed(run: Callable[..., Any], inputs: dict[str, Tensor], S: Tensor, reset: Tensor | None) -> tuple[Tensor, Tensor]:
    """Runs a kernel on inputs (B, T, H, ...) from the states S (B, H, K, V): y (B, T, H, V) and the last states."""
    first = next(iter(inputs.values()))
    decays = ("g", "gk", "w")  # in float32, as their sums over a chunk are what is exponentiated
    inputs = {name: (x if name in decays else x.to(first.dtype)).contiguous() for name, x in inputs.items()}
    if reset is None:
        return run(**inputs, scale=1.0, initial_state=S.contiguous(), output_final_state=True)
    B, T = reset.shape
    bounds = reset.clone()
    bounds[:, 0] = True  # a row's first document
    starts = bounds.flatten().nonzero()[:, 0]
    row, goes_on = starts // T, ~reset.flatten()[starts]
    last = torch.cat([row[1:] != row[:-1], row.new_ones(1, dtype=torch.bool)])
    states = torch.where(goes_on[:, None, None, None], S[row], 0)
    inputs = {name: x.reshape(1, B * T, *x.shape[2:]) for name, x in inputs.items()}
    edges = torch.cat([starts, starts.new_full((1,), B * T)])
    y, ends = run(**inputs, scale=1.0, initial_state=states, output_final_state=True, cu_seqlens=edges)
    return y.reshape(B, T, *y.shape[2:]), ends[last]
