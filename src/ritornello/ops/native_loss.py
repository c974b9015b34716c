"""Cross-entropy over a vocabulary in C++ (see _native/vocabulary.cpp), as a torch operator. float32 or bfloat16 logits on the processor."""

import ctypes

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
