"""Learning from a teacher's opinion of the next token beside the token itself.

    L = (1 - a) CE(y, q_1) + a T^2 KL(p_T || q_T)          q_T = softmax(z / T) of the student, p_T of the teachers (see teachers.py)

summed over the scored tokens. Hinton, Vinyals and Dean 2015, arXiv:1503.02531; the T^2 keeps the gradient's size when T changes.

As presets:

babyhgrn    T = 1; a is not published, so it is a grid           Haller, Golde and Akbik 2024, arXiv:2412.15978
babyllama   a = 1/2, T = 2, the teachers' logits averaged        Timiryasov and Tastet 2023, arXiv:2308.02019

BabyLlama's own code divides the divergence by the rows of a batch and not by its tokens, which multiplies it by the length of a row:
`reduction="rows"` does so too.
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

from torch import Tensor, nn

from ritornello.data.batches import Batch
from ritornello.errors import InputError
from ritornello.model import LM
from ritornello.ops.divergence import tempered
from ritornello.ops.linear_loss import IGNORED, cross_entropy
from ritornello.state import State
from ritornello.train.hints import HintConfig, Hints
from ritornello.train.losses import PLAIN, NextToken, Outcome
from ritornello.train.objective import Objective, shaped
from ritornello.train.teachers import Teachers


@dataclass(frozen=True, kw_only=True)
class TeachConfig:
    """Who teaches, and how."""

    teachers: tuple[str, ...]  # runs, RUN@1M, or Hugging Face models
    sha256: tuple[str, ...] = ()  # of each: found when the run begins, checked when it goes on
    alpha: float = 0.5  # share of the teachers; 0: they are not listened to
    temperature: float = 1.0
    average: Literal["probabilities", "logits"] = "probabilities"
    reduction: Literal["tokens", "rows"] = "tokens"
    match: Literal["tokens", "bytes"] = "tokens"  # bytes: of teachers with another tokenizer, see spans.py
    top: int | None = None  # so many likeliest tokens are kept on disk, once for all runs; None: the teachers are asked anew each step
    hints: HintConfig | None = None  # also match features of the first teacher

    @property
    def listens(self) -> bool:
        """Whether the teachers matter at all."""
        return self.alpha > 0 or self.hints is not None

    def __post_init__(self) -> None:
        if not self.teachers:
            raise InputError("teach.teachers: none is named; give at least one run")
        if not 0 <= self.alpha <= 1:
            raise InputError(f"teach.alpha: {self.alpha} is not in [0, 1]")
        if not 0 < self.temperature < float("inf"):
            raise InputError(f"teach.temperature: {self.temperature} is not a positive number")
        if self.top is not None and self.top < 1:
            raise InputError(f"teach.top: {self.top} is less than 1")
        if self.hints is not None and (self.top is not None or self.match == "bytes"):
            raise InputError("teach.hints: features are not kept on disk; leave teach.top and teach.match=bytes out")
        if self.match == "bytes":
            for name, least in (("top", None), ("reduction", "tokens")):
                if getattr(self, name) != least:
                    raise InputError(f"teach.{name} does not go with teach.match=bytes, which compares spans; leave it out")


class Lesson(Protocol):
    """What the student's logits are compared with."""

    def init_state(self, batch: int) -> State: ...
    def __call__(self, batch: Batch, logits: Tensor, state: State) -> tuple[Tensor, State]:
        """T^2 KL summed over the scored tokens of a batch, given the student's logits (B, T, V), and the state."""
        ...


class Taught(NamedTuple):
    student: State
    teachers: State


class Distill(nn.Module):
    """The loss above, and hints if there are any."""

    def __init__(self, model: nn.Module, lesson: Lesson, config: TeachConfig, hints: Hints | None = None, objective: Objective = PLAIN):
        """`objective` shapes the first term. InputError for one that reaches into the model or its text."""
        super().__init__()
        if objective.ar or objective.tar or objective.masked:
            raise InputError("train.objective: ar, tar and masked do not go with teach; leave them out")
        self.model = NextToken(model).model  # which refuses a model that sees ahead
        self.lesson, self.config, self.hints, self.objective = lesson, config, hints, objective
        self.impl = getattr(model, "impl", "auto")

    def init_state(self, batch: int) -> Taught:
        return Taught(self.model.init_state(batch), self.lesson.init_state(batch))  # type: ignore[operator]

    def forward(self, batch: Batch, state: Taught) -> Outcome:
        if self.hints is None:
            logits, student, taught, teachers = self._compare(batch, state)
            extra: dict[str, Tensor] = {}
        else:
            assert isinstance(self.model, LM), "hints are made for a model of ours"
            with self.hints.heard(self.model) as (own, theirs):
                logits, student, taught, teachers = self._compare(batch, state)
            extra = {"hints": self.hints(own, theirs, batch.targets != IGNORED)}
        alpha, targets = self.config.alpha, batch.targets.flatten()
        scored, flat = (targets != IGNORED).sum(), logits.flatten(0, 1)
        if self.objective.shaped:
            hard, plain = shaped(flat, targets, self.objective)
        else:
            hard = plain = cross_entropy(flat, targets, self.impl)
        if self.config.reduction == "rows":
            taught = taught * (scored / len(batch.targets))
        nats = (1 - alpha) * hard + alpha * taught
        if self.hints is not None:
            nats = nats + self.hints.config.weight * extra["hints"]
        told = {"cross_entropy": plain, "taught": taught} | extra
        return Outcome(nats, scored, Taught(student, teachers), {name: part.detach() for name, part in told.items()})

    def _compare(self, batch: Batch, state: Taught) -> tuple[Tensor, State, Tensor, State]:
        logits, student = self.model(batch.tokens, state.student, batch.reset)
        return logits, student, *self.lesson(batch, logits, state.teachers)


class Live:
    """The teachers, asked anew for every batch. One whose state grows sees the piece alone."""

    def __init__(self, teachers: Teachers):
        self.teachers = teachers

    def init_state(self, batch: int) -> State:
        return self.teachers.init_state(batch)

    def __call__(self, batch: Batch, logits: Tensor, state: State) -> tuple[Tensor, State]:
        log_p, after = self.teachers(batch.tokens, state, batch.reset)
        nats = divergence(logits, log_p, batch.targets != IGNORED, self.teachers.temperature)
        return nats, self.teachers.without_growth(after, len(batch.tokens))


def divergence(logits: Tensor, log_p: Tensor, scored: Tensor, temperature: float) -> Tensor:
    """T^2 KL(p || softmax(logits / T)), (..., V) both, summed over the places that are `scored`."""
    log_q = tempered(logits, temperature)
    nats = nn.functional.kl_div(log_q, log_p, reduction="none", log_target=True).sum(-1)
    return temperature**2 * nats.where(scored, 0).sum()
