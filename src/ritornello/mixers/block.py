"""A linear RNN whose transition is block-diagonal and made of each input: a product of small matrices, so any finite automaton.

    M_t = x Wm + bias, as one n by n matrix a block      A_t = M_t / max(1, longest column of M_t in the p-norm)
    h_t = A_t h_{t-1} + x Wb                             y_t = h_t Wo

With columns no longer than 1 in the 1-norm no product can grow; p = 1.2 leaves a little more freedom and is stable in practice.
Permutations have columns of length 1 in every norm, so the limit does not touch them.

Source: Fan, Chi and Rudnicky 2023, arXiv:2309.07412. There M_t comes out of two layers and the first state is learned; here one map
suffices, as x has been through the layers below, and the first state is zero.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ritornello.errors import InputError, divide
from ritornello.mixers.base import Context, Mixer, Place
from ritornello.ops.block import block


class State(NamedTuple):
    h: Tensor  # (B, H, n) float32, one vector a block


class Block(Mixer):
    @dataclass(frozen=True, kw_only=True)
    class Config(Mixer.Config):
        block: int = 8  # n; a block larger than the model becomes the model
        norm: float = 1.2  # p, at least 1

    def __init__(self, dim: int, config: Config, place: Place):
        super().__init__(dim, config, place)
        if not config.norm >= 1:
            raise InputError(f"block norm: {config.norm} is less than 1, so not a norm; use 1 to 2")
        self.size = min(config.block, dim)
        self.blocks = divide(dim, self.size, "block dim over block")
        self.transition = nn.Linear(dim, dim * self.size)
        self.write, self.out = (nn.Linear(dim, dim, bias=False) for _ in range(2))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Normal(0, 0.02) weights; the transition's bias is the identity, so that a block starts by keeping what it holds."""
        for linear in (self.transition, self.write, self.out):
            nn.init.normal_(linear.weight, std=0.02)
        with torch.no_grad():
            self.transition.bias.copy_(torch.eye(self.size, device=self.transition.bias.device).flatten().repeat(self.blocks))

    def init_state(self, batch: int) -> State:
        return State(self.zeros(batch, self.blocks, self.size))

    def forward(self, x: Tensor, state: State, context: Context) -> tuple[Tensor, State]:
        A = self.transition(x).to(state.h.dtype).unflatten(-1, (self.blocks, self.size, self.size))
        columns = torch.linalg.vector_norm(A, self.config.norm, dim=-2, keepdim=True)
        A = A / columns.amax(-1, keepdim=True).clamp_min(1)
        b = self.write(x).unflatten(-1, (self.blocks, self.size))
        y, h = block(A, b, None, state=state.h, reset=context.reset, impl=context.impl)
        return self.out(y.flatten(-2).to(x.dtype)), State(h)
