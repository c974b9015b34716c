"""The summed cross-entropy of a vocabulary, from logits or from what the head would make logits of.

    nats = sum over n of log(sum_j exp(x_nj)) - x_n,target(n)        x = features W', kept within a cap if there is one

`chunked` holds the logits of a few tokens at a time and makes the gradients as it goes, so that memory does not grow with
tokens times vocabulary. It saves memory, not time.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from ritornello.ops import native_loss

IGNORED = native_loss.IGNORED  # a target that is not scored


def cross_entropy(logits: Tensor, targets: Tensor, impl: str = "auto") -> Tensor:
    """Logits (N, V) and targets (N,) to the sum of -log p(target), in float32 or wider. Any `impl` but "auto" computes in plain torch."""
    if impl == "auto" and native_loss.against(logits) is None:
        return native_loss.cross_entropy(logits, targets).sum()
    wide = torch.promote_types(logits.dtype, torch.float32)
    return F.cross_entropy(logits.to(wide), targets, ignore_index=IGNORED, reduction="sum")


def chunked(features: Tensor, weight: Tensor, targets: Tensor, rows: int, cap: float | None = None, impl: str = "auto") -> Tensor:
    """The same of features (N, D) and the head's weight (V, D), `rows` of them at a time. Autocast is respected."""
    return _Chunked.apply(features, weight, targets, rows, cap, impl)


class _Chunked(torch.autograd.Function):
    @staticmethod
    def forward(ctx, features: Tensor, weight: Tensor, targets: Tensor, rows: int, cap: float | None, impl: str) -> Tensor:
        device = features.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else features.dtype
        wide = torch.promote_types(dtype, torch.float32)
        gradients, ctx.dtypes = any(ctx.needs_input_grad), (features.dtype, weight.dtype)
        with torch.autocast(device, enabled=False):
            x, w = features.to(dtype), weight.to(dtype)
            total = torch.zeros((), dtype=wide, device=x.device)
            dx, dw = torch.empty_like(x), torch.zeros_like(w, dtype=wide)
            for x_n, targets_n, dx_n in zip(x.split(rows), targets.split(rows), dx.split(rows), strict=True):
                logits = x_n @ w.mT
                slope = None
                if cap is not None:
                    logits = torch.tanh(logits / cap)
                    logits, slope = logits * cap, 1 - logits.square()
                if impl == "auto" and native_loss.against(logits) is None:
                    total += native_loss.into_gradient(logits, targets_n).sum()
                else:
                    total += _into_gradient(logits, targets_n)
                if gradients:
                    logits = logits if slope is None else logits.mul_(slope)
                    torch.mm(logits, w, out=dx_n)
                    dw += logits.mT @ x_n
        ctx.save_for_backward(dx, dw)
        return total

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, d: Tensor) -> tuple[Tensor, Tensor, None, None, None, None]:
        dx, dw = (each.mul(d).to(dtype) for each, dtype in zip(ctx.saved_tensors, ctx.dtypes, strict=True))
        return dx, dw, None, None, None, None


def _into_gradient(logits: Tensor, targets: Tensor) -> Tensor:
    """The summed nats; their gradient takes the logits' place."""
    wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
    log_p, scored = wide.log_softmax(-1), targets != IGNORED
    at = torch.where(scored, targets, 0)[:, None]
    picked = log_p.gather(-1, at)[:, 0].where(scored, 0)
    gradient = log_p.exp_().scatter_add_(-1, at, log_p.new_full(at.shape, -1))
    logits.copy_(torch.where(scored[:, None], gradient, 0))
    return -picked.sum()
