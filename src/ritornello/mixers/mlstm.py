"""mLSTM: an LSTM whose cell is a matrix, written by key and value under exponential gates; the parallel half of xLSTM.

    x, z = u Wup        c = silu(short convolution of x)        q = c Wq      k = c Wk / sqrt(K)      v = x Wv
    i = exp(Wi [q k v] + bi)        f = sigmoid(Wf [q k v] + bf), or exp(...)        one number a head
    C_t = f_t C_{t-1} + i_t k_t v_t'        n_t = f_t n_{t-1} + i_t k_t        h_t = C_t' q_t / max(|n_t' q_t|, 1)
    out_t = ((GroupNorm(h_t) + skip * c_t) * silu(z_t)) Wdown

An exponential overflows, so C and n are kept divided by exp(m), the running maximum of what the gates can make of a write:

    m_t = max(log f_t + m_{t-1}, log i_t)        h_t = C_t' q_t / max(|n_t' q_t|, exp(-m_t))

h does not depend on m; m keeps its gradient, so that those of the divided C and n are exact as well. Wq, Wk and Wv are block
diagonal, in blocks of 4.

Source: Beck et al. 2024, arXiv:2405.04517, the block of Figure 11 (pre up-projection); initialisation as in the authors' code (xlstm).
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from ritornello.errors import divide, unknown
from ritornello.mixers.base import Context, Mixer, Place
from ritornello.mixers.head_norm import HeadNorm
from ritornello.mixers.short_conv import ShortConv
from ritornello.ops.outer import outer

BLOCK = 4  # of the maps to query, key and value
NOTHING_YET = -1e30  # the running maximum of no writes
TINY = 1e-6  # on the normaliser


class State(NamedTuple):
    C: Tensor  # (B, H, K, V) float32, divided by exp(m)
    n: Tensor  # (B, H, K) float32, divided by exp(m)
    m: Tensor  # (B, H) float32, the running maximum
    past: Tensor  # (B, W - 1, E) the convolution's last inputs


class MLSTM(Mixer):
    partner = None

    @dataclass(frozen=True, kw_only=True)
    class Config(Mixer.Config):
        heads: int = 4
        expand: int = 2  # E / D, the inner width
        conv: int = 4
        forget: Literal["sigmoid", "exp"] = "sigmoid"

    def __init__(self, dim: int, config: Config, place: Place):
        super().__init__(dim, config, place)
        if config.forget not in ("sigmoid", "exp"):
            raise unknown("mLSTM forget gate", config.forget, ("sigmoid", "exp"))
        self.inner = config.expand * dim
        self.head_dim = divide(self.inner, config.heads, "mLSTM inner width over heads")
        blocks = divide(self.inner, BLOCK, "mLSTM inner width over blocks of its maps")
        self.up = nn.Linear(dim, 2 * self.inner, bias=False)
        self.conv = ShortConv(self.inner, config.conv)
        self.q, self.k, self.v = (nn.Parameter(torch.empty(blocks, BLOCK, BLOCK)) for _ in range(3))
        self.i, self.f = (nn.Linear(3 * self.inner, config.heads) for _ in range(2))
        self.norm = HeadNorm(config.heads, self.head_dim, bias=False)
        self.skip = nn.Parameter(torch.empty(self.inner))
        self.down = nn.Linear(self.inner, dim, bias=False)
        self.reset_parameters()

    plain = ("i.weight", "f.weight")

    def reset_parameters(self) -> None:
        """Normal weights of variance 2 / (5 D), for the way down 4 / (L^2 D) with L layers of this kind; gates independent of the input,
        forgetting slowly: bf from 3 to 6 over the heads, bi Normal(0, 0.1); skip and norm 1; the convolution is torch's."""
        for weight in (self.up.weight, self.q, self.k, self.v):
            nn.init.normal_(weight, std=(2 / (5 * self.dim)) ** 0.5)
        nn.init.normal_(self.down.weight, std=2 / self.place.of / self.dim**0.5)
        nn.init.zeros_(self.i.weight)
        nn.init.zeros_(self.f.weight)
        nn.init.normal_(self.i.bias, std=0.1)
        with torch.no_grad():
            self.f.bias.copy_(torch.linspace(3, 6, self.config.heads))
        nn.init.ones_(self.skip)
        self.conv.reset_parameters()
        self.norm.reset_parameters()

    def init_state(self, batch: int) -> State:
        C = self.zeros(batch, self.config.heads, self.head_dim, self.head_dim)
        m = C.new_full((batch, self.config.heads), NOTHING_YET)
        return State(C, C.new_zeros(batch, self.config.heads, self.head_dim), m, self.conv.init_state(batch))

    def forward(self, x: Tensor, state: State, context: Context) -> tuple[Tensor, State]:
        x, z = self.up(x).chunk(2, -1)
        c, past = self.conv(x, state.past, context)
        q, k, v = blockwise(c, self.q), blockwise(c, self.k), blockwise(x, self.v)
        gates = torch.cat([q, k, v], -1)
        log_i, log_f = (gate(gates).to(state.C.dtype) for gate in (self.i, self.f))  # (B, T, H)
        if self.config.forget == "sigmoid":
            log_f = nn.functional.logsigmoid(log_f)
        before, m = running_max(log_f, log_i, state.m, context.reset)  # (B, T, H) each
        q, k, v = (tensor.to(m.dtype).unflatten(-1, (self.config.heads, -1)) for tensor in (q, k, v))
        k = k * (log_i - m).exp()[..., None] * self.head_dim**-0.5
        both = torch.cat([state.C, state.n[..., None]], -1)  # n is read and written as one more channel of v, always 1
        decay = (log_f + before - m)[..., None]
        y, both = outer(q, k, nn.functional.pad(v, (0, 1), value=1), decay, None, state=both, reset=context.reset, impl=context.impl)
        small = m.clamp_max(0).exp()[..., None]  # above and below the line, so that exp(-m) stays finite
        y = y * small
        y = y[..., :-1] / (torch.maximum(y[..., -1:].abs(), (-m.clamp_min(0)).exp()[..., None]) + TINY * small)
        y = (self.norm(y.to(x.dtype)) + self.skip * c) * nn.functional.silu(z)
        return self.down(y), State(both[..., :-1], both[..., -1], m[:, -1] if m.shape[1] else state.m, past)


def blockwise(x: Tensor, weight: Tensor) -> Tensor:
    """Each block of channels of x (B, T, E) by its own matrix of weight (E / 4, 4, 4), as nn.Linear has it."""
    return torch.einsum("btni,noi->btno", x.unflatten(-1, (-1, BLOCK)), weight).flatten(-2)


def running_max(log_f: Tensor, log_i: Tensor, m: Tensor, reset: Tensor | None) -> tuple[Tensor, Tensor]:
    """m_{t-1} and m_t of m_t = max(log f_t + m_{t-1}, log i_t), (B, T, H) each, restarting at resets; in log T steps over all tokens.

    After a step of width w, `top` is the maximum over the last 2w tokens and `path` the sum of their log f: sums only, so nothing cancels.
    """
    fresh = None if reset is None else reset[..., None]
    path = log_f if fresh is None else log_f.masked_fill(fresh, -torch.inf)
    top, width = log_i, 1
    while width < log_i.shape[1]:
        top = torch.cat([top[:, :width], torch.maximum(path[:, width:] + top[:, :-width], top[:, width:])], 1)
        path = torch.cat([path[:, :width], path[:, width:] + path[:, :-width]], 1)
        width *= 2
    after = torch.maximum(path + m[:, None], top)
    before = torch.cat([m[:, None], after], 1)[:, :-1]
    return before if fresh is None else before.masked_fill(fresh, NOTHING_YET), after
