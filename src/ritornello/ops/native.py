"""The ops' kernels in C++ (see _native/), as torch operators: fake and autograd registered, so that compile and export take them.

They compute in float32 on the processor, on as many threads as torch uses.
"""

import ctypes
import math

import torch
from torch import Tensor

from ritornello._native.library import library

# ---- outer ---------------------------------------------------------------------------------------------------------------------------


class _Outer(ctypes.Structure):
    _fields_ = [(name, ctypes.c_int64) for name in ("B", "T", "H", "K", "V", "G", "read_first", "threads")] + [
        (name, ctypes.c_void_p) for name in ("q", "k", "v", "a", "reset")
    ]


def against(*inputs: Tensor | None) -> str | None:
    """Why the kernels cannot run on these inputs; None if they can."""
    first = inputs[0]
    assert first is not None, "the first input cannot be absent"
    if first.device.type != "cpu":
        return f"inputs are on {first.device.type}"
    if any(each is not None and each.dtype == torch.float64 for each in inputs):
        return "inputs are float64"
    return _missing()


@torch.compiler.assume_constant_result
def _missing() -> str | None:
    """Why there are no kernels."""
    found = library()
    return found if isinstance(found, str) else None


def outer(q: Tensor, k: Tensor, v: Tensor, g: Tensor, u: Tensor | None, S: Tensor, reset: Tensor | None) -> tuple[Tensor, Tensor]:
    """See ops/outer.py."""
    y, S = _outer(q, k, v, g, S, reset, u is not None)
    return (y if u is None else y + (q * u * k).sum(-1, keepdim=True) * v), S


def _arguments(q: Tensor, k: Tensor, v: Tensor, a: Tensor, reset: Tensor | None, read_first: bool) -> _Outer:
    (B, T, H, K), (V, G) = q.shape, (v.shape[-1], a.shape[-1])
    return _Outer(B, T, H, K, V, G, read_first, torch.get_num_threads(), *map(_pointer, (q, k, v, a, reset)))


def _pointer(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()


@torch.library.custom_op("ritornello::outer", mutates_args=())
def _outer(q: Tensor, k: Tensor, v: Tensor, g: Tensor, S: Tensor, reset: Tensor | None, read_first: bool) -> tuple[Tensor, Tensor]:
    q, k, v, a, S = (each.contiguous() for each in (q, k, v, g.exp(), S))
    reset = None if reset is None else reset.contiguous()
    y, end = torch.empty_like(v), torch.empty_like(S)
    arguments = _arguments(q, k, v, a, reset, read_first)
    library().ritornello_outer_forward(ctypes.byref(arguments), *map(ctypes.c_void_p, map(_pointer, (S, y, end))))  # type: ignore[union-attr]
    return y, end


@_outer.register_fake
def _(q, k, v, g, S, reset, read_first):
    return torch.empty_like(v, memory_format=torch.contiguous_format), torch.empty_like(S, memory_format=torch.contiguous_format)


@torch.library.custom_op("ritornello::outer_backward", mutates_args=())
def _outer_backward(
    q: Tensor, k: Tensor, v: Tensor, g: Tensor, S: Tensor, reset: Tensor | None, read_first: bool, end: Tensor, dy: Tensor, d_end: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    q, k, v, a, S, end, dy, d_end = (each.contiguous() for each in (q, k, v, g.exp(), S, end, dy, d_end))
    reset = None if reset is None else reset.contiguous()
    dq, dk, dv, dg, dS = (torch.empty_like(each) for each in (q, k, v, q, S))
    arguments = _arguments(q, k, v, a, reset, read_first)
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


# ---- scan ----------------------------------------------------------------------------------------------------------------------------


class _Scan(ctypes.Structure):
    _fields_ = [(name, ctypes.c_int64) for name in ("B", "T", "N", "a_row", "a_step", "complex", "threads")] + [
        (name, ctypes.c_void_p) for name in ("a", "b", "h", "reset")
    ]


def scan(a: Tensor, b: Tensor, h: Tensor, reset: Tensor | None) -> tuple[Tensor, Tensor]:
    """See ops/scan.py."""
    return _last(_scan(a, b, h, reset, False), h)


def scan_complex(a: Tensor, b: Tensor, h: Tensor, reset: Tensor | None) -> tuple[Tensor, Tensor]:
    """See ops/scan.py."""
    return _last(_scan(a, b, h, reset, True), h)


def _last(y: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
    return y, y[:, -1].clone() if y.shape[1] else h


def _scan_arguments(a: Tensor, b: Tensor, h: Tensor, reset: Tensor | None, complex_: bool) -> tuple[_Scan, tuple[Tensor | None, ...]]:
    """The struct, and the tensors it points into, to be kept until the call is over."""
    a = a.expand(b.shape)
    if a.stride()[2:] != b.contiguous().stride()[2:]:
        a = a.contiguous()
    kept = (a, b.contiguous(), h.contiguous(), None if reset is None else reset.contiguous())
    strides = [0 if size == 1 else stride for size, stride in zip(a.shape[:2], a.stride()[:2], strict=True)]
    return _Scan(*b.shape[:2], math.prod(b.shape[2:]), *strides, complex_, torch.get_num_threads(), *map(_pointer, kept)), kept


@torch.library.custom_op("ritornello::scan", mutates_args=())
def _scan(a: Tensor, b: Tensor, h: Tensor, reset: Tensor | None, complex_: bool) -> Tensor:
    y = torch.empty_like(b, memory_format=torch.contiguous_format)
    arguments, _kept = _scan_arguments(a, b, h, reset, complex_)
    library().ritornello_scan_forward(ctypes.byref(arguments), ctypes.c_void_p(_pointer(y)))  # type: ignore[union-attr]
    return y


@_scan.register_fake
def _(a, b, h, reset, complex_):
    return torch.empty_like(b, memory_format=torch.contiguous_format)


@torch.library.custom_op("ritornello::scan_backward", mutates_args=())
def _scan_backward(
    a: Tensor, b: Tensor, h: Tensor, reset: Tensor | None, complex_: bool, y: Tensor, dy: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    arguments, _kept = _scan_arguments(a, b, h, reset, complex_)
    y, dy, d_end = y.contiguous(), dy.contiguous(), torch.zeros_like(h, memory_format=torch.contiguous_format)
    da, db, dh = (torch.empty_like(each, memory_format=torch.contiguous_format) for each in (b, b, h))
    pointers = map(ctypes.c_void_p, map(_pointer, (y, dy, d_end, da, db, dh)))
    library().ritornello_scan_backward(ctypes.byref(arguments), *pointers)  # type: ignore[union-attr]
    return da.sum_to_size(a.shape), db, dh


@_scan_backward.register_fake
def _(a, b, h, reset, complex_, y, dy):
    return tuple(torch.empty_like(each, memory_format=torch.contiguous_format) for each in (a, b, h))


def _scan_keep(ctx, inputs, output) -> None:
    *tensors, ctx.complex_ = inputs
    ctx.save_for_backward(*tensors, output)


def _scan_gradients(ctx, dy: Tensor) -> tuple:
    *inputs, y = ctx.saved_tensors
    return (*_scan_backward(*inputs, ctx.complex_, y, dy), None, None)


_scan.register_autograd(_scan_gradients, setup_context=_scan_keep)


# ---- selective -----------------------------------------------------------------------------------------------------------------------

KEPT = 32  # tokens between the states that the forward pass keeps; as in selective.cpp


class _Selective(ctypes.Structure):
    _fields_ = [(name, ctypes.c_int64) for name in ("B", "T", "D", "N", "threads")] + [
        (name, ctypes.c_void_p) for name in ("x", "dt", "A", "b", "c", "h", "reset")
    ]


def selective(x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, h: Tensor, reset: Tensor | None) -> tuple[Tensor, Tensor]:
    """See ops/selective.py. The kernel's states have channels last."""
    y, end, _ = _selective(x, dt, A.mT, B, C, h.mT, reset)
    return y, end.mT


def _selective_arguments(*tensors: Tensor | None) -> tuple[_Selective, tuple[Tensor | None, ...]]:
    """The struct, and the tensors it points into, to be kept until the call is over."""
    kept = tuple(None if each is None else each.contiguous() for each in tensors)
    (rows, steps, channels), states = kept[0].shape, kept[2].shape[0]  # type: ignore[union-attr]
    return _Selective(rows, steps, channels, states, torch.get_num_threads(), *map(_pointer, kept)), kept


@torch.library.custom_op("ritornello::selective", mutates_args=())
def _selective(x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, h: Tensor, reset: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    arguments, _kept = _selective_arguments(x, dt, A, B, C, h, reset)
    outputs = _selective_outputs(x, h)
    library().ritornello_selective_forward(ctypes.byref(arguments), *map(ctypes.c_void_p, map(_pointer, outputs)))  # type: ignore[union-attr]
    return outputs


def _selective_outputs(x: Tensor, h: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return x.new_empty(x.shape), h.new_empty(h.shape), h.new_empty(h.shape[0], -(-x.shape[1] // KEPT), *h.shape[1:])


@_selective.register_fake
def _(x, dt, A, B, C, h, reset):
    return _selective_outputs(x, h)


@torch.library.custom_op("ritornello::selective_backward", mutates_args=())
def _selective_backward(
    x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, h: Tensor, reset: Tensor | None, states: Tensor, dy: Tensor, d_end: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    arguments, _kept = _selective_arguments(x, dt, A, B, C, h, reset)
    lanes = int(library().ritornello_lanes())  # type: ignore[union-attr]
    dy, d_end = dy.contiguous(), d_end.contiguous()
    dx, ddt, dh = x.new_empty(x.shape), x.new_empty(x.shape), h.new_empty(h.shape)
    dA = h.new_empty(h.shape)
    dB, dC = (B.new_empty(-(-x.shape[2] // lanes), *B.shape) for _ in range(2))
    pointers = map(ctypes.c_void_p, map(_pointer, (states, dy, d_end, dx, ddt, dA, dB, dC, dh)))
    library().ritornello_selective_backward(ctypes.byref(arguments), *pointers)  # type: ignore[union-attr]
    return dx, ddt, dA.sum(0), dB.sum(0), dC.sum(0), dh


@_selective_backward.register_fake
def _(x, dt, A, B, C, h, reset, states, dy, d_end):
    return tuple(each.new_empty(each.shape) for each in (x, dt, A, B, C, h))


def _selective_keep(ctx, inputs, output) -> None:
    ctx.save_for_backward(*inputs, output[2])


def _selective_gradients(ctx, dy: Tensor, d_end: Tensor, _: Tensor) -> tuple:
    return (*_selective_backward(*ctx.saved_tensors, dy, d_end), None)


_selective.register_autograd(_selective_gradients, setup_context=_selective_keep)


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
