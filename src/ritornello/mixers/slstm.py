"""sLSTM: an LSTM with exponential gates, which may revise what it has stored, and recurrence within heads.

    i, f from conv(x), z, o from x, each with its head's part of W x_t + R h_{t-1} + b        (W, R block-diagonal)
    m_t = max(i, log sigmoid(f) + m_{t-1})      i' = exp(i - m_t)      f' = exp(log sigmoid(f) + m_{t-1} - m_t)
    c_t = f' c_{t-1} + i' tanh(z)      n_t = f' n_{t-1} + i'      h_t = sigmoid(o) c_t / n_t
    y_t = each head of h_t, normed

m only keeps the exponentials finite: c exp(m) and n exp(m) do not depend on it, and h is their quotient. A fresh m is -1e30, so
the first token is written whole, i' / n_1 = 1. m keeps its gradient, so that those of c and n are exact as well; h's would be so
without. What follows in the paper's block, a residual and a gated MLP, is a channel mixer here. The cell runs in C++ where it can
(ops/native_cells.py), else, and for "loop", as `step` below.

Source: Beck et al. 2024, arXiv:2405.04517; the sigmoid forget gate, the short convolution and the biases are the authors'
package's (xlstm).
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ritornello.errors import InputError, divide
from ritornello.mixers.base import Context, Mixer, Place
from ritornello.mixers.cell import over_time
from ritornello.mixers.head_norm import HeadNorm
from ritornello.mixers.short_conv import ShortConv
from ritornello.ops import native_cells


class State(NamedTuple):
    conv: Tensor  # (B, conv - 1, D) past inputs of the convolution, newest last
    h: Tensor  # (B, H, K) float32, the last output before its norm
    c: Tensor  # (B, H, K) float32, the cell
    n: Tensor  # (B, H, K) float32, the normaliser
    m: Tensor  # (B, H, K) float32, the running maximum


class SLSTM(Mixer):
    partner = "geglu"

    @dataclass(frozen=True, kw_only=True)
    class Config(Mixer.Config):
        heads: int = 4
        conv: int | None = 4  # taps before the gates i and f; None or 0: no convolution
        eps: float = 1e-5

    plain = ("w", "r", "b")  # stacks of blocks, no matrices

    def __init__(self, dim: int, config: Config, place: Place):
        super().__init__(dim, config, place)
        self.head_dim = divide(dim, config.heads, "sLSTM dim over heads")
        if self.head_dim == 1:
            raise InputError(f"sLSTM: {config.heads} heads of one number each, whose norm is always zero; use at most {dim // 2}")
        self.conv = ShortConv(dim, config.conv) if config.conv else None
        self.w, self.r = (nn.Parameter(torch.empty(4, config.heads, self.head_dim, self.head_dim)) for _ in range(2))  # (ifzo, H, in, out)
        self.b = nn.Parameter(torch.empty(4, config.heads, self.head_dim))
        self.norm = HeadNorm(config.heads, self.head_dim, bias=False, eps=config.eps)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Normal(0, sqrt(2 / 5D)) input weights, no recurrence, biases zero but the forget gate's, and torch's default convolution.

        Over a head's channels u from 0 to 1 the forget gate's bias falls from 5 to -7 as 5 - 12 u^p, with p from 0.3 in the first
        layer to 1.6 in the last: upper layers have more channels that remember long.
        """
        if self.conv is not None:
            self.conv.reset_parameters()
        nn.init.normal_(self.w, std=(2 / (5 * self.dim)) ** 0.5)
        nn.init.zeros_(self.r)
        nn.init.zeros_(self.b)
        self.norm.reset_parameters()
        power = 0.3 + 1.3 * self.place.index / max(self.place.count - 1, 1)
        with torch.no_grad():
            self.b[1] = 5 - 12 * torch.linspace(0, 1, self.head_dim, device=self.b.device) ** power

    def init_state(self, batch: int) -> State:
        past = self.conv.init_state(batch) if self.conv is not None else self.no_past(batch, 0, self.dim)
        zeros = self.zeros(batch, self.config.heads, self.head_dim)
        return State(past, zeros, zeros, zeros, torch.full_like(zeros, -1e30))

    def forward(self, x: Tensor, state: State, context: Context) -> tuple[Tensor, State]:
        if x.shape[1] == 0:
            return x, state
        mixed, past = self.conv(x, state.conv, context) if self.conv is not None else (x, state.conv)
        with torch.autocast(x.device.type, enabled=False):
            u = torch.cat([self.inputs(mixed, slice(0, 2)), self.inputs(x, slice(2, 4))], 3).to(state.c.dtype)  # (B, T, H, 4, K)
            r = self.r.permute(1, 2, 0, 3).flatten(2)  # (H, K, 4 K)
            if context.impl != "loop" and native_cells.against(u) is None:
                h, memory = native_cells.slstm(u, r, *state[1:], context.reset)
            else:
                fresh = self.init_state(len(x))
                h, memory = over_time(lambda u, memory: step(r, u, memory), u, tuple(state[1:]), tuple(fresh[1:]), context.reset)
        return self.norm(h).to(x.dtype), State(past, *memory)

    def inputs(self, x: Tensor, gates: slice) -> Tensor:
        """The input's share of these gates, (B, T, H, gates, K): each head sees its own part of x (B, T, D)."""
        w, b = self.w[gates].permute(1, 2, 0, 3), self.b[gates].transpose(0, 1)  # (H, K, gates, K), (H, gates, K)
        parts = x.to(w.dtype).unflatten(-1, (len(w), -1)).flatten(0, 1).transpose(0, 1)  # (H, B T, K)
        shares = torch.baddbmm(b.flatten(1)[:, None], parts, w.flatten(2))
        return shares.unflatten(-1, b.shape[1:]).unflatten(1, x.shape[:2]).permute(1, 2, 0, 3, 4)


def step(r: Tensor, u: Tensor, memory: tuple[Tensor, ...]) -> tuple[Tensor, tuple[Tensor, ...]]:
    """The cell: recurrent weights (H, K, 4 K), the input's share (B, H, 4, K) of i, f, z, o, and h, c, n, m to h and all four after."""
    h, c, n, m = memory
    recurrent = (h.to(r.dtype).transpose(0, 1) @ r).transpose(0, 1)  # (B, H, 4 K)
    i, f, z, o = (u + recurrent.unflatten(-1, (4, -1))).unbind(2)
    log_keep = nn.functional.logsigmoid(f) + m
    m = torch.maximum(i, log_keep)
    write, keep = (i - m).exp(), (log_keep - m).exp()
    c, n = keep * c + write * z.tanh(), keep * n + write
    h = o.sigmoid() * c / n
    return h, (h, c, n, m)
