"""HGRN2: a gated linear RNN whose state is grown by outer products.

The forget gate's complement is the key, so the state stays a convex mix of what it has seen:

    q = swish(x Wq) / sqrt(K)      f = floor + (1 - floor) sigmoid(x Wf)      v = x Wv
    S_t = diag(f_t) S_{t-1} + (1 - f_t) v_t'      y_t = RMSNorm(concat over heads of S_t' q_t) Wo

The gate's floor rises with depth: with P = softmax over layers of a learned table (L, D), layer l has
floor_l = P_1 + ... + P_l - P_1, so the first layer may forget everything and upper layers keep more.

With `conv` each of x Wq, x Wf and x Wv first goes through a short causal convolution of its own, without bias or activation.

Source: Qin et al. 2024, arXiv:2404.07904; layout, scale and convolutions as in flash-linear-attention's layer.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ritornello.errors import divide
from ritornello.mixers.base import Context, Mixer, Place
from ritornello.mixers.rms_norm import RMSNorm
from ritornello.mixers.short_conv import ShortConv
from ritornello.ops.outer import outer
from ritornello.ops.pointwise import for_products, forget, swish


class State(NamedTuple):
    S: Tensor  # (B, H, K, V) float32, what each head remembers


class ConvState(NamedTuple):
    S: Tensor
    q: Tensor  # (B, W - 1, D), what the convolutions saw last
    f: Tensor
    v: Tensor


class HGRN2(Mixer):
    @dataclass(frozen=True, kw_only=True)
    class Config(Mixer.Config):
        head_dim: int = 128  # K = V; a head larger than the model becomes the model
        conv: int | None = None  # width of the short convolutions; None or 0: none

    def __init__(self, dim: int, config: Config, place: Place):
        super().__init__(dim, config, place)
        self.head_dim = min(config.head_dim, dim)
        self.heads = divide(dim, self.head_dim, "HGRN2 dim over head_dim")
        self.q, self.f, self.v, self.out = (nn.Linear(dim, dim, bias=False) for _ in range(4))
        if config.conv:
            self.q_conv, self.f_conv, self.v_conv = (ShortConv(dim, config.conv, bias=False, activation=False) for _ in range(3))
        self.norm = RMSNorm(dim, eps=1e-6)
        if place.nth == 0:  # all layers of this kind learn their floors together
            self.rise = nn.Parameter(torch.empty(place.of, dim))
        self.reset_parameters()

    plain = ("rise",)

    def reset_parameters(self) -> None:
        """Normal(0, 0.02) weights; equal rises, so the floors start at 0, 1/L, 2/L, ...; torch's filters."""
        for linear in (self.q, self.f, self.v, self.out):
            nn.init.normal_(linear.weight, std=0.02)
        for conv in (self.q_conv, self.f_conv, self.v_conv) if self.config.conv else ():
            conv.reset_parameters()
        self.norm.reset_parameters()
        if self.place.nth == 0:
            nn.init.zeros_(self.rise)

    def init_state(self, batch: int) -> State | ConvState:
        S = self.zeros(batch, self.heads, self.head_dim, self.head_dim)
        if not self.config.conv:
            return State(S)
        return ConvState(S, *(conv.init_state(batch) for conv in (self.q_conv, self.f_conv, self.v_conv)))

    def forward(self, x: Tensor, state: State | ConvState, context: Context) -> tuple[Tensor, State | ConvState]:
        if self.place.nth == 0:
            rise = self.rise.to(state.S.dtype).softmax(0)
            context.shared["hgrn2.floor"] = rise.cumsum(0) - rise[0]
        floor = context.shared["hgrn2.floor"][self.place.nth]  # (D,), zero in the first layer
        narrow = for_products(x)
        q, f, v = self.q(narrow), self.f(narrow), self.v(narrow)
        past: tuple[Tensor, ...] = ()
        if isinstance(state, ConvState):
            q, past_q = self.q_conv(q, state.q, context)
            f, past_f = self.f_conv(f, state.f, context)
            v, past_v = self.v_conv(v, state.v, context)
            past = past_q, past_f, past_v
        q = swish(q, self.head_dim**-0.5, floor.dtype, context.impl)
        key, log_decay = forget(f, floor, context.impl)
        q, key, log_decay, v = (tensor.unflatten(-1, (self.heads, self.head_dim)) for tensor in (q, key, log_decay, v))
        y, S = outer(q, key, v, log_decay, None, state=state.S, reset=context.reset, impl=context.impl)
        return self.out(self.norm(y.flatten(-2).to(x.dtype), context.impl, narrow=True)), ConvState(S, *past) if past else State(S)
