"""The gated outer-product recurrence: a matrix that decays by channel and is written by key and value.

    S_t = diag(exp g_t) S_{t-1} + k_t v_t'        y_t = S_t' q_t        g <= 0

HGRN2 (Qin et al. 2024, arXiv:2404.07904), gated linear attention (Yang et al. 2023, arXiv:2312.06635),
RetNet and Mamba-2 (one decay a head) are cases of it.

`chunk` is the form that is parallel over time (Yang et al. 2023): inside a chunk of 32 tokens everything is
matrix products, between chunks the state steps. With b the running sum of g in a chunk, token i reads token
j <= i through exp(b_i - b_j), written as a product of two factors so that it becomes a matrix product. Neither
factor may overflow: blocks of 16 take their middle as the reference, so an exponent is at most 8 steps of
decay; a decay faster than `FASTEST` a step is treated as that (exp(-10) in float32, exp(-80) in float64).
Across blocks all exponents are <= 0.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from ritornello.ops.op import Implementation, Op

BLOCK = 16
CHUNK = 2 * BLOCK
FASTEST = {torch.float32: -10.0, torch.float64: -80.0}  # a step's log decay, so that exp(8 steps) stays finite


def loop(q: Tensor, k: Tensor, v: Tensor, g: Tensor, S: Tensor, reset: Tensor | None) -> tuple[Tensor, Tensor]:
    """The definition. q, k, g: (B, T, H, K); v: (B, T, H, V); S: (B, H, K, V); reset: (B, T) bool.

    Returns y (B, T, H, V) and the last S. `unbind`, because indexing makes the backward pass quadratic in T.
    """
    outputs = []
    resets = reset.unbind(1) if reset is not None else [None] * q.shape[1]
    for q_t, k_t, v_t, decay, reset_t in zip(q.unbind(1), k.unbind(1), v.unbind(1), g.exp().unbind(1), resets, strict=True):
        if reset_t is not None:
            S = torch.where(reset_t[:, None, None, None], 0, S)
        S = decay[..., None] * S + k_t[..., None] * v_t[..., None, :]
        outputs.append(torch.einsum("bhk,bhkv->bhv", q_t, S))
    return torch.stack(outputs, 1) if outputs else v.new_zeros(v.shape), S


def chunk(q: Tensor, k: Tensor, v: Tensor, g: Tensor, S: Tensor, reset: Tensor | None) -> tuple[Tensor, Tensor]:
    """The same in chunks of 32 tokens; see the top of the file."""
    T = q.shape[1]
    if T == 0:
        return v.new_zeros(v.shape), S
    q, k, v, g = (_chunks(tensor) for tensor in (q, k, v, g.clamp_min(FASTEST[g.dtype])))  # (B, H, N, 32, K or V)
    b = g.cumsum(-2)  # from each chunk's start
    last = b[..., -1:, :]  # (B, H, N, 1, K)
    from_start, to_end, decay = q * b.exp(), k * (last - b).exp(), last.exp().mT
    reads = _reads(q, k, b)  # (B, H, N, 32, 32), of token j by token i
    may = torch.ones(CHUNK, CHUNK, dtype=torch.bool, device=q.device).tril()
    if reset is not None:
        document = F.pad(reset.cumsum(1)[:, None], (0, -T % CHUNK), mode="replicate").unflatten(2, (-1, CHUNK))  # (B, 1, N, 32)
        may = may & (document[..., :, None] == document[..., None, :])
        before = F.pad(document[..., -1], (1, -1))[..., None]  # (B, 1, N, 1), the document that the incoming state belongs to
        from_start = from_start.masked_fill((document != before)[..., None], 0)
        to_end = to_end.masked_fill((document != document[..., -1:])[..., None], 0)
        decay = decay * (document[..., -1:] == before)[..., None]  # a reset in the chunk ends the incoming state: masked, not decayed
    y = reads.masked_fill(~may, 0) @ v
    from_state = []
    for from_n, decay_n, writes_n in zip(from_start.unbind(2), decay.unbind(2), (to_end.mT @ v).unbind(2), strict=True):
        from_state.append(from_n @ S)
        S = torch.addcmul(writes_n, decay_n, S)
    return (y + torch.stack(from_state, 2)).flatten(2, 3)[:, :, :T].transpose(1, 2), S


def _chunks(x: Tensor) -> Tensor:
    """(B, T, H, K) -> (B, H, N, 32, K), padded at the end with zeros: no key, no decay."""
    return F.pad(x.transpose(1, 2), (0, 0, 0, -x.shape[1] % CHUNK)).unflatten(2, (-1, CHUNK))


def _reads(q: Tensor, k: Tensor, b: Tensor) -> Tensor:
    """q_i exp(b_i - b_j) k_j summed over channels, (..., 32, 32); where j > i it is anything, infinite too."""
    q, k, b = (tensor.unflatten(-2, (2, BLOCK)) for tensor in (q, k, b))  # (..., 2, 16, K)
    middle = b[..., BLOCK // 2 - 1 : BLOCK // 2, :]
    within = (q * (b - middle).exp()) @ (k * (middle - b).exp()).mT  # (..., 2, 16, 16)
    first, second = b[..., 0, :, :], b[..., 1, :, :]
    edge = first[..., -1:, :]
    across = (q[..., 1, :, :] * (second - edge).exp()) @ (k[..., 0, :, :] * (edge - first).exp()).mT
    top = F.pad(within[..., 0, :, :], (0, BLOCK))
    return torch.cat([top, torch.cat([across, within[..., 1, :, :]], -1)], -2)


def _few_steps(q: Tensor, *rest: Tensor) -> str | None:
    return f"{q.shape[1]} steps, fewer than a block of {BLOCK}" if q.shape[1] < BLOCK else None


outer = Op("outer", {"chunk": Implementation(chunk, _few_steps), "loop": Implementation(loop)})
