"""RWKV-6, Finch: a matrix memory that every key channel forgets at its own, input-dependent rate, with a bonus for the token itself.

    x^j = x_t + m^j_t * (x_{t-1} - x_t)  for j = r, k, v, g, w      x_{-1} = 0
    m^j_t = m_j + tanh((x_t + m * (x_{t-1} - x_t)) A_j) B_j         w_t = exp(-exp(b + tanh(x^w A) B))
    r = x^r Wr      k = x^k Wk      v = x^v Wv      g = x^g Wg
    y_t = (swish(g_t) * GroupNorm((S_{t-1} + diag(u) k_t v_t')' r_t)) Wo
    S_t = diag(w_t) S_{t-1} + k_t v_t'

Not dynamic, it is RWKV-5, Eagle: m^j_t = m_j and w_t = exp(-exp(b)) for all inputs.

Source: Peng et al. 2024, arXiv:2404.05892; ranks, the norm's eps and the initial mixes, decays and bonuses as in the authors' code.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ritornello.errors import InputError, divide
from ritornello.mixers.base import Context, Mixer, Place
from ritornello.mixers.head_norm import HeadNorm
from ritornello.mixers.token_shift import rising, shift
from ritornello.ops.outer import outer


class State(NamedTuple):
    S: Tensor  # (B, H, K, V) float32, what each head remembers
    last: Tensor  # (B, D), the last input


class RWKV6(Mixer):
    partner = "rwkv_channel"

    @dataclass(frozen=True, kw_only=True)
    class Config(Mixer.Config):
        dynamic: bool = True  # mixes and decays depend on the input; False: RWKV-5
        head_dim: int = 64  # K = V; a head larger than the model becomes the model
        rank: int = 32  # of the maps to the mixes; that to the decays has twice as much. Larger than the model becomes the model
        eps: float = 64e-5  # of the norm

    plain = ("mix", "bonus")

    def __init__(self, dim: int, config: Config, place: Place):
        super().__init__(dim, config, place)
        self.head_dim = min(config.head_dim, dim)
        self.heads = divide(dim, self.head_dim, "RWKV-6 dim over head_dim")
        self.r, self.k, self.v, self.g, self.out = (nn.Linear(dim, dim, bias=False) for _ in range(5))
        self.mix = nn.Parameter(torch.empty(5 if config.dynamic else 4, dim))  # of r, k, v, g, w
        self.decay = nn.Parameter(torch.empty(dim))  # b
        self.bonus = nn.Parameter(torch.empty(self.heads, self.head_dim))  # u
        if config.dynamic:
            if config.rank < 1:
                raise InputError(f"RWKV-6 rank: {config.rank} leaves nothing dynamic; use 32, or dynamic = false for RWKV-5")
            rank = min(config.rank, dim)
            self.mix_all = nn.Parameter(torch.empty(dim))  # m
            self.mix_down, self.mix_up = nn.Linear(dim, 5 * rank, bias=False), nn.Parameter(torch.empty(5, rank, dim))
            rank = min(2 * config.rank, dim)
            self.decay_down, self.decay_up = nn.Linear(dim, rank, bias=False), nn.Linear(rank, dim, bias=False)
        self.norm = HeadNorm(self.heads, self.head_dim, eps=config.eps)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Normal(0, 0.02) weights; of low-rank maps the first zero and the second uniform within 0.01, so that RWKV-6 starts as RWKV-5.

        Mixes fall over the channels from 1, the last token alone, the faster the deeper the layer, v's by up to 0.3 below; b rises
        from -6 to -1; bonuses zigzag by 0.1 and fall from the layer's depth, 0 to 1, to 0.
        """
        deep = self.place.index / max(1, self.place.count - 1)  # 0 in the first layer, 1 in the last
        channel = torch.arange(self.dim, device=self.decay.device)
        rise, across = rising(self.place, self.decay), channel / max(1, self.dim - 1)
        mixes = [1 - rise.sqrt(), 1 - rise, 1 - rise - 0.3 * deep, 1 - rise.sqrt(), 1 - rise]  # of r, k, v, g, w
        with torch.no_grad():
            self.mix.copy_(torch.stack(mixes[: len(self.mix)]))
            self.decay.copy_(-6 + 5 * across ** (0.7 + 1.3 * deep))
            self.bonus.copy_((deep * (1 - across) + 0.1 * ((channel + 1) % 3 - 1)).view_as(self.bonus))
            if self.config.dynamic:
                self.mix_all.copy_(1 - rise)
                for down, up in ((self.mix_down, self.mix_up), (self.decay_down, self.decay_up.weight)):
                    down.weight.zero_()
                    up.uniform_(-0.01, 0.01)
        for linear in (self.r, self.k, self.v, self.g, self.out):
            nn.init.normal_(linear.weight, std=0.02)
        self.norm.reset_parameters()

    def init_state(self, batch: int) -> State:
        return State(self.zeros(batch, self.heads, self.head_dim, self.head_dim), self.no_past(batch, self.dim))

    def forward(self, x: Tensor, state: State, context: Context) -> tuple[Tensor, State]:
        before, last = shift(x, state.last, context.reset)
        mixes, decay = self.mix.to(x.dtype), self.decay.expand_as(x)
        if self.config.dynamic:
            low = self.mix_down(torch.lerp(x, before, self.mix_all.to(x.dtype))).tanh().unflatten(-1, (5, -1))
            mixes = mixes[:, None, None] + torch.einsum("btjr,jrd->jbtd", low, self.mix_up).to(x.dtype)
        mixed = [torch.lerp(x, before, mix) for mix in mixes.unbind()]
        if self.config.dynamic:
            decay = decay + self.decay_up(self.decay_down(mixed.pop()).tanh())
        parts = [linear(each) for linear, each in zip((self.r, self.k, self.v, self.g), mixed, strict=True)]
        r, k, v, log_decay = (part.unflatten(-1, (self.heads, -1)) for part in (*parts[:3], -decay.to(state.S.dtype).exp()))
        y, S = outer(r, k, v, log_decay, self.bonus, state=state.S, reset=context.reset, impl=context.impl)
        return self.out(nn.functional.silu(parts[3]) * self.norm(y.to(x.dtype))), State(S, last)
