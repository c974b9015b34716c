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
    g = g.clamp_min(FASTEST[g.dtype])
    q, k, v, g = (_chunks(tensor) for tensor in (q, k, v, g))  # (B, H, N, 2, 16, K or V)
    b = g.cumsum(-2)  # from each block's start
    last = b[..., -1:, :]  # (B, H, N, 2, 1, K)

    middle = b[..., BLOCK // 2 - 1 : BLOCK // 2, :]
    within = (q * (b - middle).exp()) @ (k * (middle - b).exp()).mT  # (B, H, N, 2, 16, 16)
    from_start, to_end = q * b.exp(), k * (last - b).exp()
    across = from_start[..., 1, :, :] @ to_end[..., 0, :, :].mT  # (B, H, N, 16, 16): the second block reads the first

    lower = torch.ones(BLOCK, BLOCK, dtype=torch.bool, device=q.device).tril()
    reads_state = keeps = None
    if reset is None:
        within = within.masked_fill(~lower, 0)
    else:
        document = F.pad(reset.cumsum(1)[:, None], (0, -T % CHUNK), mode="replicate").unflatten(2, (-1, 2, BLOCK))  # (B, 1, N, 2, 16)
        within = within.masked_fill(~((document[..., :, None] == document[..., None, :]) & lower), 0)
        across = across.masked_fill(document[..., 1, :, None] != document[..., 0, None, :], 0)
        before = F.pad(document[..., -1, -1], (1, -1))[..., None, None]  # the document that the incoming state belongs to
        reads_state = (document == before)[..., None]
        keeps = (document == document[..., -1:, -1:])[..., None]  # tokens of the chunk's last document

    written = to_end if keeps is None else to_end.masked_fill(~keeps, 0)
    first = written[..., 0, :, :] * last[..., 1, :, :].exp()
    writes = torch.cat([first, written[..., 1, :, :]], -2).mT @ v.flatten(-3, -2)  # (B, H, N, K, V)
    decay = (last[..., 0, :, :] + last[..., 1, :, :]).exp().mT  # (B, H, N, K, 1)
    if reads_state is not None:
        decay = decay * reads_state[..., -1, -1:, :]  # a reset anywhere in the chunk ends the incoming state: masked, not decayed

    states = []
    for decay_n, writes_n in zip(decay.unbind(2), writes.unbind(2), strict=True):
        states.append(S)
        S = torch.addcmul(writes_n, decay_n, S)

    from_state = torch.stack([from_start[..., 0, :, :], from_start[..., 1, :, :] * last[..., 0, :, :].exp()], -3)
    if reads_state is not None:
        from_state = from_state.masked_fill(~reads_state, 0)
    y = within @ v + (from_state.flatten(-3, -2) @ torch.stack(states, 2)).unflatten(-2, (2, BLOCK))
    y = torch.stack([y[..., 0, :, :], y[..., 1, :, :] + across @ v[..., 0, :, :]], -3)
    return y.flatten(2, 4)[:, :, :T].transpose(1, 2), S


def _chunks(x: Tensor) -> Tensor:
    """(B, T, H, K) -> (B, H, N, 2, 16, K), padded at the end with zeros: no key, no decay."""
    return F.pad(x.transpose(1, 2), (0, 0, 0, -x.shape[1] % CHUNK)).unflatten(2, (-1, 2, BLOCK))


def _few_steps(q: Tensor, *rest: Tensor) -> str | None:
    return f"{q.shape[1]} steps, fewer than a block of {BLOCK}" if q.shape[1] < BLOCK else None


outer = Op("outer", {"chunk": Implementation(chunk, _few_steps), "loop": Implementation(loop)})
