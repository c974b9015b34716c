"""RWKV-7: a matrix memory that forgets by channel, and takes out of one direction as much as each of its channels asks.

    x^j = x_t + m_j * (x_{t-1} - x_t)  for j = r, w, k, v, a, g, a mix of this token and the last       x_{-1} = 0
    r = x^r Wr      w = exp(-e^(-1/2) sigmoid(b_w + tanh(x^w A_w) B_w))      a = sigmoid(b_a + x^a A_a B_a)
    k = x^k Wk      removed = unit(k * kappa), each head by itself           written = k * (1 + (a - 1) * alpha)
    v = x^v Wv, in upper layers moved towards the first layer's v by sigmoid(b_v + x^v A_v B_v)
    S_t = (diag(w_t) - (a_t * removed_t) removed_t') S_{t-1} + written_t v_t'
    y_t = ((norm(S_t' r_t) + (sum of rho * r_t * written_t) v_t) * (sigmoid(x^g A_g) B_g)) Wo       norm and sum by head

a is how fast each channel learns in context, rho a bonus for the token itself; all maps A B are of low rank.

Source: Peng et al. 2025, arXiv:2503.14456; ranks and initialisation as in the authors' code.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ritornello.errors import divide
from ritornello.mixers.base import Context, Mixer, Place
from ritornello.mixers.head_norm import HeadNorm
from ritornello.mixers.token_shift import shift
from ritornello.ops.delta import delta

FASTEST = -math.exp(-0.5)  # the least log decay
STEEPNESS = (0.2, 0.9, 0.7, 0.7, 0.9, 0.2)  # of the initial mixes for r, w, k, v, a, g over the channels


class State(NamedTuple):
    S: Tensor  # (B, H, K, V) float32, what each head remembers
    last: Tensor  # (B, D), the last input


class RWKV7(Mixer):
    @dataclass(frozen=True, kw_only=True)
    class Config(Mixer.Config):
        head_dim: int = 64  # K = V; a head larger than the model becomes the model
        eps: float = 64e-5  # of the norm

    plain = ("mix", "bonus")

    def __init__(self, dim: int, config: Config, place: Place):
        super().__init__(dim, config, place)
        self.head_dim = min(config.head_dim, dim)
        self.heads = divide(dim, self.head_dim, "RWKV-7 dim over head_dim")
        self.mix = nn.Parameter(torch.empty(6, dim))
        self.r, self.k, self.v, self.out = (nn.Linear(dim, dim, bias=False) for _ in range(4))
        self.w, self.a = LowRank(dim, 2.5, torch.tanh), LowRank(dim, 2.5)
        self.g = LowRank(dim, 5.0, torch.sigmoid, bias=False)
        if place.nth > 0:
            self.towards_first = LowRank(dim, 1.7)
        self.kappa, self.alpha = (nn.Parameter(torch.empty(dim)) for _ in range(2))
        self.bonus = nn.Parameter(torch.empty(self.heads, self.head_dim))  # rho
        self.norm = HeadNorm(self.heads, self.head_dim, eps=config.eps)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Output and the A of low-rank maps zero, their B orthogonal at a tenth; r, v uniform within 1/(2 sqrt(D)), k a tenth of that.

        Mixes fall over the channels from 1, the last token alone, the faster the deeper the layer. Decays, rates and the share of the
        first value are spread over the channels, decays and rates over each head's too; norms start larger in deeper layers.
        """
        depth, fresh = self.place.index / max(1, self.place.count - 1), 1 - self.place.index / self.place.count
        with torch.no_grad():
            channel = torch.arange(self.dim, device=self.mix.device)
            across = channel / max(1, self.dim - 1)  # from 0 to 1 over all channels
            within = 2 * (channel % self.head_dim) / max(1, self.head_dim - 1) - 1  # from -1 to 1 over each head's
            within = within * within.abs()
            self.mix.copy_(torch.stack([1 - (channel / self.dim) ** (steepness * fresh) for steepness in STEEPNESS]))
            self.w.up.bias.copy_(-5.5 + 6 * across ** (1 + depth**0.3) + 2.5 * within)
            self.a.up.bias.copy_(-0.19 + 0.3 * within + 0.4 * (across - 0.5))
            self.kappa.copy_(0.71 - 0.1 * (across - 0.5))
            self.alpha.fill_(1.02)
            self.bonus.fill_(-0.04)
            maps = [self.w, self.a, self.g]
            if self.place.nth > 0:
                self.towards_first.up.bias.copy_(0.73 - 0.4 * (across - 0.5))
                maps.append(self.towards_first)
            for each in maps:
                each.down.weight.zero_()
                nn.init.orthogonal_(each.up.weight, gain=0.1)
            for linear, share in ((self.r, 0.5), (self.k, 0.05), (self.v, 0.5)):
                nn.init.uniform_(linear.weight, -share * self.dim**-0.5, share * self.dim**-0.5)
            self.out.weight.zero_()
            self.norm.reset_parameters()
            self.norm.weight.fill_(((1 + self.place.index) / self.place.count) ** 0.7)

    def init_state(self, batch: int) -> State:
        return State(self.zeros(batch, self.heads, self.head_dim, self.head_dim), self.no_past(batch, self.dim))

    def forward(self, x: Tensor, state: State, context: Context) -> tuple[Tensor, State]:
        before, last = shift(x, state.last, context.reset)
        x_r, x_w, x_k, x_v, x_a, x_g = (torch.lerp(x, before, mix) for mix in self.mix.to(x.dtype).unbind())
        v = self.v(x_v)
        if self.place.nth == 0:
            context.shared["rwkv7.value"] = v
        else:
            v = torch.lerp(v, context.shared["rwkv7.value"], self.towards_first(x_v).sigmoid())
        dtype = state.S.dtype
        k, a = self.k(x_k).to(dtype), self.a(x_a).to(dtype).sigmoid()
        g, written = FASTEST * self.w(x_w).to(dtype).sigmoid(), k * (1 + (a - 1) * self.alpha)
        parts = (self.r(x_r).to(dtype), written, v.to(dtype), a, k * self.kappa, g)
        r, written, v, a, removed, g = (each.unflatten(-1, (self.heads, -1)) for each in parts)
        removed = nn.functional.normalize(removed, dim=-1)
        y, S = delta(r, written, v, a * removed, removed, g, state=state.S, reset=context.reset, impl=context.impl)
        own = (r * written * self.bonus).sum(-1, keepdim=True) * v
        y = (self.norm(y) + own.flatten(-2)).to(x.dtype)
        return self.out(y * self.g(x_g)), State(S, last)


class LowRank(nn.Module):
    """A map D -> D through about share * sqrt(D) units, a multiple of 32, and no more than D."""

    def __init__(self, dim: int, share: float, inner: Callable[[Tensor], Tensor] = lambda x: x, *, bias: bool = True):
        super().__init__()
        rank = min(dim, max(32, 32 * round(share * dim**0.5 / 32)))
        self.inner = inner
        self.down, self.up = nn.Linear(dim, rank, bias=False), nn.Linear(rank, dim, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.up(self.inner(self.down(x)))
