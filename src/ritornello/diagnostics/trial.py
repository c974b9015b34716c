"""Train a small model on one task and measure it at lengths it has never seen.

Two layers of a mixer, 64 wide, each with a channel mixer above; AdamW at a rate that falls in a straight line; every step
draws new sequences of one length, from the shortest the task has to `length`. Short convolutions are off where a mixer lets
them be, unless asked for: with one, a model whose recurrence is diagonal is more than diagonal. The same trial gives the same numbers.
"""

import dataclasses
import json
import math
import re
import time
from collections.abc import Callable
from typing import Any, get_args, get_type_hints

import torch
from torch import Tensor, nn

from ritornello.config import from_dict, to_dict
from ritornello.diagnostics import task_named
from ritornello.diagnostics.task import Task
from ritornello.errors import InputError
from ritornello.mixers import mixer
from ritornello.mixers.base import Mixer
from ritornello.model import LM, LMConfig
from ritornello.train.optimizers import Optimizers, rate

TIMES = (1, 2, 4, 8)  # lengths it is measured at, in training lengths
TESTS = 256  # sequences at each length
CLIP = 1.0  # largest norm of the whole gradient


@dataclasses.dataclass(frozen=True, kw_only=True)
class Trial:
    """One mixer, one task, one seed. A mixer may carry settings: "deltanet(eigenvalues=signed)"."""

    mixer: str
    task: str
    seed: int = 0
    steps: int = 1500
    length: int = 16  # of the longest training sequence
    dim: int = 64
    layers: int = 2
    batch: int = 64
    lr: float = 4e-3
    channel: str | None = "swiglu"

    def __post_init__(self) -> None:
        for name in ("steps", "length", "dim", "layers", "batch"):
            if getattr(self, name) < 1:
                raise InputError(f"{name}: {getattr(self, name)} is less than 1")
        least = task_named(self.task).shortest
        if self.length < least:
            raise InputError(f"--length {self.length}: {self.task} needs at least {least}")
        if "causal" not in mixer(self.model().layers[0]).laws:
            raise InputError(f"{self.mixer} sees later tokens, where the answers stand; take a causal mixer")

    def model(self) -> LMConfig:
        """The config of the model it trains."""
        name, config = contestant(self.mixer)
        layers, symbols = (name,) * self.layers, task_named(self.task).symbols
        return LMConfig(vocab=symbols, dim=self.dim, layers=layers, channel=self.channel, mixers={name: config})


class Solver(nn.Module):
    """A language model's body, with the task's own way in and out."""

    def __init__(self, config: LMConfig, task: Task):
        super().__init__()
        self.body = LM(config)
        self.numbers = nn.Linear(task.numbers, config.dim) if task.numbers else None
        self.answer = nn.Linear(config.dim, task.heads * task.answers)

    def forward(self, inputs: Tensor) -> Tensor:
        """(B, T) symbols or (B, T, numbers) to logits (B, T, heads * answers)."""
        x = inputs if self.numbers is None else self.numbers(inputs)
        return self.answer(self.body.features(x, self.body.init_state(len(inputs)))[0])


def contestant(text: str) -> tuple[str, Mixer.Config]:
    """A mixer's name and config from "name" or "name(setting=value,...)". A short convolution that may be left out is,
    unless it is set. Values are read as JSON, else as words. Raises InputError for what is unknown, with the nearest name.
    """
    found = re.fullmatch(r"\s*([\w-]+)\s*(?:\((.*)\))?\s*", text)
    if not found:
        raise InputError(f"mixer {text!r}: expected a name, or name(setting=value,...)")
    name, inside = found[1], found[2] or ""
    settings: dict[str, Any] = {}
    for part in split(inside):
        key, equals, value = part.partition("=")
        if not equals:
            raise InputError(f"mixer {text!r}: {part!r} is not setting=value")
        try:
            settings[key.strip()] = json.loads(value)
        except json.JSONDecodeError:
            settings[key.strip()] = value.strip()
    kind = mixer(name).Config
    if type(None) in get_args(get_type_hints(kind).get("conv")):
        settings.setdefault("conv", None)
    return name, from_dict(kind, settings, name)


def split(text: str) -> list[str]:
    """The parts between commas that stand outside all brackets."""
    parts, depth = [""], 0
    for char in text:
        depth += (char in "([{") - (char in ")]}")
        if char == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += char
    return [part.strip() for part in parts if part.strip()]


def run(trial: Trial, progress: Callable[[int, float], None] = lambda step, loss: None) -> dict[str, Any]:
    """The trial and what came out, as plain values: scores by length, or a reason why there are none.

    `progress` is told the step and its loss. Torch's own random state is left as it was.
    """
    task, began = task_named(trial.task), time.monotonic()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(trial.seed)
        solver = Solver(trial.model(), task)
        reason = _train(solver, task, trial, progress)
    (settings,) = solver.body.config.mixers.values()
    cell = to_dict(trial) | {"settings": to_dict(settings), "parameters": sum(weight.numel() for weight in solver.parameters())}
    cell |= {"about": task.about, "metric": task.metric, "chance": task.chance, "seconds": round(time.monotonic() - began, 1)}
    if reason:
        return cell | {"reason": reason, "points": []}
    return cell | {"points": [measure(solver, task, trial.length * times) for times in TIMES]}


def _train(solver: Solver, task: Task, trial: Trial, progress: Callable[[int, float], None]) -> str | None:
    """Take the solver through its steps; why it failed, if it did."""
    generator = torch.Generator().manual_seed(trial.seed)
    optimizers = Optimizers(solver, "adamw", 0.01)
    solver.train()
    for step in range(trial.steps):
        length = int(torch.randint(task.shortest, trial.length + 1, (), generator=generator))
        sample = task.sample(generator, trial.batch, length)
        if not sample.mask.any():
            continue
        loss = task.loss(solver(sample.inputs), sample)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(solver.parameters(), CLIP)
        if not (math.isfinite(value := float(loss.detach())) and math.isfinite(float(norm))):
            return f"step {step + 1}: the loss or a gradient is not a finite number"
        optimizers.step(trial.lr * rate(step, trial.steps, warmup=min(20, trial.steps // 4), schedule="linear"))
        progress(step + 1, value)
    return None if all(bool(weight.isfinite().all()) for weight in solver.parameters()) else "a weight is not a finite number"


@torch.no_grad()
def measure(solver: nn.Module, task: Task, length: int, tests: int = TESTS) -> dict[str, Any]:
    """{"length", "score", "stderr", "n"} over fresh sequences, the same for every model; with several heads also "heads", a score each."""
    solver.eval()
    sample = task.sample(torch.Generator().manual_seed(length), tests, length)
    scores = task.scores(solver(sample.inputs), sample)
    scores = scores[~scores.isnan().any(1)]
    if len(scores) < 2:
        raise InputError(f"length {length}: {tests} sequences hold nothing to score")
    rows = scores.mean(1)
    point = {"length": length, "score": float(rows.mean()), "stderr": float(rows.std() / len(rows) ** 0.5), "n": len(rows)}
    return point | ({"heads": scores.mean(0).tolist()} if task.heads > 1 else {})
