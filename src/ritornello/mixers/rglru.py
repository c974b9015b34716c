"""Hawk's recurrent block: a short convolution and the real-gated linear recurrent unit, beside a GELU branch that gates its output.

    u = conv(x Wx + bx)      r, i = sigmoid(blocks of u Ar + br), sigmoid(blocks of u Ai + bi)
    log a_t = -8 r_t softplus(rate)      h_t = a_t h_{t-1} + sqrt(1 - a_t^2) (i_t * u_t)
    y_t = (h_t * gelu(x Wy + by)) Wo + bo

The square root keeps the state's size; a document's first token has nothing to share with and is written whole. Griffin is two
such layers to one of local attention.

Source: De et al. 2024, arXiv:2402.19427; layout, biases and initialisation of RecurrentGemma (Botev et al. 2024, arXiv:2404.07839).
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ritornello.errors import divide
from ritornello.mixers.base import Context, Mixer, Place
from ritornello.mixers.rotary import positions
from ritornello.mixers.short_conv import ShortConv
from ritornello.ops.scan import scan

POWER = 8.0  # the paper's c


class State(NamedTuple):
    h: Tensor  # (B, W) float32
    conv: Tensor  # (B, taps - 1, W) past inputs of the convolution, newest last
    seen: Tensor  # (B,) int64, tokens of the current document


class RGLRU(Mixer):
    partner = "geglu"
    plain = ("r_weight", "i_weight")  # stacks of blocks, no matrices

    @dataclass(frozen=True, kw_only=True)
    class Config(Mixer.Config):
        width: int | None = None  # of the recurrence; None: the model's, as in RecurrentGemma (the paper takes 4/3 of it)
        head_dim: int = 256  # size of the gates' blocks; a block larger than the width becomes the width
        conv: int = 4  # taps

    def __init__(self, dim: int, config: Config, place: Place):
        super().__init__(dim, config, place)
        self.width = dim if config.width is None else config.width
        self.head_dim = size = min(config.head_dim, self.width)
        self.heads = divide(self.width, size, "RG-LRU width over head_dim")
        self.x, self.y = (nn.Linear(dim, self.width) for _ in range(2))
        self.conv = ShortConv(self.width, config.conv, activation=False)
        self.rate = nn.Parameter(torch.empty(self.width))
        self.r_weight, self.i_weight = (nn.Parameter(torch.empty(self.heads, size, size)) for _ in range(2))  # (block, in, out)
        self.r_bias, self.i_bias = (nn.Parameter(torch.empty(self.heads, size)) for _ in range(2))
        self.out = nn.Linear(self.width, dim)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Normal weights of variance 1/D (x, y), 2/(layers W) (out), 0.01/taps (conv) and 0.01/block (gates), zero biases.

        exp(-softplus(rate)), the decay's eighth root where the gate is open, has its square uniform in [0.9^2, 0.999^2].
        """
        nn.init.normal_(self.x.weight, std=self.dim**-0.5)
        nn.init.normal_(self.y.weight, std=self.dim**-0.5)
        nn.init.normal_(self.out.weight, std=(2 / (self.place.count * self.width)) ** 0.5)
        nn.init.normal_(self.conv.weight, std=(0.01 / self.config.conv) ** 0.5)
        for weight in (self.r_weight, self.i_weight):
            nn.init.normal_(weight, std=(0.01 / weight.shape[-1]) ** 0.5)
        for name, parameter in self.named_parameters():
            if name.endswith("bias"):
                nn.init.zeros_(parameter)
        with torch.no_grad():
            self.rate.uniform_(0.9**2, 0.999**2).log_().div_(-2).expm1_().log_()

    def init_state(self, batch: int) -> State:
        h = self.zeros(batch, self.width)
        return State(h, self.conv.init_state(batch), torch.zeros(batch, dtype=torch.int64, device=h.device))

    def forward(self, x: Tensor, state: State, context: Context) -> tuple[Tensor, State]:
        _, position = positions(state.seen, context.reset, x.shape[1])
        u, conv = self.conv(self.x(x), state.conv, context)
        log_a, write = self._gates(u, state.h.dtype)
        scale = (-torch.expm1(2 * log_a)).clamp_min(torch.finfo(log_a.dtype).tiny).sqrt()  # never 0, where the slope is infinite
        write = torch.where((position == 0)[..., None], write, scale * write)
        y, h = scan(log_a.exp(), write, state=state.h, reset=context.reset, impl=context.impl)
        seen = position[:, -1] + 1 if x.shape[1] else state.seen
        return self.out(y.to(x.dtype) * nn.functional.gelu(self.y(x), approximate="tanh")), State(h, conv, seen)

    def _gates(self, u: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """The log decay and the gated input, (B, T, W) each."""
        blocks = u.unflatten(-1, (self.heads, -1))  # (B, T, H, size)
        weights = ((self.r_weight, self.r_bias), (self.i_weight, self.i_bias))
        r, i = (torch.sigmoid((torch.einsum("bthi,hij->bthj", blocks, W) + b).flatten(-2).to(dtype)) for W, b in weights)
        return -POWER * nn.functional.softplus(self.rate.to(dtype)) * r, i * u.to(dtype)
