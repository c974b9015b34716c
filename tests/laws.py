"""Tools for the laws: warm mixers and states in float64, and comparisons that allow left padding."""

import dataclasses

import torch
from torch import Tensor, nn

from ritornello.mixers import CHANNEL, mixer
from ritornello.mixers.base import Context, Place
from ritornello.model import LM, LMConfig
from ritornello.state import map_leaves, named_leaves

DIM = 16


def small(name: str):
    """The mixer's config with two heads in a width of 16, and a window that a short text outgrows."""
    config = mixer(name).Config()
    return dataclasses.replace(config, **{size: value for size, value in {"head_dim": 8, "window": 7}.items() if hasattr(config, size)})


class Alone(nn.Module):
    """One mixer, called as a stack is."""

    def __init__(self, name: str):
        super().__init__()
        self.mixer = mixer(name)(DIM, small(name), Place())

    def init_state(self, batch: int):
        return self.mixer.init_state(batch)

    def forward(self, x: Tensor, state, reset: Tensor | None = None, impl: str = "auto"):
        return self.mixer(x, state, Context(reset, impl))


class Stack(nn.Module):
    """Two layers of a kind inside a model, fed with embeddings; a channel mixer sits above an HGRN2."""

    def __init__(self, name: str):
        super().__init__()
        time, channel = (("hgrn2",) * 2, name) if name in CHANNEL else ((name,) * 2, None)
        mixers = {kind: small(kind) for kind in {*time, channel} - {None}}
        self.lm = LM(LMConfig(vocab=2, dim=DIM, layers=time, channel=channel, mixers=mixers))

    def init_state(self, batch: int):
        return self.lm.init_state(batch)

    def forward(self, x: Tensor, state, reset: Tensor | None = None, impl: str = "auto"):
        self.lm.impl = impl
        return self.lm.features(x, state, reset)


def lively(module: nn.Module, dtype: torch.dtype = torch.float64) -> nn.Module:
    """Parameters large enough that every path through the module matters."""
    module = module.to(dtype)
    with torch.no_grad():
        for weight in module.parameters():
            weight.copy_(
                torch.randn(weight.shape, generator=torch.Generator().manual_seed(weight.numel())) * (0.5 if weight.dim() > 1 else 1)
            )
    return module


def warm(module: nn.Module, batch: int = 3, steps: int = 5, dtype: torch.dtype = torch.float64):
    """A state that has seen something: random tokens, a reset in one row on the way."""
    reset = torch.zeros(batch, steps, dtype=torch.bool)
    reset[-1, 2] = True
    with torch.no_grad():
        return module(torch.randn(batch, steps, DIM, dtype=dtype), module.init_state(batch), reset)[1]


def assert_same(found, wanted, tolerance: float = 1e-9) -> None:
    """Equal outputs, or states that are equal up to zeros on the left of axis 1."""
    found, wanted = ([("", value)] if isinstance(value, Tensor) else list(named_leaves(value)) for value in (found, wanted))
    assert [name for name, _ in found] == [name for name, _ in wanted]
    for (name, a), (_, b) in zip(found, wanted, strict=True):
        if a.shape != b.shape and a.dim() > 1:
            size = max(a.shape[1], b.shape[1])
            a, b = (torch.cat([leaf.new_zeros(leaf.shape[0], size - leaf.shape[1], *leaf.shape[2:]), leaf], 1) for leaf in (a, b))
        torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance, msg=lambda text, name=name: f"{name or 'output'}: {text}")


def requires_grad(state):
    """Leaves of a state as independent inputs to differentiate (counters excepted)."""
    return map_leaves(lambda leaf: leaf.detach().clone().requires_grad_() if leaf.is_floating_point() else leaf, state)


STABILISERS = frozenset({"m"})  # state leaves that are running maxima, kept without their gradient


def total(y: Tensor, state, without: frozenset[str] = frozenset()) -> Tensor:
    """A number in which every output and every state leaf weighs differently."""
    leaves = {name: leaf for name, leaf in named_leaves(state) if name.rpartition(".")[2] not in without}
    parts = [y, *(leaf for leaf in leaves.values() if leaf.is_floating_point())]
    return sum((part * torch.linspace(-1, 1, part.numel(), dtype=part.dtype).view(part.shape)).sum() for part in parts if part.numel())
