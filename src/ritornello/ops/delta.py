"""The generalised delta rule: a matrix that decays, is written, and takes back what a direction already holds.

    S_t = (diag(exp g_t) - r_t p_t') S_{t-1} + k_t v_t'        y_t = S_t' q_t        g <= 0

DeltaNet (Schlag et al. 2021, arXiv:2102.11174) has no decay, p = k and r = beta k; gated DeltaNet (Yang et al. 2024,
arXiv:2412.06464) one decay a head; RWKV-7 (Peng et al. 2025, arXiv:2503.14456) one a channel, and r apart from k.

With u_t = S_{t-1}' p_t, what the past holds in direction p_t, the step is a decay and two writes, k_t v_t' - r_t u_t'. So inside
a chunk of 32 tokens, where [p k] is how much of each earlier token's key the later tokens' p read (see ops/outer.py),

    u = [p S_0] + [p k] v - [p r] u        hence        u = (1 + [p r])^-1 ([p S_0] + [p k] v)

with [p r] strictly lower triangular: one triangular solve instead of 32 steps (Yang et al. 2024, arXiv:2406.06484). Solved for
both terms apart, it makes each chunk a linear map of the state, so that only these maps are left to apply one after another.
"""

import torch
from torch import Tensor

from ritornello.ops.op import Implementation, Op, native, triton
from ritornello.ops.outer import CHUNK, by_channel, by_head, chunks, documents, few_steps


def loop(q: Tensor, k: Tensor, v: Tensor, r: Tensor, p: Tensor, g: Tensor | None, S: Tensor, reset: Tensor | None) -> tuple[Tensor, Tensor]:
    """The definition. q, k, r, p: (B, T, H, K); v: (B, T, H, V); g: (B, T, H, K), (B, T, H, 1) or None, no decay; S: (B, H, K, V);
    reset: (B, T) bool.

    Returns y (B, T, H, V) and the last S.
    """
    outputs = []
    decays = torch.ones_like(q[..., :1]) if g is None else g.exp()
    resets = reset.unbind(1) if reset is not None else [None] * q.shape[1]
    for q_t, k_t, v_t, r_t, p_t, decay, reset_t in zip(*(each.unbind(1) for each in (q, k, v, r, p, decays)), resets, strict=True):
        if reset_t is not None:
            S = torch.where(reset_t[:, None, None, None], 0, S)
        held = torch.einsum("bhk,bhkv->bhv", p_t, S)
        S = decay[..., None] * S - r_t[..., None] * held[..., None, :] + k_t[..., None] * v_t[..., None, :]
        outputs.append(torch.einsum("bhk,bhkv->bhv", q_t, S))
    return torch.stack(outputs, 1) if outputs else v.new_zeros(v.shape), S


def chunk(
    q: Tensor, k: Tensor, v: Tensor, r: Tensor, p: Tensor, g: Tensor | None, S: Tensor, reset: Tensor | None
) -> tuple[Tensor, Tensor]:
    """The same in chunks of 32 tokens; see the top of the file."""
    T = q.shape[1]
    if T == 0:
        return v.new_zeros(v.shape), S
    q, k, v, r, p, g = (chunks(each) for each in (q, k, v, r, p, torch.zeros_like(q[..., :1]) if g is None else g))
    decays, written = by_head if g.shape[-1] == 1 else by_channel, torch.stack([k, r])  # (2, B, H, N, 32, K)
    by_q, q_start, to_end, decay = decays(q, written, g, False)
    by_p, p_start, _, _ = decays(p, written, g, True)  # before the token's own step
    by_q_may = torch.ones(CHUNK, CHUNK, dtype=torch.bool, device=q.device).tril()
    by_p_may = by_q_may.tril(-1)
    if reset is not None:  # masked, not decayed; as in ops/outer.py
        document, before = documents(reset)
        same, old = document[..., :, None] == document[..., None, :], (document == before)[..., None]
        by_q_may, by_p_may = by_q_may & same, by_p_may & same
        q_start, p_start = q_start.where(old, 0), p_start.where(old, 0)
        to_end = to_end.where((document == document[..., -1:])[..., None], 0)
        decay = decay.where(old[..., -1:, :], 0)
    (qk, qr), (pk, pr) = by_q.where(by_q_may, 0), by_p.where(by_p_may, 0)  # (B, H, N, 32, 32) each
    k_end, r_end = to_end.mT  # (B, H, N, K, 32) each

    u = torch.linalg.solve_triangular(pr, torch.cat([p_start, pk @ v], -1), upper=False, unitriangular=True)
    u_state, u_own = u.split([p.shape[-1], v.shape[-1]], -1)  # u = u_state S_0 + u_own
    moves, writes = torch.diag_embed(decay.expand_as(k_end[..., :1])[..., 0]) - r_end @ u_state, k_end @ v - r_end @ u_own
    starts = []
    for move, write in zip(moves.unbind(2), writes.unbind(2), strict=True):
        starts.append(S)
        S = move @ S + write
    y = (q_start - qr @ u_state) @ torch.stack(starts, 2) + qk @ v - qr @ u_own
    return y.flatten(2, 3)[:, :, :T].transpose(1, 2), S


delta = Op(
    "delta", {"triton": triton("delta"), "native": native("delta"), "chunk": Implementation(chunk, few_steps), "loop": Implementation(loop)}
)
