"""RetNet: retention, linear attention whose memory fades at a fixed rate, another for each head.

    q = rotate(x Wq) / sqrt(K)      k = rotate(x Wk)      v = x Wv        rotary positions count from the document's start
    S_t = gamma_h S_{t-1} + k_t v_t'        gamma_h = 1 - 2^(-5 - h), h = 0, 1, ...
    y_t = (swish(x Wg) * RMSNorm(S_t' q_t), each head by itself) Wo

Source: Sun et al. 2023, arXiv:2307.08621. Its xPos is rotation and decay, and the decay is gamma's. Values are twice as wide as keys;
the heads' group norm has no mean to subtract and one scale for all heads, as in flash-linear-attention's layer.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ritornello.errors import InputError, divide
from ritornello.mixers.base import Context, Mixer, Place
from ritornello.mixers.rotary import positions, rotate
from ritornello.ops.outer import outer


class State(NamedTuple):
    S: Tensor  # (B, H, K, V) float32, what each head remembers
    seen: Tensor  # (B,) int64, tokens of the current document


class RetNet(Mixer):
    @dataclass(frozen=True, kw_only=True)
    class Config(Mixer.Config):
        head_dim: int = 256  # K; a head larger than the model becomes the model
        expand: int = 2  # V / K
        rope_base: float = 10000.0
        eps: float = 1e-5

    def __init__(self, dim: int, config: Config, place: Place):
        super().__init__(dim, config, place)
        self.head_dim = min(config.head_dim, dim)
        if self.head_dim % 2:
            raise InputError(f"RetNet head_dim: {self.head_dim} is odd; rotary positions turn pairs, use an even size")
        if config.expand < 1:
            raise InputError(f"RetNet expand: {config.expand} leaves no values; use 1 or 2")
        self.heads = divide(dim, self.head_dim, "RetNet dim over head_dim")
        inner = config.expand * dim
        self.q, self.k = (nn.Linear(dim, dim, bias=False) for _ in range(2))
        self.v, self.gate = (nn.Linear(dim, inner, bias=False) for _ in range(2))
        self.norm = nn.RMSNorm(config.expand * self.head_dim, eps=config.eps)
        self.out = nn.Linear(inner, dim, bias=False)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """The authors': Xavier uniform, with gain 2^-2.5 for what is read in and 2^-1 for the output."""
        for linear in (self.q, self.k, self.v, self.gate):
            nn.init.xavier_uniform_(linear.weight, gain=2**-2.5)
        nn.init.xavier_uniform_(self.out.weight, gain=0.5)
        self.norm.reset_parameters()

    def init_state(self, batch: int) -> State:
        S = self.zeros(batch, self.heads, self.head_dim, self.config.expand * self.head_dim)
        return State(S, torch.zeros(batch, dtype=torch.int64, device=S.device))

    def forward(self, x: Tensor, state: State, context: Context) -> tuple[Tensor, State]:
        B, T, _ = x.shape
        q, k, v, gate = (linear(x).unflatten(-1, (self.heads, -1)) for linear in (self.q, self.k, self.v, self.gate))
        _, position = positions(state.seen, context.reset, T)
        q, k = (rotate(tensor, position, self.config.rope_base) for tensor in (q * self.head_dim**-0.5, k))
        log_decay = fading(self.heads, state.S).expand(B, T, self.heads, 1)
        y, S = outer(q, k, v, log_decay, None, state=state.S, reset=context.reset, impl=context.impl)
        y = nn.functional.silu(gate) * self.norm(y.to(x.dtype))
        return self.out(y.flatten(-2)), State(S, position[:, -1] + 1 if T else state.seen)


def fading(heads: int, like: Tensor) -> Tensor:
    """log gamma (H, 1) of gamma = 1 - 2^(-5 - h): the first head forgets half in 22 tokens, each next in twice as many."""
    h = torch.arange(heads, device=like.device, dtype=like.dtype)[:, None]
    return torch.log1p(-torch.exp(-math.log(2) * (5 + h)))
