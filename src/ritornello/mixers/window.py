"""Local attention: softmax attention over the last W tokens, one head of keys and values for all queries, as in Griffin.

    y_t = sum over t - W < s <= t of softmax_s(q_t . k_s / sqrt(d)) v_s

Keys are kept rotated by their position, which counts from the document's start; a part of each head's channels stays unrotated.
Its state is the last W - 1 keys and values, however long the text.

Source: De et al. 2024, arXiv:2402.19427; fraction of rotated channels, window and the output's bias as in RecurrentGemma, Botev et
al. 2024, arXiv:2404.07839.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ritornello.errors import InputError, divide
from ritornello.mixers.base import Context, Mixer, Place
from ritornello.mixers.rotary import positions, rotate
from ritornello.ops.window import State, window


class Window(Mixer):
    partner = "geglu"

    @dataclass(frozen=True, kw_only=True)
    class Config(Mixer.Config):
        window: int = 2048  # tokens that a token sees, itself among them
        head_dim: int = 128  # a head larger than the model becomes the model
        kv_heads: int = 1  # heads of keys and values, each read by as many query heads
        rope_fraction: float = 0.5  # of a head's channels
        rope_base: float = 10000.0

    def __init__(self, dim: int, config: Config, place: Place):
        super().__init__(dim, config, place)
        if config.window < 1:
            raise InputError(f"window: {config.window} tokens leave nothing to attend to; use 1 or more")
        self.head_dim = min(config.head_dim, dim)
        self.heads = divide(dim, self.head_dim, "window dim over head_dim")
        if not 0 <= config.rope_fraction <= 1 or int(self.head_dim * config.rope_fraction) % 2:
            raise InputError(
                f"window rope_fraction: {config.rope_fraction} of a head of {self.head_dim} is not an even number of channels"
                " of the head; rotary positions turn pairs, use 0.5 or 1 and an even head_dim"
            )
        divide(self.heads, config.kv_heads, "window heads over kv_heads")
        self.q, self.out = nn.Linear(dim, dim, bias=False), nn.Linear(dim, dim)
        self.k, self.v = (nn.Linear(dim, config.kv_heads * self.head_dim, bias=False) for _ in range(2))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Normal(0, 0.02) weights, a zero bias."""
        for linear in (self.q, self.k, self.v, self.out):
            nn.init.normal_(linear.weight, std=0.02)
        nn.init.zeros_(self.out.bias)

    def init_state(self, batch: int) -> State:
        past = self.no_past(batch, self.config.window - 1, self.config.kv_heads, self.head_dim)
        return State(past, past, torch.zeros(batch, dtype=torch.int64, device=past.device))

    def forward(self, x: Tensor, state: State, context: Context) -> tuple[Tensor, State]:
        position = positions(state.seen, context.reset, x.shape[1])[1]
        q, k, v = (linear(x).unflatten(-1, (-1, self.head_dim)) for linear in (self.q, self.k, self.v))
        q, k = (rotate(tensor, position, self.config.rope_base, self.config.rope_fraction) for tensor in (q, k))
        y, state = window(q, k, v, state=state, reset=context.reset, impl=context.impl)
        return self.out(y.flatten(-2)), state
