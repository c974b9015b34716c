"""What layers do to each element or row between matrix products.

    rms_norm   y = x w / sqrt(mean of x^2 + eps)                              Zhang and Sennrich 2019, arXiv:1910.07467
    swish      y = scale x sigmoid(x)                                         Ramachandran et al. 2017, arXiv:1710.05941
    swiglu     y = swish(gate) up                                             Shazeer 2020, arXiv:2002.05202
    forget     f = floor + (1 - floor) sigmoid(x); the key 1 - f and log f    Qin et al. 2024, arXiv:2404.07904

Each is a line or two of torch, the definition, and one pass each way in C++ where that can run: `impl` is "auto" for the fastest, any other
for the definition. In plain torch their passes over memory take as long as the matrix products of a narrow model in bfloat16.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from ritornello.ops import native_pointwise as native


def rms_norm(x: Tensor, weight: Tensor, eps: float, impl: str = "auto", narrow: bool = False) -> Tensor:
    """x (..., D) and weight (D,) to (..., D); `narrow`: to what autocast would hand to a matrix product, rounded in the same pass."""
    if impl == "auto" and weight.dtype == x.dtype == torch.float32 and native.against(x) is None:
        y = native.rms_norm(x, weight, eps, narrow and _product_dtype(x) == torch.bfloat16)
    else:
        y = F.rms_norm(x, weight.shape, weight, eps)
    return for_products(y) if narrow else y


def swish(x: Tensor, scale: float, dtype: torch.dtype, impl: str = "auto") -> Tensor:
    """x (..., D) to (..., D) in `dtype`."""
    if impl == "auto" and dtype == torch.float32 and native.against(x) is None:
        return native.swish(x, scale)
    return F.silu(x.to(dtype)) * scale


def swiglu(gate: Tensor, up: Tensor, impl: str = "auto") -> Tensor:
    """Both (..., D), to (..., D)."""
    if impl == "auto" and gate.dtype == up.dtype and native.against(gate) is None:
        return native.swiglu(gate, up)
    return F.silu(gate) * up


def forget(logit: Tensor, floor: Tensor, impl: str = "auto") -> tuple[Tensor, Tensor]:
    """The key 1 - f and the log decay log f, (..., D) in floor's dtype, of logits (..., D) and floors (D,).

    Near f = 1 log f is computed from the key, near f = 0 from f itself: exact at both ends, gradients too.
    """
    if impl == "auto" and floor.dtype == torch.float32 and native.against(logit) is None:
        return native.forget(logit, floor)
    logit = logit.to(floor.dtype)
    key = (1 - floor) * torch.sigmoid(-logit)
    f = floor + (1 - floor) * torch.sigmoid(logit)
    tiny = torch.finfo(f.dtype).tiny
    return key, torch.log1p(-key.clamp_max(0.5)) + torch.log((2 * f).clamp(tiny, 1))


def for_products(x: Tensor) -> Tensor:
    """x as autocast would hand it to a matrix product: cast once where several take it, and each would cast for itself."""
    return x.to(_product_dtype(x))


def _product_dtype(x: Tensor) -> torch.dtype:
    device = x.device.type
    narrow = torch.is_autocast_enabled(device) and x.dtype == torch.float32
    return torch.get_autocast_dtype(device) if narrow else x.dtype
