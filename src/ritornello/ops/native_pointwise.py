"""The functions of ops/pointwise.py and ops/dropout.py in C++ (see _native/pointwise.cpp), as torch operators.

float32 or bfloat16 on the processor.
"""

import ctypes

import torch
from torch import Tensor

from ritornello._native.library import library
from ritornello.ops.native import missing

FEW = 2**14  # numbers, below which calling costs more than it saves


class _Rows(ctypes.Structure):
    _fields_ = [(name, ctypes.c_int64) for name in ("N", "D", "narrow", "threads")]


def against(x: Tensor) -> str | None:
    """Why the kernels cannot, or should not, run on these numbers; None if they do."""
    if x.device.type != "cpu":
        return f"inputs are on {x.device.type}"
    if x.dtype not in (torch.float32, torch.bfloat16):
        return f"inputs are {str(x.dtype).removeprefix('torch.')}"
    if x.numel() < FEW:
        return f"{x.numel()} numbers, fewer than {FEW}"
    return missing()


def rms_norm(x: Tensor, weight: Tensor, eps: float, narrow: bool) -> Tensor:
    """float32 alone; `narrow`: to bfloat16."""
    return _rms_norm(x, weight, eps, narrow)[0]


def swish(x: Tensor, scale: float) -> Tensor:
    """To float32."""
    return _swish(x, scale)


def swiglu(gate: Tensor, up: Tensor) -> Tensor:
    """Both of one dtype."""
    return _swiglu(gate, up)


def forget(logit: Tensor, floor: Tensor) -> tuple[Tensor, Tensor]:
    """A float32 floor."""
    return _forget(logit, floor)


def dropout(x: Tensor, seed: Tensor, threshold: int, scale: float) -> Tensor:
    """A seed () int64, and what ops/dropout.py makes of a rate."""
    return _dropout(x, seed, threshold, scale)


def _call(name: str, rows: Tensor, *others: Tensor | ctypes.c_double | ctypes.c_int64) -> None:
    """ritornello_<name>(rows, others...), all contiguous; `rows` (..., D) says how many there are and is not handed over itself."""
    D = rows.shape[-1]
    sizes = _Rows(rows.numel() // max(1, D), D, rows.dtype == torch.bfloat16, torch.get_num_threads())
    pointers = (ctypes.c_void_p(each.data_ptr()) if isinstance(each, Tensor) else each for each in others)
    getattr(library(), f"ritornello_{name}")(ctypes.byref(sizes), *pointers)


def _like(x: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    return torch.empty_like(x, memory_format=torch.contiguous_format, dtype=dtype)


# ---- rms_norm ------------------------------------------------------------------------------------------------------------------------


@torch.library.custom_op("ritornello::rms_norm", mutates_args=())
def _rms_norm(x: Tensor, weight: Tensor, eps: float, narrow: bool) -> tuple[Tensor, Tensor]:
    x, weight = x.contiguous(), weight.contiguous()
    y, scale = _like(x, torch.bfloat16 if narrow else None), x.new_empty(x.shape[:-1])
    _call("norm_forward", y, x, weight, ctypes.c_double(eps), y, scale)
    return y, scale


@_rms_norm.register_fake
def _(x, weight, eps, narrow):
    return _like(x, torch.bfloat16 if narrow else None), x.new_empty(x.shape[:-1])


@torch.library.custom_op("ritornello::rms_norm_backward", mutates_args=())
def _rms_norm_backward(x: Tensor, weight: Tensor, scale: Tensor, dy: Tensor) -> tuple[Tensor, Tensor]:
    x, weight, dy = x.contiguous(), weight.contiguous(), dy.contiguous()
    dx, d_weight = _like(x), _like(weight)
    _call("norm_backward", dy, x, weight, scale, dy, dx, d_weight)
    return dx, d_weight


@_rms_norm_backward.register_fake
def _(x, weight, scale, dy):
    return _like(x), _like(weight)


def _keep_norm(ctx, inputs, output) -> None:
    ctx.save_for_backward(*inputs[:2], output[1])


def _norm_gradients(ctx, dy: Tensor, _: Tensor) -> tuple:
    return (*_rms_norm_backward(*ctx.saved_tensors, dy), None, None)


_rms_norm.register_autograd(_norm_gradients, setup_context=_keep_norm)


# ---- swish ---------------------------------------------------------------------------------------------------------------------------


@torch.library.custom_op("ritornello::swish", mutates_args=())
def _swish(x: Tensor, scale: float) -> Tensor:
    x = x.contiguous()
    y = _like(x, torch.float32)
    _call("swish_forward", x, x, ctypes.c_double(scale), y)
    return y


@_swish.register_fake
def _(x, scale):
    return _like(x, torch.float32)


@torch.library.custom_op("ritornello::swish_backward", mutates_args=())
def _swish_backward(x: Tensor, scale: float, dy: Tensor) -> Tensor:
    x, dy = x.contiguous(), dy.contiguous()
    dx = _like(x)
    _call("swish_backward", x, x, ctypes.c_double(scale), dy, dx)
    return dx


@_swish_backward.register_fake
def _(x, scale, dy):
    return _like(x)


def _keep_swish(ctx, inputs, output) -> None:
    x, ctx.scale = inputs
    ctx.save_for_backward(x)


def _swish_gradients(ctx, dy: Tensor) -> tuple[Tensor, None]:
    return _swish_backward(*ctx.saved_tensors, ctx.scale, dy), None


_swish.register_autograd(_swish_gradients, setup_context=_keep_swish)


# ---- swiglu --------------------------------------------------------------------------------------------------------------------------


@torch.library.custom_op("ritornello::swiglu", mutates_args=())
def _swiglu(gate: Tensor, up: Tensor) -> Tensor:
    gate, up = gate.contiguous(), up.contiguous()
    y = _like(gate)
    _call("swiglu_forward", gate, gate, up, y)
    return y


@_swiglu.register_fake
def _(gate, up):
    return _like(gate)


@torch.library.custom_op("ritornello::swiglu_backward", mutates_args=())
def _swiglu_backward(gate: Tensor, up: Tensor, dy: Tensor) -> tuple[Tensor, Tensor]:
    gate, up, dy = gate.contiguous(), up.contiguous(), dy.contiguous()
    d_gate, d_up = _like(gate), _like(up)
    _call("swiglu_backward", gate, gate, up, dy, d_gate, d_up)
    return d_gate, d_up


@_swiglu_backward.register_fake
def _(gate, up, dy):
    return _like(gate), _like(up)


def _keep(ctx, inputs, output) -> None:
    ctx.save_for_backward(*inputs)


def _swiglu_gradients(ctx, dy: Tensor) -> tuple[Tensor, Tensor]:
    return _swiglu_backward(*ctx.saved_tensors, dy)


_swiglu.register_autograd(_swiglu_gradients, setup_context=_keep)


# ---- forget --------------------------------------------------------------------------------------------------------------------------


@torch.library.custom_op("ritornello::forget", mutates_args=())
def _forget(logit: Tensor, floor: Tensor) -> tuple[Tensor, Tensor]:
    logit, floor = logit.contiguous(), floor.contiguous()
    key, log_decay = _like(logit, torch.float32), _like(logit, torch.float32)
    _call("forget_forward", logit, logit, floor, key, log_decay)
    return key, log_decay


@_forget.register_fake
def _(logit, floor):
    return _like(logit, torch.float32), _like(logit, torch.float32)


@torch.library.custom_op("ritornello::forget_backward", mutates_args=())
def _forget_backward(logit: Tensor, floor: Tensor, d_key: Tensor, d_log: Tensor) -> tuple[Tensor, Tensor]:
    logit, floor, d_key, d_log = logit.contiguous(), floor.contiguous(), d_key.contiguous(), d_log.contiguous()
    d_logit, d_floor = _like(logit), _like(floor)
    _call("forget_backward", logit, logit, floor, d_key, d_log, d_logit, d_floor)
    return d_logit, d_floor


@_forget_backward.register_fake
def _(logit, floor, d_key, d_log):
    return _like(logit), _like(floor)


def _forget_gradients(ctx, d_key: Tensor, d_log: Tensor) -> tuple[Tensor, Tensor]:
    return _forget_backward(*ctx.saved_tensors, d_key, d_log)


_forget.register_autograd(_forget_gradients, setup_context=_keep)


# ---- dropout -------------------------------------------------------------------------------------------------------------------------


@torch.library.custom_op("ritornello::dropout", mutates_args=())
def _dropout(x: Tensor, seed: Tensor, threshold: int, scale: float) -> Tensor:
    x = x.contiguous()
    y = _like(x)
    _call("dropout", x, x, seed, ctypes.c_int64(threshold), ctypes.c_double(scale), y)
    return y


@_dropout.register_fake
def _(x, seed, threshold, scale):
    return _like(x)


def _keep_seed(ctx, inputs, output) -> None:
    _, seed, ctx.threshold, ctx.scale = inputs
    ctx.save_for_backward(seed)


def _dropout_gradients(ctx, dy: Tensor) -> tuple[Tensor, None, None, None]:
    return _dropout(dy, *ctx.saved_tensors, ctx.threshold, ctx.scale), None, None, None


_dropout.register_autograd(_dropout_gradients, setup_context=_keep_seed)
