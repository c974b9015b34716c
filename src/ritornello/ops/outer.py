"""The gated outer-product recurrence: a matrix that decays and is written by key and value.

    S_t = diag(exp g_t) S_{t-1} + k_t v_t'        y_t = S_t' q_t        g <= 0

or, with a bonus u, a read of what was there before, the token's own write weighted by u:

    y_t = (S_{t-1} + diag(u) k_t v_t')' q_t

HGRN2 (Qin et al. 2024, arXiv:2404.07904) and gated linear attention (Yang et al. 2023, arXiv:2312.06635) decay by
channel; RetNet, Mamba-2 and mLSTM have one decay a head; RWKV-5 and 6 (Peng et al. 2024, arXiv:2404.05892) the bonus.

`chunk` is the form that is parallel over time (Yang et al. 2023): inside a chunk of 32 tokens everything is
matrix products, between chunks the state steps. Token i reads token j <= i through exp(g_{j+1} + ... + g_i).
With one decay a head these sums make a matrix of their own and are exact. With one a channel, and b the running
sum of g in the chunk, exp(b_i - b_j) is written as a product of two factors so that reading becomes a matrix
product. Neither factor may overflow: blocks of 16 take their middle as the reference, so an exponent is at most
8 steps of decay; a decay faster than `FASTEST` a step is treated as that (exp(-10) in float32, exp(-80) in
float64). Across blocks all exponents are <= 0.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from ritornello.ops.op import Implementation, Op, native, triton

BLOCK = 16
CHUNK = 2 * BLOCK
FASTEST = {torch.float32: -10.0, torch.float64: -80.0}  # a step's log decay, so that exp(8 steps) stays finite


def loop(q: Tensor, k: Tensor, v: Tensor, g: Tensor, u: Tensor | None, S: Tensor, reset: Tensor | None) -> tuple[Tensor, Tensor]:
    """The definition. q, k: (B, T, H, K); v: (B, T, H, V); g: (B, T, H, K) or (B, T, H, 1); u: (H, K) or None; S: (B, H, K, V);
    reset: (B, T) bool.

    Returns y (B, T, H, V) and the last S. `unbind`, because indexing makes the backward pass quadratic in T.
    """
    outputs = []
    resets = reset.unbind(1) if reset is not None else [None] * q.shape[1]
    for q_t, k_t, v_t, decay, reset_t in zip(q.unbind(1), k.unbind(1), v.unbind(1), g.exp().unbind(1), resets, strict=True):
        if reset_t is not None:
            S = torch.where(reset_t[:, None, None, None], 0, S)
        before, write = S, k_t[..., None] * v_t[..., None, :]
        S = decay[..., None] * S + write
        outputs.append(torch.einsum("bhk,bhkv->bhv", q_t, S if u is None else before + u[..., None] * write))
    return torch.stack(outputs, 1) if outputs else v.new_zeros(v.shape), S


def chunk(q: Tensor, k: Tensor, v: Tensor, g: Tensor, u: Tensor | None, S: Tensor, reset: Tensor | None) -> tuple[Tensor, Tensor]:
    """The same in chunks of 32 tokens; see the top of the file."""
    T = q.shape[1]
    if T == 0:
        return v.new_zeros(v.shape), S
    q, k, v, g = (chunks(tensor) for tensor in (q, k, v, g))  # (B, H, N, 32, K or V or 1)
    weights, from_start, to_end, decay = (by_head if g.shape[-1] == 1 else by_channel)(q, k, g, u is not None)
    may = torch.ones(CHUNK, CHUNK, dtype=torch.bool, device=q.device).tril(0 if u is None else -1)
    if reset is not None:
        document, before = documents(reset)
        may = may & (document[..., :, None] == document[..., None, :])
        from_start = from_start.masked_fill((document != before)[..., None], 0)
        to_end = to_end.masked_fill((document != document[..., -1:])[..., None], 0)
        decay = decay * (document[..., -1:] == before)[..., None]  # a reset in the chunk ends the incoming state: masked, not decayed
    y = weights.masked_fill(~may, 0) @ v
    if u is not None:
        y = y + (q * u[:, None, None] * k).sum(-1, keepdim=True) * v
    from_state = []
    for from_n, decay_n, writes_n in zip(from_start.unbind(2), decay.unbind(2), (to_end.mT @ v).unbind(2), strict=True):
        from_state.append(from_n @ S)
        S = torch.addcmul(writes_n, decay_n, S)
    return (y + torch.stack(from_state, 2)).flatten(2, 3)[:, :, :T].transpose(1, 2), S


def chunks(x: Tensor) -> Tensor:
    """(B, T, H, K) -> (B, H, N, 32, K), padded at the end with zeros: no key, no decay."""
    return F.pad(x.transpose(1, 2), (0, 0, 0, -x.shape[1] % CHUNK)).unflatten(2, (-1, CHUNK))


def documents(reset: Tensor) -> tuple[Tensor, Tensor]:
    """Which document each token belongs to (B, 1, N, 32), and each chunk's incoming state (B, 1, N, 1); 0 goes on from before."""
    count = F.pad(reset.cumsum(1)[:, None], (0, -reset.shape[1] % CHUNK), mode="replicate").unflatten(2, (-1, CHUNK))
    return count, F.pad(count[..., -1], (1, -1))[..., None]


def by_channel(q: Tensor, k: Tensor, g: Tensor, before: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """In every chunk: what token i reads of token j (B, H, N, 32, 32), the queries of the incoming state and the keys as they are left
    at the end (B, H, N, 32, K), and the whole chunk's decay (B, H, N, K, 1). With `before`, a token reads before it decays."""
    g = g.clamp_min(FASTEST[g.dtype])
    b = g.cumsum(-2)  # from each chunk's start
    last = b[..., -1:, :]  # (B, H, N, 1, K)
    return reads(q, k, b, before), q * _reader(b, before).exp(), k * (last - b).exp(), last.exp().mT


def by_head(q: Tensor, k: Tensor, g: Tensor, before: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """As `by_channel`, for g of (B, H, N, 32, 1): nothing is clamped, and no sum is a difference of others."""
    after = torch.ones(CHUNK, CHUNK, dtype=torch.bool, device=g.device).tril(-1)
    b, between = g.cumsum(-2), torch.where(after, g, 0).cumsum(-2)  # of all steps up to i; of those after j up to i, (B, H, N, 32, 32)
    weights = (q @ k.mT) * _reader(between, before).exp()
    return weights, q * _reader(b, before).exp(), k * between[..., -1:, :].mT.exp(), b[..., -1:, :].exp()


def _reader(b: Tensor, before: bool) -> Tensor:
    """The running sums (..., 32, K) as of each reader: with `before`, without its own step."""
    return F.pad(b[..., :-1, :], (0, 0, 1, 0)) if before else b


def reads(q: Tensor, k: Tensor, b: Tensor, before: bool = False) -> Tensor:
    """q_i exp(b_i - b_j) k_j summed over channels, (..., 32, 32); where j > i it is anything, infinite too.

    With `before`, b_{i-1} stands for b_i: what token i reads before its own decay; it is anything where j = i too.
    """
    q, k, a, b = (tensor.unflatten(-2, (2, BLOCK)) for tensor in (q, k, _reader(b, before), b))  # (..., 2, 16, K)
    middle = b[..., BLOCK // 2 - 1 : BLOCK // 2, :]
    within = (q * (a - middle).exp()) @ (k * (middle - b).exp()).mT  # (..., 2, 16, 16)
    edge = b[..., 0, -1:, :]
    across = (q[..., 1, :, :] * (a[..., 1, :, :] - edge).exp()) @ (k[..., 0, :, :] * (edge - b[..., 0, :, :]).exp()).mT
    top = F.pad(within[..., 0, :, :], (0, BLOCK))
    return torch.cat([top, torch.cat([across, within[..., 1, :, :]], -1)], -2)


def few_steps(q: Tensor, *rest: Tensor | None) -> str | None:
    return f"{q.shape[1]} steps, fewer than a block of {BLOCK}" if q.shape[1] < BLOCK else None


outer = Op(
    "outer", {"triton": triton("outer"), "native": native("outer"), "chunk": Implementation(chunk, few_steps), "loop": Implementation(loop)}
)
