"""The scans' kernels in C++ as torch operators: scan, selective and softmax_scan. See ops/native.py, whose rules they follow."""

import ctypes
import math

import torch
from torch import Tensor

from ritornello._native.library import library
from ritornello.ops.native import _pointer
from ritornello.ops.softmax_scan import State

KEPT = 32  # tokens between the states that a forward pass keeps; as in selective.cpp and softmax_scan.cpp

# ---- scan ----------------------------------------------------------------------------------------------------------------------------


class _Scan(ctypes.Structure):
    _fields_ = [(name, ctypes.c_int64) for name in ("B", "T", "N", "a_row", "a_step", "da_step", "complex", "threads")] + [
        (name, ctypes.c_void_p) for name in ("a", "b", "h", "reset")
    ]


def scan(a: Tensor, b: Tensor, h: Tensor, reset: Tensor | None) -> tuple[Tensor, Tensor]:
    """See ops/scan.py."""
    return _scan(a, b, h, reset, False)


def scan_complex(a: Tensor, b: Tensor, h: Tensor, reset: Tensor | None) -> tuple[Tensor, Tensor]:
    """See ops/scan.py."""
    return _scan(a, b, h, reset, True)


def _scan_arguments(a: Tensor, b: Tensor, h: Tensor, reset: Tensor | None, complex_: bool) -> tuple[_Scan, tuple[Tensor | None, ...]]:
    """The struct, and the tensors it points into, to be kept until the call is over. The gradient of an `a` of one step is one step."""
    steps, N = a.shape[1], math.prod(b.shape[2:])
    a = a.expand(b.shape)
    if a.stride()[2:] != b.contiguous().stride()[2:]:
        a = a.contiguous()
    kept = (a, b.contiguous(), h.contiguous(), None if reset is None else reset.contiguous())
    strides = [0 if size == 1 else stride for size, stride in zip(a.shape[:2], a.stride()[:2], strict=True)]
    return _Scan(*b.shape[:2], N, *strides, 0 if steps == 1 else N, complex_, torch.get_num_threads(), *map(_pointer, kept)), kept


@torch.library.custom_op("ritornello::scan", mutates_args=())
def _scan(a: Tensor, b: Tensor, h: Tensor, reset: Tensor | None, complex_: bool) -> tuple[Tensor, Tensor]:
    y = b.new_empty(b.shape)
    arguments, _kept = _scan_arguments(a, b, h, reset, complex_)
    library().ritornello_scan_forward(ctypes.byref(arguments), ctypes.c_void_p(_pointer(y)))  # type: ignore[union-attr]
    return y, (y[:, -1] if y.shape[1] else h).clone(memory_format=torch.contiguous_format)


@_scan.register_fake
def _(a, b, h, reset, complex_):
    return b.new_empty(b.shape), h.new_empty(h.shape)


@torch.library.custom_op("ritornello::scan_backward", mutates_args=())
def _scan_backward(
    a: Tensor, b: Tensor, h: Tensor, reset: Tensor | None, complex_: bool, y: Tensor, dy: Tensor, d_end: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    arguments, _kept = _scan_arguments(a, b, h, reset, complex_)
    dy, dh = dy.contiguous(), d_end.clone(memory_format=torch.contiguous_format)
    da, db = b.new_empty(b.shape[0], b.shape[1] if arguments.da_step else 1, *b.shape[2:]), b.new_empty(b.shape)
    pointers = map(ctypes.c_void_p, map(_pointer, (y, dy, da, db, dh)))
    library().ritornello_scan_backward(ctypes.byref(arguments), *pointers)  # type: ignore[union-attr]
    return da.sum_to_size(a.shape), db, dh


@_scan_backward.register_fake
def _(a, b, h, reset, complex_, y, dy, d_end):
    return tuple(each.new_empty(each.shape) for each in (a, b, h))


def _scan_keep(ctx, inputs, output) -> None:
    *tensors, ctx.complex_ = inputs
    ctx.save_for_backward(*tensors, output[0])


def _scan_gradients(ctx, dy: Tensor, d_end: Tensor) -> tuple:
    *inputs, y = ctx.saved_tensors
    return (*_scan_backward(*inputs, ctx.complex_, y, dy, d_end), None, None)


_scan.register_autograd(_scan_gradients, setup_context=_scan_keep)


# ---- selective -----------------------------------------------------------------------------------------------------------------------


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


# ---- softmax_scan --------------------------------------------------------------------------------------------------------------------


class _SoftmaxScan(ctypes.Structure):
    _fields_ = [(name, ctypes.c_int64) for name in ("B", "T", "N", "threads")] + [
        (name, ctypes.c_void_p) for name in ("s", "v", "w", "u", "m", "num", "den", "reset")
    ]


def softmax_scan(s: Tensor, v: Tensor, w: Tensor | None, u: Tensor | None, state: State, reset: Tensor | None) -> tuple[Tensor, State]:
    """See ops/softmax_scan.py. In the kernel every value has a logit of its own."""
    m, num, den = state
    s, (m_, den_) = s.expand(v.shape), (each.expand(num.shape) for each in (m, den))
    w, u = (None if each is None else each.expand(v.shape[2:]) for each in (w, u))
    y, m_, num, den_, _ = _softmax_scan(s, v, w, u, m_, num, den_, reset)
    once = tuple(slice(size) for size in m.shape)
    return y, State(m_[once], num, den_[once])


def _softmax_arguments(*tensors: Tensor | None) -> tuple[_SoftmaxScan, tuple[Tensor | None, ...]]:
    """The struct, and the tensors it points into, to be kept until the call is over."""
    kept = tuple(None if each is None else each.contiguous() for each in tensors)
    B, T, *rest = kept[1].shape  # type: ignore[union-attr]
    return _SoftmaxScan(B, T, math.prod(rest), torch.get_num_threads(), *map(_pointer, kept)), kept


@torch.library.custom_op("ritornello::softmax_scan", mutates_args=())
def _softmax_scan(
    s: Tensor, v: Tensor, w: Tensor | None, u: Tensor | None, m: Tensor, num: Tensor, den: Tensor, reset: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    arguments, _kept = _softmax_arguments(s, v, w, u, m, num, den, reset)
    outputs = _softmax_outputs(v, num)
    library().ritornello_softmax_scan_forward(ctypes.byref(arguments), *map(ctypes.c_void_p, map(_pointer, outputs)))  # type: ignore[union-attr]
    return outputs


def _softmax_outputs(v: Tensor, num: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    m, num_, den = (num.new_empty(num.shape) for _ in range(3))
    return v.new_empty(v.shape), m, num_, den, num.new_empty(num.shape[0], -(-v.shape[1] // KEPT), 3, *num.shape[1:])


@_softmax_scan.register_fake
def _(s, v, w, u, m, num, den, reset):
    return _softmax_outputs(v, num)


@torch.library.custom_op("ritornello::softmax_scan_backward", mutates_args=())
def _softmax_scan_backward(
    s: Tensor, v: Tensor, w: Tensor | None, u: Tensor | None, m: Tensor, num: Tensor, den: Tensor, reset: Tensor | None,
    kept: Tensor, y: Tensor, dy: Tensor, dm: Tensor, dnum: Tensor, dden: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    arguments, _kept = _softmax_arguments(s, v, w, u, m, num, den, reset)
    dy, ds, dv = dy.contiguous(), v.new_empty(v.shape), v.new_empty(v.shape)
    dw, du = num.new_empty(num.shape), num.new_empty(num.shape)
    dm, dnum, dden = (each.clone(memory_format=torch.contiguous_format) for each in (dm, dnum, dden))
    pointers = map(ctypes.c_void_p, map(_pointer, (kept, y, dy, ds, dv, dw, du, dm, dnum, dden)))
    library().ritornello_softmax_scan_backward(ctypes.byref(arguments), *pointers)  # type: ignore[union-attr]
    return ds, dv, dw.sum(0), du.sum(0), dm, dnum, dden


@_softmax_scan_backward.register_fake
def _(s, v, w, u, m, num, den, reset, kept, y, dy, dm, dnum, dden):
    return tuple(
        each.new_empty(shape) for each, shape in ((v, v.shape), (v, v.shape), (v, v.shape[2:]), (v, v.shape[2:]), *[(num, num.shape)] * 3)
    )


def _softmax_keep(ctx, inputs, output) -> None:
    ctx.save_for_backward(*inputs, output[4], output[0])


def _softmax_gradients(ctx, dy: Tensor, dm: Tensor, dnum: Tensor, dden: Tensor, _: Tensor) -> tuple:
    ds, dv, dw, du, *states = _softmax_scan_backward(*ctx.saved_tensors, dy, dm, dnum, dden)
    _, _, w, u, *_ = ctx.saved_tensors
    return ds, dv, None if w is None else dw, None if u is None else du, *states, None


_softmax_scan.register_autograd(_softmax_gradients, setup_context=_softmax_keep)
