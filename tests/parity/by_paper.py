"""A mixer beside a NumPy transcription of its paper: values to rounding, gradients by differences."""

from collections.abc import Callable

import numpy as np
import outside
import torch
from torch import Tensor

STEP = 1e-5

Arrays = dict[str, np.ndarray]


def leaf(array: np.ndarray) -> Tensor:
    """Something to differentiate by."""
    return torch.tensor(array, requires_grad=True)


def fill(module: torch.nn.Module, random: np.random.Generator, scale: float) -> dict[str, Tensor]:
    """A module's parameters by name, normal with spread `scale` (1 where they have one axis)."""
    with torch.no_grad():
        for weight in module.parameters():
            weight.copy_(torch.tensor(random.normal(size=tuple(weight.shape)) * (scale if weight.dim() > 1 else 1)))
    return dict(module.named_parameters())


def agree(leaves: dict[str, Tensor], found: dict[str, Tensor], paper: Callable[[Arrays], Arrays], random: np.random.Generator) -> None:
    """What was found from `leaves` is what the paper's function makes of the same arrays; and so are its gradients, in three directions
    of all leaves at once."""
    arrays = {name: leaf.detach().numpy() for name, leaf in leaves.items()}
    for name, value in paper(arrays).items():
        torch.testing.assert_close(found[name].detach(), torch.tensor(value), rtol=1e-10, atol=1e-10)
    grads = dict(zip(leaves, torch.autograd.grad(outside.weighted(found), list(leaves.values())), strict=True))
    for _ in range(3):
        direction = {name: random.normal(size=array.shape) for name, array in arrays.items()}
        up, down = (
            outside.weighted({name: torch.tensor(value) for name, value in paper(moved).items()})
            for moved in ({name: array + step * direction[name] for name, array in arrays.items()} for step in (STEP, -STEP))
        )
        slope = sum((grads[name].numpy() * direction[name]).sum() for name in arrays)
        np.testing.assert_allclose(slope, float(up - down) / (2 * STEP), rtol=1e-5, atol=1e-6)
