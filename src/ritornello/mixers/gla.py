"""Gated linear attention: a matrix memory that every key channel forgets at its own, input-dependent rate.

    q = x Wq / sqrt(K)      k = x Wk      v = x Wv      alpha = sigmoid(x W1 W2 + b)^(1/16)        W1 of rank 16
    S_t = diag(alpha_t) S_{t-1} + k_t v_t'
    y_t = (swish(x Wg) * RMSNorm(S_t' q_t), each head by itself) Wo

Source: Yang et al. 2023, arXiv:2312.06635: four heads, keys half as wide as values, the root so that forgetting is slow. The heads'
norm has no mean to subtract and one scale for all heads, as in the authors' layer (flash-linear-attention).
"""

from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor, nn

from ritornello.errors import InputError, divide
from ritornello.mixers.base import Context, Mixer, Place
from ritornello.ops.outer import outer

ROOT = 16  # of the forget gate


class State(NamedTuple):
    S: Tensor  # (B, H, K, V) float32, what each head remembers


class GLA(Mixer):
    @dataclass(frozen=True, kw_only=True)
    class Config(Mixer.Config):
        heads: int = 4
        rank: int = 16  # of the forget gate's map; larger than the model becomes the model
        eps: float = 1e-5

    def __init__(self, dim: int, config: Config, place: Place):
        super().__init__(dim, config, place)
        if config.rank < 1:
            raise InputError(f"GLA rank: {config.rank} leaves no forget gate; use 16")
        self.key_dim = divide(dim, 2 * config.heads, "GLA dim over twice the heads")
        keys, rank = dim // 2, min(config.rank, dim)
        self.q, self.k = (nn.Linear(dim, keys, bias=False) for _ in range(2))
        self.v, self.gate, self.out = (nn.Linear(dim, dim, bias=False) for _ in range(3))
        self.narrow, self.forget = nn.Linear(dim, rank, bias=False), nn.Linear(rank, keys)
        self.norm = nn.RMSNorm(2 * self.key_dim, eps=config.eps)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Normal(0, 0.02) weights; a zero bias, so that a gate starts at 2^(-1/16), half forgotten in 16 tokens."""
        for linear in (self.q, self.k, self.v, self.gate, self.out, self.narrow, self.forget):
            nn.init.normal_(linear.weight, std=0.02)
        nn.init.zeros_(self.forget.bias)
        self.norm.reset_parameters()

    def init_state(self, batch: int) -> State:
        return State(self.zeros(batch, self.config.heads, self.key_dim, 2 * self.key_dim))

    def forward(self, x: Tensor, state: State, context: Context) -> tuple[Tensor, State]:
        parts = (self.q(x), self.k(x), self.v(x), self.gate(x), self.forget(self.narrow(x)))
        q, k, v, gate, forget = (part.unflatten(-1, (self.config.heads, -1)) for part in parts)
        log_decay = nn.functional.logsigmoid(forget.to(state.S.dtype)) / ROOT
        y, S = outer(q * self.key_dim**-0.5, k, v, log_decay, None, state=state.S, reset=context.reset, impl=context.impl)
        y = nn.functional.silu(gate) * self.norm(y.to(x.dtype))
        return self.out(y.flatten(-2)), State(S)
