"""Cross-entropy and divergence over a vocabulary in C++ (see _native/vocabulary.cpp), as torch operators.

float32 or bfloat16 logits on the processor.
"""

import ctypes
from collections.abc import Sequence

import torch
from torch import Tensor

from ritornello._native.library import library
from ritornello.ops.native import missing

IGNORED = -100


class _Vocabulary(ctypes.Structure):
    _fields_ = [(name, ctypes.c_int64) for name in ("N", "V", "narrow", "threads")] + [
        (name, ctypes.c_void_p) for name in ("logits", "targets")
    ]


def against(logits: Tensor) -> str | None:
    """Why the kernel cannot run on these logits; None if it can."""
    if logits.device.type != "cpu":
        return f"logits are on {logits.device.type}"
    if logits.dtype not in (torch.float32, torch.bfloat16):
        return f"logits are {str(logits.dtype).removeprefix('torch.')}"
    return missing()


def cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Logits (N, V) and targets (N,) int64 to nats (N,) float32, 0 where a target is -100; IndexError for others outside 0 .. V - 1."""
    return _cross_entropy(logits, targets)[0]


def into_gradient(logits: Tensor, targets: Tensor) -> Tensor:
    """As `cross_entropy`, for contiguous logits that no one else reads: the gradient of the summed nats takes their place."""
    nats, kept = _forward(logits, targets)
    _backward(logits, targets, kept, torch.ones_like(nats), logits)
    return nats


def _forward(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    V = logits.shape[-1]
    wrong = ((targets < 0) | (targets >= V)) & (targets != IGNORED)
    if wrong.any():
        raise IndexError(f"target {int(targets[wrong][0])} is not among the vocabulary's {V}")
    nats = torch.empty(len(logits), dtype=torch.float32)
    kept = torch.empty(len(logits), 2, dtype=torch.float32)
    library().ritornello_vocabulary_forward(ctypes.byref(_arguments(logits, targets)), *map(_pointer, (nats, kept)))  # type: ignore[union-attr]
    return nats, kept


def _backward(logits: Tensor, targets: Tensor, kept: Tensor, d_nats: Tensor, d_logits: Tensor) -> None:
    pointers = map(_pointer, (kept, d_nats, d_logits))
    library().ritornello_vocabulary_backward(ctypes.byref(_arguments(logits, targets)), *pointers)  # type: ignore[union-attr]


def _arguments(logits: Tensor, targets: Tensor) -> _Vocabulary:
    narrow = logits.dtype == torch.bfloat16
    return _Vocabulary(*logits.shape, narrow, torch.get_num_threads(), *map(_pointer, (logits, targets)))


def _pointer(tensor: Tensor) -> ctypes.c_void_p:
    return ctypes.c_void_p(tensor.data_ptr())


@torch.library.custom_op("ritornello::cross_entropy", mutates_args=())
def _cross_entropy(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    return _forward(logits.contiguous(), targets.contiguous())


@_cross_entropy.register_fake
def _(logits, targets):
    return logits.new_empty(logits.shape[0], dtype=torch.float32), logits.new_empty(logits.shape[0], 2, dtype=torch.float32)


@torch.library.custom_op("ritornello::cross_entropy_backward", mutates_args=())
def _cross_entropy_backward(logits: Tensor, targets: Tensor, kept: Tensor, d_nats: Tensor) -> Tensor:
    logits, d_logits = logits.contiguous(), torch.empty_like(logits, memory_format=torch.contiguous_format)
    _backward(logits, targets.contiguous(), kept, d_nats.contiguous(), d_logits)
    return d_logits


@_cross_entropy_backward.register_fake
def _(logits, targets, kept, d_nats):
    return torch.empty_like(logits, memory_format=torch.contiguous_format)


def _keep(ctx, inputs, output) -> None:
    ctx.save_for_backward(*inputs, output[1])


def _gradients(ctx, d_nats: Tensor, _: Tensor) -> tuple[Tensor, None]:
    return _cross_entropy_backward(*ctx.saved_tensors, d_nats), None


_cross_entropy.register_autograd(_gradients, setup_context=_keep)


# ---- divergence ----------------------------------------------------------------------------------------------------------------------


class _Divergence(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_int64) for name in ("N", "V", "K", "narrow", "threads")),
        *((name, ctypes.c_void_p) for name in ("logits", "ids", "log_p", "log_rest")),
        ("temperature", ctypes.c_double),
    ]


def divergence(logits: Tensor, ids: Tensor, log_p: Tensor, log_rest: Tensor, temperature: float) -> Tensor:
    """Logits (N, V), ids (N, K) int64, log p (N, K) and log r (N) float32, of ops/divergence.py, to nats (N) float32."""
    return _divergence(logits, ids, log_p, log_rest, temperature)[0]


def _known(inputs: Sequence[Tensor], temperature: float) -> _Divergence:
    """Of logits, ids, log p and log r, all contiguous."""
    logits, ids = inputs[:2]
    narrow = logits.dtype == torch.bfloat16
    return _Divergence(*logits.shape, ids.shape[1], narrow, torch.get_num_threads(), *map(_pointer, inputs), temperature)


@torch.library.custom_op("ritornello::divergence", mutates_args=())
def _divergence(logits: Tensor, ids: Tensor, log_p: Tensor, log_rest: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    V = logits.shape[-1]
    wrong = (ids < 0) | (ids >= V)
    if wrong.any():
        raise IndexError(f"id {int(ids[wrong][0])} is not among the vocabulary's {V}")
    inputs = [each.contiguous() for each in (logits, ids, log_p, log_rest)]
    nats, kept = (logits.new_empty(len(logits), *rest, dtype=torch.float32) for rest in ((), (3,)))
    library().ritornello_divergence_forward(ctypes.byref(_known(inputs, temperature)), *map(_pointer, (nats, kept)))  # type: ignore[union-attr]
    return nats, kept


@_divergence.register_fake
def _(logits, ids, log_p, log_rest, temperature):
    return logits.new_empty(logits.shape[0], dtype=torch.float32), logits.new_empty(logits.shape[0], 3, dtype=torch.float32)


@torch.library.custom_op("ritornello::divergence_backward", mutates_args=())
def _divergence_backward(
    logits: Tensor, ids: Tensor, log_p: Tensor, log_rest: Tensor, kept: Tensor, d_nats: Tensor, temperature: float
) -> Tensor:
    inputs, d_nats = [each.contiguous() for each in (logits, ids, log_p, log_rest)], d_nats.contiguous()
    d_logits = torch.empty_like(inputs[0])
    pointers = map(_pointer, (kept, d_nats, d_logits))
    library().ritornello_divergence_backward(ctypes.byref(_known(inputs, temperature)), *pointers)  # type: ignore[union-attr]
    return d_logits


@_divergence_backward.register_fake
def _(logits, ids, log_p, log_rest, kept, d_nats, temperature):
    return torch.empty_like(logits, memory_format=torch.contiguous_format)


def _keep_known(ctx, inputs, output) -> None:
    *tensors, ctx.temperature = inputs
    ctx.save_for_backward(*tensors, output[1])


def _divergence_gradients(ctx, d_nats: Tensor, _: Tensor) -> tuple[Tensor, None, None, None, None]:
    return _divergence_backward(*ctx.saved_tensors, d_nats, ctx.temperature), None, None, None, None


_divergence.register_autograd(_divergence_gradients, setup_context=_keep_known)
