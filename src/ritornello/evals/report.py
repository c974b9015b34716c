"""The result of an evaluation: rows of numbers, each with its standard error and n.

A value that could not be computed is None with a reason; it is never left out and never zero.
"""

from dataclasses import dataclass, field

from ritornello.provenance import Provenance


@dataclass(frozen=True)
class Row:
    """One number. `value` is None exactly when `reason` says why."""

    suite: str  # what was read: "held-out", "agreement", "blimp_filtered"
    task: str  # a subtask, or "all"
    metric: str  # with its unit: "bits per byte", "accuracy (official)"
    value: float | None
    stderr: float | None = None
    n: int = 0  # items the value rests on
    chance: float | None = None
    by: str = "model"  # who scored: "model", "5-gram (modified Kneser-Ney)", "majority"
    reason: str | None = None

    def __post_init__(self) -> None:
        assert (self.value is None) == (self.reason is not None), "a row has a value or a reason, not both"


@dataclass(frozen=True)
class Report:
    rows: tuple[Row, ...]
    made_by: Provenance
    subject: dict[str, str] = field(default_factory=dict)  # name, sha256 and protocol of who was evaluated
    seconds: dict[str, float] = field(default_factory=dict)  # that each suite took when it was run

    def row(self, suite: str, task: str, metric: str, by: str = "model") -> Row:
        """The row with this name; KeyError if there is none."""
        for row in self.rows:
            if (row.suite, row.task, row.metric, row.by) == (suite, task, metric, by):
                return row
        raise KeyError((suite, task, metric, by))
