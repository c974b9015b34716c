"""Attention over a sliding window: each token reads itself and the W - 1 tokens before it in its document.

    y_t = sum over t - W < s <= t of softmax_s(q_t . k_s / sqrt(d)) v_s

Query heads are shared out in order over the key and value heads: head h of H reads head h G // H of G. The state is the
last W - 1 keys and values, so its size is constant. A query block of C <= W tokens reads the C + W - 1 tokens up to its
end: `chunk` computes all blocks at once and costs T W, not T^2.

Source: Beltagy et al. 2020, arXiv:2004.05150; one key head for all queries is Shazeer 2019, arXiv:1911.02150.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ritornello.ops.op import Implementation, Op


class State(NamedTuple):
    k: Tensor  # (B, W - 1, G, d) the last keys, newest last, zero where forgotten
    v: Tensor  # (B, W - 1, G, d)
    seen: Tensor  # (B,) int64, tokens of the current document


def loop(q: Tensor, k: Tensor, v: Tensor, state: State, reset: Tensor | None) -> tuple[Tensor, State]:
    """The definition. q: (B, T, H, d); k, v: (B, T, G, d); reset: (B, T) bool. Returns y (B, T, H, d) and the state."""
    past_k, past_v, seen = state
    heads, age = k.shape[2], torch.arange(past_k.shape[1], -1, -1, device=q.device)  # (W,), the token itself is 0
    outputs = []
    resets = reset.unbind(1) if reset is not None else [None] * q.shape[1]
    for q_t, k_t, v_t, reset_t in zip(q.unbind(1), k.unbind(1), v.unbind(1), resets, strict=True):
        if reset_t is not None:
            past_k, past_v = (torch.where(reset_t[:, None, None, None], 0, past) for past in (past_k, past_v))
            seen = torch.where(reset_t, 0, seen)
        keys, values = torch.cat([past_k, k_t[:, None]], 1), torch.cat([past_v, v_t[:, None]], 1)  # (B, W, G, d)
        logits = torch.einsum("bgrd,bsgd->bgrs", q_t.unflatten(1, (heads, -1)), keys) * q.shape[-1] ** -0.5
        weights = logits.masked_fill((age > seen[:, None])[:, None, None], float("-inf")).softmax(-1)
        outputs.append(torch.einsum("bgrs,bsgd->bgrd", weights, values).flatten(1, 2))
        past_k, past_v, seen = keys[:, 1:], values[:, 1:], seen + 1
    return torch.stack(outputs, 1) if outputs else q, State(past_k, past_v, seen)


def chunk(q: Tensor, k: Tensor, v: Tensor, state: State, reset: Tensor | None) -> tuple[Tensor, State]:
    """Blocks of at most W queries at once; see the top of the file."""
    (B, T, H, _), past = q.shape, state.k.shape[1]  # past: W - 1
    if T == 0:
        return q, state
    keys, values = torch.cat([state.k, k], 1), torch.cat([state.v, v], 1)  # (B, W - 1 + T, G, d)
    document = reset.cumsum(1) if reset is not None else state.seen.new_zeros(B, T)
    forgotten = torch.arange(past, 0, -1, device=q.device) > state.seen[:, None]  # (B, W - 1)
    of_key = torch.cat([-forgotten.to(document.dtype), document], 1)  # the document of each key, 0 going on from before

    blocks = -(-T // (past + 1))
    size = -(-T // blocks)  # C
    more = blocks * size - T  # queries and keys after the end, which no real token reads
    q = F.pad(q, (0, 0, 0, 0, 0, more)).unflatten(1, (blocks, size)).flatten(0, 1).transpose(1, 2)  # (B N, H, C, d)
    near_k, near_v = (
        F.pad(tensor, (0, 0, 0, 0, 0, more)).unfold(1, size + past, size).flatten(0, 1).transpose(2, 3) for tensor in (keys, values)
    )  # (B N, G, C + W - 1, d)
    of_query = F.pad(document, (0, more)).unflatten(1, (blocks, size))[..., None]  # (B, N, C, 1)
    of_key = F.pad(of_key, (0, more)).unfold(1, size + past, size)[:, :, None]  # (B, N, 1, C + W - 1)
    band = torch.ones(size, size + past, dtype=torch.bool, device=q.device).tril(past).triu()
    may = (band & (of_query == of_key)).flatten(0, 1)[:, None]
    y = F.scaled_dot_product_attention(q, near_k, near_v, attn_mask=may, enable_gqa=k.shape[2] < H)
    y = y.transpose(1, 2).unflatten(0, (B, blocks)).flatten(1, 2)[:, :T]

    keys, values, seen = keys[:, T:], values[:, T:], state.seen + T
    if reset is not None:
        kept = (F.pad(document, (past, 0))[:, T:] == document[:, -1:])[..., None, None]
        keys, values = torch.where(kept, keys, 0), torch.where(kept, values, 0)
        step = torch.arange(T, device=q.device)
        start = torch.where(reset, step, -1).amax(1)  # of the last document, -1: before the piece
        seen = torch.where(start < 0, seen, T - start)
    return y, State(keys, values, seen)


window = Op("window", {"chunk": Implementation(chunk), "loop": Implementation(loop)})
