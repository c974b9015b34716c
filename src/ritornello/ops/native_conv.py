"""The short convolution's kernel in C++ (see _native/conv.cpp) as a torch operator. See ops/native.py, whose rules it follows."""

import ctypes

import torch
from torch import Tensor

from ritornello._native.library import library
from ritornello.ops.native import _pointer


class _Conv(ctypes.Structure):
    _fields_ = [(name, ctypes.c_int64) for name in ("B", "T", "D", "W", "narrow", "threads")] + [
        (name, ctypes.c_void_p) for name in ("x", "w", "bias", "past", "reset")
    ]


def conv(x: Tensor, weight: Tensor, bias: Tensor | None, past: Tensor, reset: Tensor | None) -> tuple[Tensor, Tensor]:
    """See ops/conv.py. x: float32 or bfloat16, and so is y; the rest is float32. The kernel has the newest token's tap first."""
    wide = x if x.dtype in (torch.float32, torch.bfloat16) else x.float()
    return _conv(wide, weight.float().mT.flip(0), None if bias is None else bias.float(), past, reset)


def _arguments(x: Tensor, w: Tensor, bias: Tensor | None, past: Tensor, reset: Tensor | None) -> tuple[_Conv, tuple[Tensor | None, ...]]:
    """The struct, and the tensors it points into, to be kept until the call is over."""
    kept = tuple(None if each is None else each.contiguous() for each in (x, w, bias, past, reset))
    return _Conv(*x.shape, w.shape[0], x.dtype == torch.bfloat16, torch.get_num_threads(), *map(_pointer, kept)), kept


@torch.library.custom_op("ritornello::conv", mutates_args=())
def _conv(x: Tensor, w: Tensor, bias: Tensor | None, past: Tensor, reset: Tensor | None) -> tuple[Tensor, Tensor]:
    arguments, _kept = _arguments(x, w, bias, past, reset)
    y, end = x.new_empty(x.shape), past.new_empty(past.shape)
    library().ritornello_conv_forward(ctypes.byref(arguments), *map(ctypes.c_void_p, map(_pointer, (y, end))))  # type: ignore[union-attr]
    return y, end


@_conv.register_fake
def _(x, w, bias, past, reset):
    return x.new_empty(x.shape), past.new_empty(past.shape)


@torch.library.custom_op("ritornello::conv_backward", mutates_args=())
def _conv_backward(
    x: Tensor, w: Tensor, past: Tensor, reset: Tensor | None, dy: Tensor, d_end: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    arguments, _kept = _arguments(x, w, None, past, reset)
    dy, d_end = dy.contiguous(), d_end.contiguous()
    dx, dw, d_bias, d_past = x.new_empty(x.shape), w.new_empty(w.shape), w.new_empty(w.shape[1:]), past.new_empty(past.shape)
    pointers = map(ctypes.c_void_p, map(_pointer, (dy, d_end, dx, dw, d_bias, d_past)))
    library().ritornello_conv_backward(ctypes.byref(arguments), *pointers)  # type: ignore[union-attr]
    return dx, dw, d_bias, d_past


@_conv_backward.register_fake
def _(x, w, past, reset, dy, d_end):
    return x.new_empty(x.shape), w.new_empty(w.shape), w.new_empty(w.shape[1:]), past.new_empty(past.shape)


def _keep(ctx, inputs, output) -> None:
    x, w, bias, past, reset = inputs
    ctx.save_for_backward(x, w, past, reset)
    ctx.biased = bias is not None


def _gradients(ctx, dy: Tensor, d_end: Tensor) -> tuple:
    dx, dw, d_bias, d_past = _conv_backward(*ctx.saved_tensors, dy, d_end)
    return dx, dw, d_bias if ctx.biased else None, d_past, None


_conv.register_autograd(_gradients, setup_context=_keep)
