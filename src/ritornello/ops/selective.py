"""The selective scan: a diagonal state whose step size, write and read all depend on the input.

    h_t = exp(dt_t A) h_{t-1} + dt_t x_t B_t'        y_t = h_t C_t        A < 0, dt >= 0

Each channel of x has its own row of N decays in A and its own row of the state; B and C are shared by the channels.

The decays of a whole text would take N times its room. `chunk` makes them for 64 tokens at a time and steps through these as
`scan` does; the backward pass makes them again, so that only the states between the pieces are kept.

Source: Gu and Dao 2023, arXiv:2312.00752 (Mamba).
"""

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from ritornello.ops import scan
from ritornello.ops.op import Implementation, Op, native

PIECE = 64


def loop(x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, h: Tensor, reset: Tensor | None) -> tuple[Tensor, Tensor]:
    """The definition. x, dt: (B, T, D); A: (D, N); B, C: (B, T, N); h: (B, D, N); reset: (B, T) bool.

    Returns y (B, T, D) and the last h.
    """
    outputs = []
    resets = reset.unbind(1) if reset is not None else [None] * x.shape[1]
    for x_t, dt_t, B_t, C_t, reset_t in zip(*(tensor.unbind(1) for tensor in (x, dt, B, C)), resets, strict=True):
        if reset_t is not None:
            h = torch.where(reset_t[:, None, None], 0, h)
        h = torch.exp(dt_t[..., None] * A) * h + (dt_t * x_t)[..., None] * B_t[:, None]
        outputs.append(torch.einsum("bdn,bn->bd", h, C_t))
    return torch.stack(outputs, 1) if outputs else x, h


def chunk(x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, h: Tensor, reset: Tensor | None) -> tuple[Tensor, Tensor]:
    """The same in pieces of 64; see the top of the file."""
    parts = [tensor.split(PIECE, 1) for tensor in (x, dt, B, C)]
    resets = reset.split(PIECE, 1) if reset is not None else [None] * len(parts[0])
    outputs = []
    for x_p, dt_p, B_p, C_p, reset_p in zip(*parts, resets, strict=True):
        y, h = checkpoint(_piece, x_p, dt_p, A, B_p, C_p, h, reset_p, use_reentrant=False, preserve_rng_state=False)
        outputs.append(y)
    return torch.cat(outputs, 1), h


def _piece(x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, h: Tensor, reset: Tensor | None) -> tuple[Tensor, Tensor]:
    """A piece with every state of it: (B, T, D, N)."""
    states, h = scan.chunk(torch.exp(dt[..., None] * A), (dt * x)[..., None] * B[:, :, None], h, reset)
    return torch.einsum("btdn,btn->btd", states, C), h


def _few_steps(x: Tensor, *rest: Tensor) -> str | None:
    return f"{x.shape[1]} steps, fewer than two pieces of {scan.CHUNK}" if x.shape[1] < 2 * scan.CHUNK else None


selective = Op(
    "selective", {"native": native("selective", "native_scans"), "chunk": Implementation(chunk, _few_steps), "loop": Implementation(loop)}
)
