"""The unitary recurrent network: every input is a rotation of the state, and nothing else happens to it.

    s = x Ws, the n (n - 1) / 2 entries of a skew-symmetric matrix      Q_t = exp(skew(s))      h_t = Q_t h_{t-1}      y_t = h_t Wo

The state keeps its length for ever and nothing is forgotten; the network is strictly compositional: a phrase is the product of its
words' matrices, whatever came before. A text starts at the first unit vector of every head.

Source: Bernardy and Lappin 2022, arXiv:2208.05719. There one matrix turns the whole state; here heads of n channels turn each by
itself, so that the map to the entries has D^2 (n - 1) / 2 weights and not D^2 (D - 1) / 2; `head_dim` = D is the paper's.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ritornello.errors import InputError, divide
from ritornello.mixers.base import Context, Mixer, Place
from ritornello.ops.block import block


class State(NamedTuple):
    h: Tensor  # (B, H, n) float32, a unit vector a head


class Unitary(Mixer):
    @dataclass(frozen=True, kw_only=True)
    class Config(Mixer.Config):
        head_dim: int = 16  # n; a head larger than the model becomes the model

    def __init__(self, dim: int, config: Config, place: Place):
        super().__init__(dim, config, place)
        self.head_dim = min(config.head_dim, dim)
        if self.head_dim < 2:
            raise InputError(f"unitary head_dim: in {self.head_dim} dimensions there is nothing to turn; use at least 2")
        self.heads = divide(dim, self.head_dim, "unitary dim over head_dim")
        self.skew = nn.Linear(dim, self.heads * self.head_dim * (self.head_dim - 1) // 2, bias=False)
        self.out = nn.Linear(dim, dim, bias=False)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Normal(0, 0.02) weights: small turns."""
        for linear in (self.skew, self.out):
            nn.init.normal_(linear.weight, std=0.02)

    def init_state(self, batch: int) -> State:
        return State(self._start().repeat(batch, 1, 1))

    def forward(self, x: Tensor, state: State, context: Context) -> tuple[Tensor, State]:
        entries = self.skew(x).to(state.h.dtype).unflatten(-1, (self.heads, -1))
        Q = rotation(entries, self.head_dim)
        y, h = block(Q, None, self._start(), state=state.h, reset=context.reset, impl=context.impl)
        return self.out(y.flatten(-2).to(x.dtype)), State(h)

    def _start(self) -> Tensor:
        """(H, n), the first unit vector in every head."""
        return torch.cat([self.zeros(self.heads, 1) + 1, self.zeros(self.heads, self.head_dim - 1)], -1)


def rotation(entries: Tensor, n: int) -> Tensor:
    """Entries below the diagonal of a skew-symmetric matrix, row by row (..., n (n - 1) / 2), to its exponential (..., n, n).

    In float64: float32's exponential is off by 1e-5, no longer a rotation, and a thousand of them would stretch the state.
    """
    lower = torch.zeros(*entries.shape[:-1], n, n, dtype=torch.float64, device=entries.device)
    row, column = torch.tril_indices(n, n, -1, device=entries.device)
    lower[..., row, column] = entries.double()
    with torch.autocast(entries.device.type, enabled=False):  # its matrix products would round
        return Exponential.apply(lower - lower.mT).to(entries.dtype)


class Exponential(torch.autograd.Function):
    """exp(A) of skew-symmetric A (..., n, n) by its eigenvectors: A = V diag(i w) V^H with w real.

    exp(A) = V diag(e^{i w}) V^H. A gradient G goes back as V ((V^H G V) * D) V^H with D_jk = (e^{-i w_j} - e^{-i w_k}) / (-i (w_j - w_k)),
    written as e^{-i (w_j + w_k) / 2} sinc((w_j - w_k) / 2), which is exact where eigenvalues meet (Daleckii and Krein 1965). torch's
    matrix exponential is slower: its backward pass takes one of twice the size.
    """

    @staticmethod
    def forward(ctx, A: Tensor) -> Tensor:
        w, V = torch.linalg.eigh(-1j * A)
        ctx.save_for_backward(w, V)
        return ((V * torch.exp(1j * w)[..., None, :]) @ V.mH).real

    @staticmethod
    def backward(ctx, grad: Tensor) -> Tensor:
        w, V = ctx.saved_tensors
        half = w / 2
        apart = torch.sinc((half[..., :, None] - half[..., None, :]) / torch.pi)
        turns = torch.exp(-1j * half)
        inside = (V.mH @ grad.to(V.dtype) @ V) * (apart * turns[..., :, None] * turns[..., None, :])
        return (V @ inside @ V.mH).real
