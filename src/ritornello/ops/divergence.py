"""How far a softmax over a vocabulary lies from a distribution of which the likeliest outcomes are known, and all others together.

    nats = sum_k p_k (log p_k - log q_k) + r (log r - log(1 - sum_k q_k))      q = softmax(x / T), k over the K known ids, r the rest

That is never more than the whole divergence KL(p || q), and equal to it where q shares the rest out as p does. The teachers of
train/kept.py are known so. In C++ a row of logits is read once each way and no probabilities are stored, as in ops/linear_loss.py.
"""

import torch
from torch import Tensor

from ritornello.ops import native_loss


def divergence_of_top(logits: Tensor, ids: Tensor, log_p: Tensor, log_rest: Tensor, temperature: float, impl: str = "auto") -> Tensor:
    """Logits (..., V), ids and log p of them (..., K), log r (...) to nats (...) in float32 or wider. Any `impl` but "auto" is plain torch.

    Only the logits get gradients. IndexError for ids that the vocabulary lacks.
    """
    if impl == "auto" and native_loss.against(logits) is None and log_p.dtype == torch.float32:
        flat, known, shares = (each.flatten(0, -2) for each in (logits, ids, log_p))
        return native_loss.divergence(flat, known, shares, log_rest.flatten(), temperature).view(log_rest.shape)
    log_q = tempered(logits, temperature)
    own = log_q.gather(-1, ids)
    there = log_rest > -torch.inf
    tiny = torch.finfo(own.dtype).eps
    own_rest = torch.log1p(-own.exp().sum(-1).clamp(max=1 - tiny))
    known_rest = log_rest.where(there, 0)
    rest = (known_rest.exp() * (known_rest - own_rest)).where(there, 0)
    return (log_p.exp() * (log_p - own)).sum(-1) + rest


def tempered(logits: Tensor, temperature: float) -> Tensor:
    """log softmax(logits / T), in float32 or wider."""
    return (logits.to(torch.promote_types(logits.dtype, torch.float32)) / temperature).log_softmax(-1)
