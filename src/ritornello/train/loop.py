"""The training loop, as a generator: the caller logs, evaluates, saves and stops between two steps.

    for record in trainer.steps(): ...

A step depends on the weights, the optimisers' memory, the carried state and its own number alone: data and
randomness are functions of (seed, step). So a run that goes on from a checkpoint equals one never broken.
"""

import math
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ritornello import state as states
from ritornello.data.batches import Batch, Batches, parted
from ritornello.data.order import check_order
from ritornello.data.pieces import EVEN, Pieces
from ritornello.errors import InputError
from ritornello.ops.linear_loss import IGNORED
from ritornello.train.averaging import Average, AverageConfig
from ritornello.train.masking import mask
from ritornello.train.objective import PLAIN, Objective
from ritornello.train.optimizers import Optimizers, Schedule, rate


class Diverged(InputError):
    """The loss, a gradient or a weight is no longer a number."""


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """How a run trains. What it trains is the model's config."""

    steps: int  # 0: the weights came from elsewhere
    batch: int = 16  # rows
    length: int = 256  # tokens of a row in one step
    lr: float = 3e-3
    optimizer: Literal["muon", "adamw", "adam", "sgd"] = "muon"
    schedule: Schedule = "wsd"
    warmup: int = 20  # steps
    weight_decay: float = 0.1
    clip: float = 1.0  # largest norm of the whole gradient
    carry: bool = True  # the state goes on from piece to piece (truncated back-propagation through time), detached
    precision: Literal["float32", "bfloat16"] = "float32"  # bfloat16: autocast; weights and memory stay float32
    impl: str = "auto"
    gemm: Literal["torch", "onednn"] = "torch"  # whose float32 matrix products; onednn only where it keeps float32, else torch
    loss_chunk: int | None = None  # tokens whose logits are held at a time; None: all. Saves memory, not time
    threads: int = 2
    device: str = "cpu"  # or "cuda", as torch calls them
    keep_memory: bool = True  # freed memory stays with the process: faster, larger
    seed: int = 0
    order: str = "random"  # of documents in the first pass, see data/order.py
    pieces: Pieces = EVEN
    objective: Objective = PLAIN
    average: AverageConfig | None = None  # None: the weights of the last step are the run's

    def __post_init__(self) -> None:
        for name, least in (("steps", 0), ("batch", 1), ("length", 1), ("threads", 1)):
            if getattr(self, name) < least:
                raise InputError(f"train.{name}: {getattr(self, name)} is less than {least}")
        if self.loss_chunk is not None and self.loss_chunk < 1:
            raise InputError(f"train.loss_chunk: {self.loss_chunk} is less than 1")
        for name in ("lr", "clip"):
            if not 0 < getattr(self, name) < math.inf:
                raise InputError(f"train.{name}: {getattr(self, name)} is not a positive number")
        for name in ("warmup", "weight_decay", "seed"):
            if not 0 <= getattr(self, name) < 2**63:
                raise InputError(f"train.{name}: {getattr(self, name)} is negative or too large")
        check_order(self.order)
        self.pieces.check(self.length)


@dataclass
class Trainer:
    """Takes `loss` through `batches` by `config`; `step` is the number of steps done."""

    loss: nn.Module  # (batch, state) -> losses.Outcome; and init_state
    batches: Batches
    config: TrainConfig
    step: int = 0
    state: Any = None  # carried into the next step; None until one is
    optimizers: Optimizers = field(init=False)
    average: Average | None = field(init=False)

    def __post_init__(self) -> None:
        self.loss.to(self.config.device)
        self.optimizers = Optimizers(self.loss, self.config.optimizer, self.config.weight_decay)
        self.average = Average(self.loss, self.config.average) if self.config.average is not None else None

    def steps(self) -> Iterator[dict[str, float]]:
        """One record a step, until config.steps are done. Raises Diverged, weights untouched, when numbers run out."""
        self.loss.train()
        while self.step < self.config.steps:
            yield self._one()

    def _one(self) -> dict[str, float]:
        config = self.config
        torch.manual_seed((config.seed << 32) + self.step & 2**63 - 1)
        batch, targets = self._batch()
        whole = len(batch.tokens) == config.batch  # rows in parts begin afresh
        before = self.state if whole and self.state is not None else self.loss.init_state(len(batch.tokens))  # type: ignore[operator]
        with torch.autocast(torch.device(config.device).type, torch.bfloat16, enabled=config.precision == "bfloat16"):
            nats, count, after, parts = self.loss(batch, before)
        loss = nats / count
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self.loss.parameters(), config.clip)
        if not (loss.isfinite() and norm.isfinite()):
            what = "the loss" if not loss.isfinite() else "a gradient"
            raise Diverged(f"step {self.step + 1}: {what} is not a finite number; try a smaller rate (--lr {config.lr / 3:.2g})")
        lr = config.lr * rate(self.step, config.steps, warmup=min(config.warmup, config.steps // 4), schedule=config.schedule)
        lr *= batch.tokens.numel() / (config.batch * config.length)  # a longer piece is worth a longer step
        self.optimizers.step(lr)
        self.state = states.detach(after) if config.carry and whole else None
        self.step += 1
        if self.average is not None:
            self.average.add(self.step)
        told = {name: float(part.detach() / count) for name, part in parts.items()}
        return {"step": self.step, "loss": float(loss.detach()), **told, "lr": lr, "grad_norm": float(norm), "targets": targets}

    def _batch(self) -> tuple[Batch, int]:
        """The batch of this step as it is learnt from, and how many targets the text has there."""
        config = self.config
        batch = self.batches(*divmod(self.step, self.batches.steps))
        targets = int((batch.targets != IGNORED).sum())
        parts = config.pieces.parts(self.step, config.steps, config.length)
        if parts > 1:
            batch = parted(batch, parts)
        if config.objective.masked is not None:
            batch = mask(batch, config.objective.masked, self.step / config.steps)
        return batch.to(config.device), targets

    def hear(self, held_out: float) -> None:
        """A held-out loss of the weights as they are shown now: an average may begin by it."""
        if self.average is not None:
            self.average.hear(self.step, held_out)

    def shown(self) -> AbstractContextManager[None]:
        """Within, the model has the weights to evaluate and keep: the average, where there is one."""
        return self.average.shown() if self.average is not None else nullcontext()

    def finish(self) -> str:
        """Leave the model with those weights for good; says whose they are."""
        if self.average is None:
            return "the last step's"
        self.average.put(self.average.mean)
        return str(self.average)

    def snapshot(self) -> dict[str, Tensor]:
        """Everything the next step depends on, by name; Diverged if a weight is no longer a number."""
        weights = {f"model.{name}": weight for name, weight in self.loss.named_parameters()}
        if not all(bool(weight.isfinite().all()) for weight in weights.values()):
            raise Diverged(f"step {self.step}: a weight is not a finite number; try a smaller rate (--lr {self.config.lr / 3:.2g})")
        memory = {f"optimizer.{name}": value for name, value in self.optimizers.memory().items()}
        carried = {f"state.{name}": leaf for name, leaf in states.flatten(self.state).items()} if self.state is not None else {}
        averaged = {f"average.{name}": value for name, value in self.average.memory().items()} if self.average is not None else {}
        return weights | memory | carried | averaged

    def restore(self, tensors: dict[str, Tensor], step: int) -> None:
        """Go on from a snapshot taken after `step` steps."""
        parts: dict[str, dict[str, Tensor]] = {"model": {}, "optimizer": {}, "state": {}, "average": {}}
        for name, tensor in tensors.items():
            kind, _, rest = name.partition(".")
            parts[kind][rest] = tensor
        with torch.no_grad():
            for name, weight in self.loss.named_parameters():
                weight.copy_(parts["model"][name])
        self.optimizers.restore(parts["optimizer"])
        if self.average is not None:
            self.average.restore(parts["average"])
        self.state = states.unflatten(self.loss.init_state(self.config.batch), parts["state"]) if parts["state"] else None  # type: ignore[operator]
        self.step = step
