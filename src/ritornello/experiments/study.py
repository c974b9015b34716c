"""What a comparison is asked for: architectures x corpora x seeds x rates under one budget.

A study is a small file with the keys of `Study`, or the options of `ritornello compare`:

    corpora = ["train.txt"]
    systems = ["hgrn2", "lstm", "xlstm"]
    budget = "words=1M"
    parameters = "3M"
    rates = "1e-3,3e-3,1e-2"
    [run]                        # of every system: any setting of `ritornello run`
    length = 128
    [system.xlstm]               # of one alone; a name without a table is a pattern of layers
    mixer = "mlstm*3 slstm"
"""

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

from ritornello.config import from_dict, override, read_file
from ritornello.errors import InputError, unknown
from ritornello.experiments.settings import Request
from ritornello.folder import words_of

OURS = ("corpus", "out", "start_from", "minutes", "steps", "seed", "train.steps", "train.seed")  # settings of a run that the study decides
EQUAL = (
    "documents",
    "encoding",
    "column",
    "tokenizer",
    "vocab",
    "batch",
    "length",
    "train.batch",
    "train.length",
    "evaluate",
    "pairs",
    "protocol",
)
KINDS = ("words", "flop", "minutes")


class Budget(NamedTuple):
    """What every system may spend on training."""

    kind: Literal["words", "flop", "minutes"]
    amount: float


@dataclass(frozen=True, kw_only=True)
class Study:
    """The keys of a study's file and the options of `ritornello compare`."""

    corpora: tuple[str, ...] = ()
    systems: tuple[str, ...] = ("hgrn2", "lstm", "attention")
    only: tuple[str, ...] = ()  # of the systems: those that are run here, in the shapes they have among all; none: all
    seeds: int = 3  # runs of each
    first_seed: int = 0  # theirs are first_seed, first_seed + 1, ...: so a study can be shared between machines
    budget: str = "words=1M"  # of one run: words=1M, flop=1e15 or minutes=5
    parameters: str | None = None  # of every system, such as 3M; None: as many as the first system has
    embedding: bool = True  # whether those of embedding and head are counted
    rates: str = ""  # learning rates to choose from, or "auto"; none: the rule of `ritornello run`
    select: Literal["held-out", "benchmark"] = "held-out"  # what chooses the rate
    suites: tuple[str, ...] = ()
    text: tuple[str, ...] = ()  # files to predict
    limit: int | None = None  # items of each task
    run: dict[str, Any] = field(default_factory=dict)  # settings of all runs
    system: dict[str, dict[str, Any]] = field(default_factory=dict)  # settings of one system's runs

    def __post_init__(self) -> None:
        for name in ("corpora", "systems"):
            if not getattr(self, name):
                raise InputError(f"no {name} to compare: name at least one")
            if len(set(getattr(self, name))) < len(getattr(self, name)):
                raise InputError(f"{name}: {', '.join(getattr(self, name))} has one twice; leave it out")
        if self.seeds < 1:
            raise InputError(f"seeds: {self.seeds} is less than 1")
        if self.first_seed < 0:
            raise InputError(f"first_seed: {self.first_seed} is negative; seeds begin at 0")
        if self.limit is not None and self.limit < 1:
            raise InputError(f"limit: {self.limit} is less than 1")
        for name in (*self.system, *self.only):
            if name not in self.systems:
                raise unknown("system", name, self.systems)
        if self.select == "benchmark" and not self.suites:
            raise InputError("select: a benchmark is to choose the rates, and none is named; give suites")
        _ = self.grid, self.spending, self.target
        for name in self.systems:
            request = self.request(name)
            if self.grid and (request.lr is not None or "lr" in request.train):
                raise InputError(f"{name}: lr and rates were both given; leave one out")

    @property
    def all_seeds(self) -> range:
        """The seed of each run of a system."""
        return range(self.first_seed, self.first_seed + self.seeds)

    @property
    def spending(self) -> Budget:
        kind, _, amount = self.budget.partition("=")
        if kind not in KINDS:
            raise InputError(f"budget: {self.budget!r} is none; write words=1M, flop=1e15 or minutes=5")
        if kind == "words":
            return Budget("words", _count("budget", amount))
        value = _number("budget", amount)
        return Budget("flop" if kind == "flop" else "minutes", value)

    @property
    def target(self) -> int | None:
        """Parameters that every system is to have."""
        return None if self.parameters is None else _count("parameters", self.parameters)

    @property
    def grid(self) -> tuple[float, ...] | Literal["auto"]:
        """The rates to choose from, lowest first."""
        if self.rates == "auto":
            return "auto"
        return tuple(sorted({_number("rates", rate) for rate in self.rates.split(",") if rate.strip()}))

    def request(self, system: str, corpus: str | None = None) -> Request:
        """The settings of a system's runs; the mixer is the system's name, unless it is given one."""
        own = self.system.get(system, {})
        for table, names in ((self.run, OURS), (own, (*OURS, *EQUAL))):
            given = {*table, *(f"train.{name}" for name in table.get("train", {}))}
            if wrong := [name for name in names if name in given]:
                raise InputError(
                    f"{system}: {wrong[0]} is not for one system to say; it is the study's: see corpora, budget, seeds and [run]"
                )
        table = self.run | {"mixer": system} | own
        for name in ("model", "train", "evaluate"):  # tables of settings are joined
            table[name] = self.run.get(name, {}) | own.get(name, {})
        return from_dict(Request, table | {"corpus": corpus}, f"system.{system}")


def study(recipe: Path | None = None, overrides: tuple[str, ...] = (), **given: Any) -> Study:
    """A Study from a TOML file, settings that are not None, and `a.b=c` settings of all runs, later ones over earlier ones. `systems`
    that are all among the file's are the only ones to be run; others take the place of the file's.
    """
    table = read_file(recipe) if recipe is not None else {}
    given = {name: value for name, value in given.items() if value is not None}
    if (named := given.get("systems")) and set(named) <= set(table.get("systems", ())):
        given["only"] = given.pop("systems")
    elif named:
        table["system"] = {name: own for name, own in table.get("system", {}).items() if name in named}
    table |= given
    return from_dict(Study, override(table, [f"run.{assignment}" for assignment in overrides]))


def _count(what: str, text: str) -> int:
    try:
        return words_of(text)
    except InputError as error:
        raise InputError(f"{what}: {text!r} is no count; write 1M, 500k or 1234") from error


def _number(what: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise InputError(f"{what}: {text!r} is no number above 0; write it as 0.003 or 3e-3")
    return value
