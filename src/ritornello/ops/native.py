"""The ops' kernels in C++ (see _native/), as torch operators: fake and autograd registered, so that compile and export take them.

They compute in float32 on the processor, on as many threads as torch uses.
"""

import ctypes

import torch
from torch import Tensor

from ritornello._native.library import library

# ---- outer ---------------------------------------------------------------------------------------------------------------------------


class _Outer(ctypes.Structure):
    _fields_ = [(name, ctypes.c_int64) for name in ("B", "T", "H", "K", "V", "G", "read_first", "threads")] + [
        (name, ctypes.c_void_p) for name in ("q", "k", "v", "g", "reset")
    ]


def against(*inputs: Tensor | None) -> str | None:
    """Why the kernels cannot run on these inputs; None if they can."""
    first = inputs[0]
    assert first is not None, "the first input cannot be absent"
    if first.device.type != "cpu":
        return f"inputs are on {first.device.type}"
    if any(each is not None and each.dtype == torch.float64 for each in inputs):
        return "inputs are float64"
    return missing()


@torch.compiler.assume_constant_result
def missing() -> str | None:
    """Why there are no kernels."""
    found = library()
    return found if isinstance(found, str) else None


def outer(q: Tensor, k: Tensor, v: Tensor, g: Tensor, u: Tensor | None, S: Tensor, reset: Tensor | None) -> tuple[Tensor, Tensor]:
    """See ops/outer.py."""
    y, S = _outer(q, k, v, g, S, reset, u is not None)
    return (y if u is None else y + (q * u * k).sum(-1, keepdim=True) * v), S


def _arguments(q: Tensor, k: Tensor, v: Tensor, g: Tensor, reset: Tensor | None, read_first: bool) -> _Outer:
    (B, T, H, K), (V, G) = q.shape, (v.shape[-1], g.shape[-1])
    return _Outer(B, T, H, K, V, G, read_first, torch.get_num_threads(), *map(_pointer, (q, k, v, g, reset)))


def _pointer(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()


@torch.library.custom_op("ritornello::outer", mutates_args=())
def _outer(q: Tensor, k: Tensor, v: Tensor, g: Tensor, S: Tensor, reset: Tensor | None, read_first: bool) -> tuple[Tensor, Tensor]:
    q, k, v, g, S = (each.contiguous() for each in (q, k, v, g, S))
    reset = None if reset is None else reset.contiguous()
    y, end = torch.empty_like(v), torch.empty_like(S)
    arguments = _arguments(q, k, v, g, reset, read_first)
    library().ritornello_outer_forward(ctypes.byref(arguments), *map(ctypes.c_void_p, map(_pointer, (S, y, end))))  # type: ignore[union-attr]
    return y, end


@_outer.register_fake
def _(q, k, v, g, S, reset, read_first):
    return torch.empty_like(v, memory_format=torch.contiguous_format), torch.empty_like(S, memory_format=torch.contiguous_format)


@torch.library.custom_op("ritornello::outer_backward", mutates_args=())
def _outer_backward(
    q: Tensor, k: Tensor, v: Tensor, g: Tensor, S: Tensor, reset: Tensor | None, read_first: bool, end: Tensor, dy: Tensor, d_end: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    q, k, v, g, S, end, dy, d_end = (each.contiguous() for each in (q, k, v, g, S, end, dy, d_end))
    reset = None if reset is None else reset.contiguous()
    dq, dk, dv, dg, dS = (torch.empty_like(each) for each in (q, k, v, q, S))
    arguments = _arguments(q, k, v, g, reset, read_first)
    pointers = map(ctypes.c_void_p, map(_pointer, (S, end, dy, d_end, dq, dk, dv, dg, dS)))
    library().ritornello_outer_backward(ctypes.byref(arguments), *pointers)  # type: ignore[union-attr]
    return dq, dk, dv, dg if g.shape[-1] > 1 else dg.sum(-1, keepdim=True), dS


@_outer_backward.register_fake
def _(q, k, v, g, S, reset, read_first, end, dy, d_end):
    return tuple(torch.empty_like(each, memory_format=torch.contiguous_format) for each in (q, k, v, g, S))


def _keep(ctx, inputs, output) -> None:
    *tensors, read_first = inputs
    ctx.save_for_backward(*tensors, output[1])
    ctx.read_first = read_first


def _gradients(ctx, dy: Tensor, d_end: Tensor) -> tuple:
    *inputs, end = ctx.saved_tensors
    return (*_outer_backward(*inputs, ctx.read_first, end, dy, d_end), None, None)


_outer.register_autograd(_gradients, setup_context=_keep)


# ---- delta ---------------------------------------------------------------------------------------------------------------------------


class _Delta(ctypes.Structure):
    _fields_ = [(name, ctypes.c_int64) for name in ("B", "T", "H", "K", "V", "G", "threads")] + [
        (name, ctypes.c_void_p) for name in ("q", "k", "v", "r", "p", "a", "reset")
    ]


def delta(
    q: Tensor, k: Tensor, v: Tensor, r: Tensor, p: Tensor, g: Tensor | None, S: Tensor, reset: Tensor | None
) -> tuple[Tensor, Tensor]:
    """See ops/delta.py."""
    y, end, _ = _delta(q, k, v, r, p, torch.zeros_like(q[..., :1]) if g is None else g, S, reset)
    return y, end


def _delta_arguments(*tensors: Tensor | None) -> tuple[_Delta, tuple[Tensor | None, ...]]:
    """The struct, and the tensors it points into, to be kept until the call is over."""
    q, k, v, r, p, g, reset = tensors
    kept = tuple(None if each is None else each.contiguous() for each in (q, k, v, r, p, g.exp(), reset))  # type: ignore[union-attr]
    return _Delta(*q.shape, v.shape[-1], g.shape[-1], torch.get_num_threads(), *map(_pointer, kept)), kept  # type: ignore[union-attr]


@torch.library.custom_op("ritornello::delta", mutates_args=())
def _delta(
    q: Tensor, k: Tensor, v: Tensor, r: Tensor, p: Tensor, g: Tensor, S: Tensor, reset: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    arguments, _kept = _delta_arguments(q, k, v, r, p, g, reset)
    S, y, u, end = S.contiguous(), v.new_empty(v.shape), v.new_empty(v.shape), S.new_empty(S.shape)
    library().ritornello_delta_forward(ctypes.byref(arguments), *map(ctypes.c_void_p, map(_pointer, (S, y, u, end))))  # type: ignore[union-attr]
    return y, end, u


@_delta.register_fake
def _(q, k, v, r, p, g, S, reset):
    return v.new_empty(v.shape), S.new_empty(S.shape), v.new_empty(v.shape)


@torch.library.custom_op("ritornello::delta_backward", mutates_args=())
def _delta_backward(
    q: Tensor, k: Tensor, v: Tensor, r: Tensor, p: Tensor, g: Tensor, S: Tensor, reset: Tensor | None, end: Tensor, u: Tensor, dy: Tensor,
    d_end: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    arguments, _kept = _delta_arguments(q, k, v, r, p, g, reset)
    S, end, dy, d_end, e = S.contiguous(), end.contiguous(), dy.contiguous(), d_end.contiguous(), u.new_empty(u.shape)
    dq, dk, dv, dr, dp, dg, dS = (each.new_empty(each.shape) for each in (q, k, v, r, p, q, S))
    pointers = map(ctypes.c_void_p, map(_pointer, (S, end, u, dy, d_end, e, dq, dk, dv, dr, dp, dg, dS)))
    library().ritornello_delta_backward(ctypes.byref(arguments), *pointers)  # type: ignore[union-attr]
    return dq, dk, dv, dr, dp, dg if g.shape[-1] > 1 else dg.sum(-1, keepdim=True), dS


@_delta_backward.register_fake
def _(q, k, v, r, p, g, S, reset, end, u, dy, d_end):
    return tuple(each.new_empty(each.shape) for each in (q, k, v, r, p, g, S))


def _delta_keep(ctx, inputs, output) -> None:
    ctx.save_for_backward(*inputs, *output[1:])


def _delta_gradients(ctx, dy: Tensor, d_end: Tensor, _: Tensor) -> tuple:
    return (*_delta_backward(*ctx.saved_tensors, dy, d_end), None)


_delta.register_autograd(_delta_gradients, setup_context=_delta_keep)
