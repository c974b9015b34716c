"""The cells' kernels in C++ (see _native/gru.cpp and slstm.cpp), as torch operators: fake and autograd registered.

A kernel runs a cell over a whole piece, resets included, in float32 on the processor. Its backward pass gives the gradients of what each
step's product made; those of the weights are one product of these with the states before, which is torch's to do.
"""

import ctypes

import torch
from torch import Tensor

from ritornello._native.library import library
from ritornello.errors import InputError
from ritornello.ops.native import _pointer, against

__all__ = ["against", "gru", "slstm"]


class _GRU(ctypes.Structure):
    _fields_ = [(name, ctypes.c_int64) for name in ("B", "T", "D", "threads")] + [(name, ctypes.c_void_p) for name in ("U", "h", "reset")]


class _SLSTM(ctypes.Structure):
    _fields_ = [(name, ctypes.c_int64) for name in ("B", "T", "H", "K", "threads")] + [
        (name, ctypes.c_void_p) for name in ("r", "state", "reset")
    ]


def _call(name: str, arguments: ctypes.Structure, *tensors: Tensor) -> None:
    getattr(library(), f"ritornello_{name}")(ctypes.byref(arguments), *(ctypes.c_void_p(_pointer(each)) for each in tensors))


def _checked(kernel: str, **wanted: tuple[Tensor | None, tuple[int, ...]]) -> list:
    """The tensors, contiguous. InputError unless each is of its shape, float32 (a reset: bool) and on the processor."""
    for name, (tensor, shape) in wanted.items():
        dtype = torch.bool if name == "reset" else torch.float32
        if tensor is not None and (tensor.shape != shape or tensor.dtype != dtype or tensor.device.type != "cpu"):
            found = f"{tensor.dtype} {tuple(tensor.shape)} on {tensor.device}"
            raise InputError(f"{kernel}: {name} is {found}; the kernel needs {dtype} {shape} on cpu")
    return [None if tensor is None else tensor.contiguous() for tensor, _ in wanted.values()]


def _before(first: Tensor, y: Tensor, reset: Tensor | None) -> Tensor:
    """The h that each step saw, (B, T, ...): of the step before, of the incoming state, or zeros after a reset."""
    seen = torch.cat([first[:, None], y], 1)[:, :-1]
    return seen if reset is None else seen.masked_fill(reset.view(*reset.shape, *[1] * (y.dim() - 2)), 0)


# ---- gru -----------------------------------------------------------------------------------------------------------------------------


def gru(x: Tensor, U: Tensor, b: Tensor, h: Tensor, reset: Tensor | None) -> tuple[Tensor, Tensor]:
    """x (B, T, 3 D), the input's share of r, z, n; torch's recurrent weights (3 D, D) and bias (3 D); h (B, D). Every h, and the last."""
    y, end, _ = _gru(x.float(), U.float(), b.float(), h.float(), reset)
    return y, end.to(h.dtype)


def _gru_outputs(x: Tensor, h: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return x.new_empty(*x.shape[:2], h.shape[1]), h.new_empty(h.shape), x.new_empty(*x.shape[:2], 4, h.shape[1])


@torch.library.custom_op("ritornello::gru", mutates_args=())
def _gru(x: Tensor, U: Tensor, b: Tensor, h: Tensor, reset: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    (B, T, _), D = x.shape, h.shape[-1]
    shapes = {"x": (x, (B, T, 3 * D)), "U": (U, (3 * D, D)), "b": (b, (3 * D,)), "h": (h, (B, D)), "reset": (reset, (B, T))}
    x, U, b, h, reset = _checked("gru", **shapes)
    outputs = _gru_outputs(x, h)
    _call("gru_forward", _GRU(*x.shape[:2], h.shape[1], torch.get_num_threads(), *map(_pointer, (U, h, reset))), x, b, *outputs)
    return outputs


@_gru.register_fake
def _(x, U, b, h, reset):
    return _gru_outputs(x, h)


@torch.library.custom_op("ritornello::gru_backward", mutates_args=())
def _gru_backward(
    U: Tensor, h: Tensor, reset: Tensor | None, y: Tensor, kept: Tensor, dy: Tensor, d_end: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    B, T, D = y.shape
    shapes = {"U": (U, (3 * D, D)), "h": (h, (B, D)), "reset": (reset, (B, T)), "y": (y, (B, T, D)), "kept": (kept, (B, T, 4, D))}
    U, h, reset, y, kept, dy, d_end = _checked("gru", **shapes, dy=(dy, (B, T, D)), d_end=(d_end, (B, D)))
    outputs = _gru_gradients(y, h)
    arguments = _GRU(*y.shape, torch.get_num_threads(), *map(_pointer, (U, h, reset)))
    _call("gru_backward", arguments, y, kept, dy, d_end, *outputs)
    return outputs


def _gru_gradients(y: Tensor, h: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    dx = y.new_empty(*y.shape[:2], 3 * y.shape[2])
    return dx, torch.empty_like(dx), h.new_empty(h.shape)


@_gru_backward.register_fake
def _(U, h, reset, y, kept, dy, d_end):
    return _gru_gradients(y, h)


def _gru_keep(ctx, inputs, output) -> None:
    (_, U, _, h, reset), (y, _, kept) = inputs, output
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(U, h, reset, y, kept)


def _gru_backwards(ctx, dy: Tensor | None, d_end: Tensor | None, _: None) -> tuple:
    U, h, reset, y, kept = ctx.saved_tensors
    dx, da, dh = _gru_backward(U, h, reset, y, kept, _or_zeros(dy, y), _or_zeros(d_end, h))
    da = da.flatten(0, 1)
    return dx, da.mT @ _before(h, y, reset).flatten(0, 1), da.sum(0), dh, None


def _or_zeros(gradient: Tensor | None, like: Tensor) -> Tensor:
    return torch.zeros_like(like) if gradient is None else gradient


_gru.register_autograd(_gru_backwards, setup_context=_gru_keep)


# ---- slstm ---------------------------------------------------------------------------------------------------------------------------


def slstm(
    u: Tensor, r: Tensor, h: Tensor, c: Tensor, n: Tensor, m: Tensor, reset: Tensor | None
) -> tuple[Tensor, tuple[Tensor, Tensor, Tensor, Tensor]]:
    """u (B, T, H, 4, K), the input's share of i, f, z, o; recurrent weights (H, K, 4 K); memory (B, H, K). Every h, and the last memory."""
    y, end, _ = _slstm(u.float(), r.float(), torch.stack([h, c, n, m]).float(), reset)
    return y, end.to(h.dtype).unbind(0)


def _slstm_outputs(u: Tensor, state: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    B, T, H, _, K = u.shape
    return u.new_empty(B, T, H, K), state.new_empty(state.shape), u.new_empty(B, T, H, 7, K)


def _slstm_arguments(y: Tensor, r: Tensor, state: Tensor, reset: Tensor | None) -> _SLSTM:
    return _SLSTM(*y.shape, torch.get_num_threads(), *map(_pointer, (r, state, reset)))


@torch.library.custom_op("ritornello::slstm", mutates_args=())
def _slstm(u: Tensor, r: Tensor, state: Tensor, reset: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    B, T, H, _, K = u.shape
    shapes = {"u": (u, (B, T, H, 4, K)), "r": (r, (H, K, 4 * K)), "state": (state, (4, B, H, K)), "reset": (reset, (B, T))}
    u, r, state, reset = _checked("slstm", **shapes)
    outputs = _slstm_outputs(u, state)
    _call("slstm_forward", _slstm_arguments(outputs[0], r, state, reset), u, *outputs)
    return outputs


@_slstm.register_fake
def _(u, r, state, reset):
    return _slstm_outputs(u, state)


@torch.library.custom_op("ritornello::slstm_backward", mutates_args=())
def _slstm_backward(
    r: Tensor, state: Tensor, reset: Tensor | None, y: Tensor, kept: Tensor, dy: Tensor, d_end: Tensor
) -> tuple[Tensor, Tensor]:
    B, T, H, K = y.shape
    shapes = {"r": (r, (H, K, 4 * K)), "state": (state, (4, B, H, K)), "reset": (reset, (B, T)), "y": (y, (B, T, H, K))}
    shapes |= {"kept": (kept, (B, T, H, 7, K)), "dy": (dy, (B, T, H, K)), "d_end": (d_end, (4, B, H, K))}
    r, state, reset, y, kept, dy, d_end = _checked("slstm", **shapes)
    outputs = _slstm_gradients(y, state)
    _call("slstm_backward", _slstm_arguments(y, r, state, reset), y, kept, dy, d_end, *outputs)
    return outputs


def _slstm_gradients(y: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    return y.new_empty(*y.shape[:3], 4, y.shape[3]), state.new_empty(state.shape)


@_slstm_backward.register_fake
def _(r, state, reset, y, kept, dy, d_end):
    return _slstm_gradients(y, state)


def _slstm_keep(ctx, inputs, output) -> None:
    (_, r, state, reset), (y, _, kept) = inputs, output
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(r, state, reset, y, kept)


def _slstm_backwards(ctx, dy: Tensor | None, d_end: Tensor | None, _: None) -> tuple:
    r, state, reset, y, kept = ctx.saved_tensors
    du, d_state = _slstm_backward(r, state, reset, y, kept, _or_zeros(dy, y), _or_zeros(d_end, state))
    before, products = (each.flatten(0, 1).transpose(0, 1) for each in (_before(state[0], y, reset), du.flatten(-2)))  # (H, B T, K or 4 K)
    return du, before.mT @ products, d_state, None


_slstm.register_autograd(_slstm_backwards, setup_context=_slstm_keep)
