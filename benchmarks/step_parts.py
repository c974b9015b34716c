"""Of what a training step's time is made up, as torch's profiler sees it.

Functions of ours are given names that the profiler records. What an operator takes itself belongs to the name it ran under; a backward
operator belongs to where the forward one did that has its sequence number.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.profiler import ProfilerActivity, record_function

from ritornello.mixers import hgrn2, rms_norm, swiglu
from ritornello.ops.op import Op
from ritornello.train import losses, optimizers

PREFIX = "part: "
PRODUCTS = ("aten::mm", "aten::addmm", "aten::bmm")


def name_them() -> None:
    """From now on, in this process."""
    for owner, name, part in (
        (Op, "__call__", "recurrence"),
        (hgrn2, "forget", "gates"),
        (swiglu, "swiglu", "gates"),
        (rms_norm, "rms_norm", "norms"),
        (losses, "cross_entropy", "loss"),
        (optimizers.Optimizers, "step", "optimiser"),
        (torch.nn.utils, "clip_grad_norm_", "clipping"),
    ):
        setattr(owner, name, _named(PREFIX + part, getattr(owner, name)))


def _named(part: str, function: Callable[..., Any]) -> Callable[..., Any]:
    def call(*args: Any, **settings: Any) -> Any:
        with record_function(part):
            return function(*args, **settings)

    return call


def seconds(steps: Iterator[float], count: int) -> dict[str, float]:
    """Seconds of a step by part, means of so many steps."""
    with torch.profiler.profile(activities=[ProfilerActivity.CPU]) as profiler:
        for _ in range(count):
            next(steps)
    events = profiler.events()
    assert events is not None, "the profiler has run"
    home = {}
    for event in events:
        part = _above(event, PREFIX)
        if part is not None and event.sequence_nr >= 0:
            home[event.sequence_nr] = part.removeprefix(PREFIX)
    total: dict[str, float] = defaultdict(float)
    for event in events:
        part = _above(event, PREFIX)
        backward = _backward(event)
        where = part.removeprefix(PREFIX) if part is not None else home.get(backward, "other") if backward is not None else "other"
        if where == "other" and event.name in PRODUCTS:
            where = "matrix products"
        total[where] += event.self_cpu_time_total / 1e6 / count
    return dict(total)


def _above(event: Any, prefix: str) -> str | None:
    """The name of the innermost event around this one, itself too, that begins so."""
    while event is not None and not event.name.startswith(prefix):
        event = event.cpu_parent
    return None if event is None else event.name


def _backward(event: Any) -> int | None:
    """The sequence number of the backward function that this event is part of."""
    while event is not None and not event.name.startswith("autograd::engine::evaluate_function"):
        event = event.cpu_parent
    return None if event is None else event.sequence_nr
