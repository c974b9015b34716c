"""Holding a mixer to a NumPy transcription of its paper: values to rounding, gradients by differences of the transcription."""

from collections.abc import Callable

import numpy as np
import outside
import torch
from torch import Tensor

STEP = 1e-5


def leaf(array: np.ndarray) -> Tensor:
    """Something to differentiate by."""
    return torch.tensor(array, requires_grad=True)


def fill(module: torch.nn.Module, random: np.random.Generator, scale: float) -> dict[str, Tensor]:
    """A module's parameters by name, normal with spread `scale` (1 where they have one axis)."""
    with torch.no_grad():
        for weight in module.parameters():
            weight.copy_(torch.tensor(random.normal(size=tuple(weight.shape)) * (scale if weight.dim() > 1 else 1)))
    return dict(module.named_parameters())


def agree(
    ours: Callable[[], dict[str, Tensor]], theirs: Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]], leaves: dict[str, Tensor]
) -> None:
    """ours() and theirs(the leaves' numbers) give the same float64 outputs, and both change alike with every leaf."""
    numbers, random = {name: leaf.detach().numpy() for name, leaf in leaves.items()}, np.random.default_rng(0)
    found, wanted = ours(), theirs(numbers)
    assert set(found) == set(wanted)
    for name, value in found.items():
        torch.testing.assert_close(
            value.detach(), torch.tensor(wanted[name]), rtol=1e-10, atol=1e-10, msg=lambda text, name=name: f"{name}: {text}"
        )

    def total(changed: dict[str, np.ndarray]) -> float:
        outputs = theirs(numbers | changed)
        return float(outside.weighted({name: torch.from_numpy(outputs[name]) for name in found}))

    grads = torch.autograd.grad(outside.weighted(found), list(leaves.values()))
    for (name, leaf), grad in zip(numbers.items(), grads, strict=True):
        for direction in random.normal(size=(2, *leaf.shape)):
            slope = (total({name: leaf + STEP * direction}) - total({name: leaf - STEP * direction})) / (2 * STEP)
            np.testing.assert_allclose((grad.numpy() * direction).sum(), slope, rtol=1e-6, atol=1e-6, err_msg=name)
