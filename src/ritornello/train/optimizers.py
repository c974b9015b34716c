"""Which optimiser moves which weight, and how the rate changes over a run.

Matrices go to Muon (Jordan et al. 2024; torch's own, its update scaled to AdamW's size as in Liu et al. 2025,
arXiv:2502.16982, so that one rate serves both) or to AdamW (Loshchilov and Hutter 2019, arXiv:1711.05101).
Embeddings, heads, norms, biases and a mixer's `plain` parameters go to AdamW without weight decay.
"""

import math
from typing import Literal

import torch
from torch import Tensor, nn

from ritornello.mixers.base import Mixer

Schedule = Literal["cosine", "linear", "wsd"]


def groups(model: nn.Module) -> tuple[dict[str, nn.Parameter], dict[str, nn.Parameter]]:
    """(matrices, the rest) by name: two axes, inside a mixer, and not `plain` makes a matrix. Shared weights are named once."""
    named, mixers = dict(model.named_parameters()), {path: module for path, module in model.named_modules() if isinstance(module, Mixer)}
    plain = {f"{path}.{name}" for path, module in mixers.items() for name in module.plain}
    inside = {f"{path}.{name}" for path, module in mixers.items() for name, weight in module.named_parameters() if weight.dim() == 2}
    matrices = {name: weight for name, weight in named.items() if name in inside - plain}
    return matrices, {name: weight for name, weight in named.items() if name not in matrices}


class Optimizers:
    """The optimisers of a run as one: step, rate, and their memory as named tensors."""

    def __init__(self, model: nn.Module, kind: Literal["muon", "adamw"], weight_decay: float):
        matrices, rest = groups(model)
        self.parts: list[tuple[torch.optim.Optimizer, dict[str, nn.Parameter]]] = []
        if matrices and kind == "muon":
            muon = torch.optim.Muon(list(matrices.values()), lr=0.0, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw")
            self.parts.append((muon, matrices))
        elif matrices:
            self.parts.append((_adamw(matrices, weight_decay), matrices))
        self.parts.append((_adamw(rest, 0.0), rest))

    def step(self, lr: float) -> None:
        """Move the weights by their gradients at this rate, then drop the gradients."""
        for optimizer, _ in self.parts:
            for group in optimizer.param_groups:
                group["lr"] = lr
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

    def memory(self) -> dict[str, Tensor]:
        """Everything the optimisers remember: {"weight name.exp_avg": tensor}."""
        return {
            f"{name}.{key}": value
            for optimizer, named in self.parts
            for name, weight in named.items()
            for key, value in optimizer.state[weight].items()
        }

    def restore(self, memory: dict[str, Tensor]) -> None:
        """The inverse of `memory`."""
        for optimizer, named in self.parts:
            for name, weight in named.items():
                own = {key.removeprefix(f"{name}."): value for key, value in memory.items() if key.rpartition(".")[0] == name}
                optimizer.state[weight].update(own)


def _adamw(named: dict[str, nn.Parameter], weight_decay: float) -> torch.optim.AdamW:
    return torch.optim.AdamW(list(named.values()), lr=0.0, betas=(0.9, 0.95), weight_decay=weight_decay, fused=True)


def rate(step: int, steps: int, *, warmup: int, schedule: Schedule, decay: float = 0.7) -> float:
    """The share of the peak rate at `step` (from 0) of `steps`: rises over `warmup` steps, then falls to 0.

    cosine: half a cosine. linear: straight down. wsd: stays at the peak, then straight down over the last `decay` of the run.
    """
    if step < warmup:
        return (step + 1) / (warmup + 1)
    done = (step - warmup) / max(1, steps - warmup)
    if schedule == "cosine":
        return 0.5 * (1 + math.cos(math.pi * done))
    if schedule == "linear":
        return 1 - done
    return min(1.0, (1 - step / steps) / decay)
