"""Causal softmax attention with rotary positions, the mixer of LLaMA-type transformers: the baseline.

    y_t = sum over s <= t of softmax_s(q_t . k_s / sqrt(d)) v_s

Its state is all keys and values of the document so far, newest last: it grows with time. Keys are kept
rotated by their position, which counts from the document's start, so a reset restarts positions.

Source: Vaswani et al. 2017, arXiv:1706.03762; rotary positions are Su et al. 2021, arXiv:2104.09864, keys and values shared by
groups of heads Ainslie et al. 2023, arXiv:2305.13245.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ritornello.errors import InputError, divide
from ritornello.mixers.base import Context, Mixer, Place
from ritornello.mixers.rotary import positions, rotate
from ritornello.ops.pointwise import for_products


class State(NamedTuple):
    k: Tensor  # (B, S, G, d) rotated keys, newest last, zero where forgotten
    v: Tensor  # (B, S, G, d)
    seen: Tensor  # (B,) int64, tokens of the current document


class Attention(Mixer):
    grows = frozenset({"k", "v"})

    @dataclass(frozen=True, kw_only=True)
    class Config(Mixer.Config):
        head_dim: int = 64  # a head larger than the model becomes the model
        kv_heads: int | None = None  # heads of keys and values, each read by as many query heads; None: one for each
        bias: bool = False  # on all four maps
        rope_base: float = 10000.0

    def __init__(self, dim: int, config: Config, place: Place):
        super().__init__(dim, config, place)
        self.head_dim = min(config.head_dim, dim)
        if self.head_dim % 2:
            raise InputError(f"attention head_dim: {self.head_dim} is odd; rotary positions turn pairs, use an even size")
        self.heads = divide(dim, self.head_dim, "attention dim over head_dim")
        self.kv_heads = self.heads if config.kv_heads is None else config.kv_heads
        divide(self.heads, self.kv_heads, "attention heads over kv_heads")
        self.q, self.out = (nn.Linear(dim, dim, bias=config.bias) for _ in range(2))
        self.k, self.v = (nn.Linear(dim, self.kv_heads * self.head_dim, bias=config.bias) for _ in range(2))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Normal(0, 0.02) weights, zero biases."""
        for linear in (self.q, self.k, self.v, self.out):
            nn.init.normal_(linear.weight, std=0.02)
            if linear.bias is not None:
                nn.init.zeros_(linear.bias)

    def init_state(self, batch: int) -> State:
        past = self.no_past(batch, 0, self.kv_heads, self.head_dim)
        return State(past, past, torch.zeros(batch, dtype=torch.int64, device=past.device))

    def forward(self, x: Tensor, state: State, context: Context) -> tuple[Tensor, State]:
        B, T, _ = x.shape
        S = state.k.shape[1]
        document, position = positions(state.seen, context.reset, T)
        narrow = for_products(x)
        q, k, v = (linear(narrow).unflatten(-1, (-1, self.head_dim)) for linear in (self.q, self.k, self.v))
        q, k = (rotate(tensor, position, self.config.rope_base) for tensor in (q, k))
        keys, values = torch.cat([state.k, k.to(state.k.dtype)], 1), torch.cat([state.v, v.to(state.v.dtype)], 1)

        if S == 0 and document is None:  # the fast path: a document from its start
            mask = None
        else:
            age = torch.arange(S, 0, -1, device=x.device)  # of each kept entry: the newest is 1
            live = (age <= state.seen[:, None])[:, None].expand(B, T, S)
            new = torch.ones(T, T, dtype=torch.bool, device=x.device).tril().expand(B, T, T)
            if document is not None:
                live = live & (document == 0)[:, :, None]
                new = new & (document[:, :, None] == document[:, None, :])
            mask = torch.cat([live, new], 2)[:, None]  # (B, 1, T, S + T)
        q, past_k, past_v = (tensor.to(q.dtype).transpose(1, 2) for tensor in (q, keys, values))
        y = nn.functional.scaled_dot_product_attention(
            q, past_k, past_v, attn_mask=mask, is_causal=mask is None and T > 1, enable_gqa=self.kv_heads < self.heads
        )
        return self.out(y.transpose(1, 2).flatten(-2)), _keep(keys, values, state.seen, document, position)


def _keep(keys: Tensor, values: Tensor, seen: Tensor, document: Tensor | None, position: Tensor) -> State:
    """The state after a piece. What a reset forgot is zeroed, and entries that no row needs are dropped."""
    if document is None or position.shape[1] == 0:
        return State(keys, values, seen + position.shape[1])
    seen = position[:, -1] + 1
    size = int(seen.max())
    keys, values = keys[:, -size:], values[:, -size:]
    forgotten = (torch.arange(size, 0, -1, device=seen.device) > seen[:, None])[:, :, None, None]
    return State(keys.masked_fill(forgotten, 0), values.masked_fill(forgotten, 0), seen)
