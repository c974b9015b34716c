"""Which optimiser moves which weight, and how the rate changes over a run.

Matrices go to Muon (Jordan et al. 2024, its update scaled to AdamW's size as in Liu et al. 2025, arXiv:2502.16982, so that one
rate serves both) or to AdamW (Loshchilov and Hutter 2019, arXiv:1711.05101).
Embeddings, heads, norms, biases and a mixer's `plain` parameters go to AdamW without weight decay.
With "adam" all go to Adam as it was (Kingma and Ba 2015, arXiv:1412.6980: betas 0.9 and 0.999; decay of matrices joins the gradient).
With "sgd" all go to plain stochastic gradient descent without momentum, W <- W - lr (G + decay W), the decay of matrices only.
"""

import math
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ritornello.mixers.base import Mixer

Schedule = Literal["constant", "cosine", "linear", "wsd"]
TOGETHER = 2**20  # numbers of the matrices that are orthogonalised at once; larger ones are shared well enough by themselves


def groups(model: nn.Module) -> tuple[dict[str, nn.Parameter], dict[str, nn.Parameter]]:
    """(matrices, the rest) by name: two axes, inside a mixer, and not `plain` makes a matrix. Shared weights are named once."""
    named, mixers = dict(model.named_parameters()), {path: module for path, module in model.named_modules() if isinstance(module, Mixer)}
    plain = {f"{path}.{name}" for path, module in mixers.items() for name in module.plain}
    inside = {f"{path}.{name}" for path, module in mixers.items() for name, weight in module.named_parameters() if weight.dim() == 2}
    matrices = {name: weight for name, weight in named.items() if name in inside - plain}
    return matrices, {name: weight for name, weight in named.items() if name not in matrices}


class Optimizers:
    """The optimisers of a run as one: step, rate, and their memory as named tensors."""

    def __init__(self, model: nn.Module, kind: Literal["muon", "adamw", "adam", "sgd"], weight_decay: float):
        matrices, rest = groups(model)
        other = {"sgd": _sgd, "adam": _adam}.get(kind, _adamw)
        self.parts: list[tuple[torch.optim.Optimizer, dict[str, nn.Parameter]]] = []
        if matrices and kind == "muon":
            self.parts.append((Muon(list(matrices.values()), weight_decay), matrices))
        elif matrices:
            self.parts.append((other(matrices, weight_decay), matrices))
        self.parts.append((other(rest, 0.0), rest))

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
                optimizer.state[weight].update({key: value.to(weight.device) for key, value in own.items()})


class Muon(torch.optim.Optimizer):
    """The momentum of each matrix, its singular values brought near 1, moves that matrix.

        M <- 0.95 M + 0.05 G      W <- (1 - lr decay) W - 0.2 lr sqrt(longer side) orthogonal(0.05 G + 0.95 M)

    As torch.optim.Muon, but small matrices of one shape are orthogonalised together: each by itself is too small to be cut between
    threads, and calling takes as long as multiplying where a processor has units for matrices.
    """

    def __init__(self, weights: list[nn.Parameter], weight_decay: float):
        super().__init__(weights, {"lr": 0.0, "weight_decay": weight_decay, "momentum": 0.95})

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]
        for group in self.param_groups:
            alike: dict[torch.Size, list[nn.Parameter]] = {}
            for weight in group["params"]:
                alike.setdefault(weight.shape, []).append(weight)
            for shape, weights in alike.items():
                most = max(1, TOGETHER // shape.numel())
                for first in range(0, len(weights), most):
                    self._move(weights[first : first + most], group)

    def _move(self, weights: list[nn.Parameter], group: dict[str, Any]) -> None:
        """These, which have one shape."""
        updates = []
        for weight in weights:
            assert weight.grad is not None, "every matrix takes part in every step"
            memory = self.state[weight]
            if "momentum_buffer" not in memory:
                memory["momentum_buffer"] = torch.zeros_like(weight)
            averaged = memory["momentum_buffer"].lerp_(weight.grad, 1 - group["momentum"])
            updates.append(weight.grad.lerp(averaged, group["momentum"]).bfloat16())
        scale = 0.2 * group["lr"] * math.sqrt(max(weights[0].shape))
        moves = orthogonal(torch.stack(updates)) if len(updates) > 1 else [orthogonal(updates[0])]
        for weight, update in zip(weights, moves, strict=True):
            weight.mul_(1 - group["lr"] * group["weight_decay"]).add_(update, alpha=-scale)


def orthogonal(x: Tensor) -> Tensor:
    """Matrices (N, A, B), or one (A, B), with all singular values brought near 1, by five steps of X <- a X + b (X X') X + c (X X')^2 X.

    The coefficients are Jordan et al.'s: large values rise fast and end anywhere in 0.7 .. 1.2, which serves as well as 1.
    """
    a, b, c = 3.4445, -4.7750, 2.0315
    add = torch.addmm if x.dim() == 2 else torch.baddbmm
    tall = x.shape[-2] > x.shape[-1]
    y = x.mT if tall else x
    y = y / y.norm(dim=(-2, -1), keepdim=True).clamp_min(1e-7)
    for _ in range(5):
        gram = y @ y.mT
        y = add(y, add(gram, gram, gram, beta=b, alpha=c), y, beta=a)
    return y.mT if tall else y


def _adamw(named: dict[str, nn.Parameter], weight_decay: float) -> torch.optim.AdamW:
    return torch.optim.AdamW(list(named.values()), lr=0.0, betas=(0.9, 0.95), weight_decay=weight_decay, fused=True)


def _adam(named: dict[str, nn.Parameter], weight_decay: float) -> torch.optim.Adam:
    return torch.optim.Adam(list(named.values()), lr=0.0, weight_decay=weight_decay, fused=True)


def _sgd(named: dict[str, nn.Parameter], weight_decay: float) -> torch.optim.SGD:
    return torch.optim.SGD(list(named.values()), lr=0.0, weight_decay=weight_decay, fused=True)


def rate(step: int, steps: int, *, warmup: int, schedule: Schedule, decay: float = 0.7) -> float:
    """The share of the peak rate at `step` (from 0) of `steps`: rises over `warmup` steps, then falls to 0.

    constant: stays at the peak. cosine: half a cosine. linear: straight down.
    wsd: stays at the peak, then straight down over the last `decay` of the run.
    """
    if step < warmup:
        return (step + 1) / (warmup + 1)
    if schedule == "constant":
        return 1.0
    done = (step - warmup) / max(1, steps - warmup)
    if schedule == "cosine":
        return 0.5 * (1 + math.cos(math.pi * done))
    if schedule == "linear":
        return 1 - done
    return min(1.0, (1 - step / steps) / decay)
