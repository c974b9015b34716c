"""What a user asks for, and what a run then is.

A `Request` leaves most things open; the plan fills them in. The result, a `RunConfig`, is `config.json`:
everything, resolved, written before step 1 and never chosen again.
"""

from dataclasses import dataclass, field
from typing import Any, Literal

from ritornello.config import from_dict
from ritornello.errors import InputError, unknown
from ritornello.folder import FORMAT, words_of
from ritornello.mixers import CHANNEL, mixer
from ritornello.mixers.layers import expand
from ritornello.model import LMConfig
from ritornello.train.distill import TeachConfig
from ritornello.train.loop import TrainConfig

Documents = Literal["auto", "blank", "file", "line"]
Protocol = Literal["ritornello", "official-2024", "official-2025"]
BABYLM = (*range(10**6, 10**7, 10**6), *range(10**7, 10**8 + 1, 10**7))  # words at which the BabyLM challenge wants a model's weights


@dataclass(frozen=True, kw_only=True)
class CorpusConfig:
    """The text of a run: how to read it, and what was found."""

    spec: str | None  # a file, folder or glob; None: the documentation that comes with Python
    documents: Documents = "auto"
    encoding: str = "utf-8"
    column: str = "text"
    name: str = ""
    cut: str = ""  # how documents were told apart in the end
    key: str = ""  # of the cached copy
    words: int = 0
    nbytes: int = 0
    sources: dict[str, str] = field(default_factory=dict)  # SHA-256 by file


@dataclass(frozen=True, kw_only=True)
class TokenizerConfig:
    kind: str
    size: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """What is measured, and on how much."""

    held_out_tokens: int = 200_000  # at most, at the end
    validation_tokens: int = 32_768  # at most, each time during training
    validations: int = 10  # times during training
    ngram_tokens: int = 40_000_000  # of training text for the n-gram baseline, at most
    sample_tokens: int = 160  # of each of the three samples
    pairs: tuple[str, ...] = ()  # files or folders of minimal pairs
    protocol: Protocol = "ritornello"

    def __post_init__(self) -> None:
        for name in ("held_out_tokens", "validation_tokens", "validations", "ngram_tokens", "sample_tokens"):
            if getattr(self, name) < 1:
                raise InputError(f"evaluate.{name}: {getattr(self, name)} is less than 1")


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """config.json."""

    format: int = FORMAT
    plan: str  # the plan in one sentence
    minutes: float | None  # None: the number of steps was given
    corpus: CorpusConfig
    tokenizer: TokenizerConfig
    model: LMConfig
    train: TrainConfig
    evaluate: EvaluateConfig
    teach: TeachConfig | None = None  # None: the text alone
    imported: str | None = None  # the folder and layout that the weights came from; nothing was trained here
    start_from: str | None = None
    checkpoint_every: int | None = None  # steps; None: every 30 seconds
    checkpoint_words: tuple[int, ...] = ()  # words of text seen at which the weights are kept
    licence: str | None = None


@dataclass(frozen=True, kw_only=True)
class Request:
    """What was asked for: the keys of a recipe and the options of `ritornello run`. None: to be planned."""

    corpus: str | None = None
    documents: Documents = "auto"
    encoding: str = "utf-8"
    column: str = "text"
    licence: str | None = None  # a note on the data, passed on
    out: str | None = None
    start_from: str | None = None  # a run folder whose weights and tokenizer to begin with
    minutes: float | None = None
    steps: int | None = None
    epochs: float | None = None  # passes over the training text, in place of steps
    mixer: str | None = None  # a pattern of layers, such as "hgrn2" or "hgrn2*5 attention"
    channel: str | None = None  # the channel mixer, "partner" or "none"
    dim: int | None = None
    layers: int | None = None
    batch: int | None = None
    length: int | None = None
    tokenizer: str | None = None  # "bytes", "bpe", or a tokenizer.json
    vocab: int | None = None
    lr: float | None = None
    seed: int = 0
    threads: int | None = None
    device: str = "auto"  # "cpu", "cuda" ...; auto: a GPU if there is one
    checkpoint_every: int | None = None
    checkpoint_words: str | None = None  # "babylm", or counts such as "1M,2M,500k"
    pairs: tuple[str, ...] = ()
    protocol: Protocol = "ritornello"
    model: dict[str, Any] = field(default_factory=dict)  # any field of LMConfig
    train: dict[str, Any] = field(default_factory=dict)  # any field of TrainConfig
    evaluate: dict[str, Any] = field(default_factory=dict)  # any field of EvaluateConfig
    teach: dict[str, Any] = field(default_factory=dict)  # any field of TeachConfig; none: no teachers

    @property
    def taught(self) -> TeachConfig | None:
        """The teachers, if there are any."""
        return from_dict(TeachConfig, self.teach, "teach") if self.teach else None

    @property
    def channel_name(self) -> str | None:
        """The channel mixer, None where there is to be none: what was asked for, or what the layers' papers agree on, or SwiGLU."""
        if self.channel is not None:
            return None if self.channel == "none" else self.channel
        partners = {mixer(kind).partner for kind in expand(self.mixer or "hgrn2")}
        return partners.pop() if len(partners) == 1 else "swiglu"

    @property
    def word_counts(self) -> tuple[int, ...]:
        """The counts of words at which weights are to be kept, fewest first."""
        if self.checkpoint_words is None:
            return ()
        if self.checkpoint_words == "babylm":
            return BABYLM
        try:
            return tuple(sorted({words_of(each) for each in self.checkpoint_words.split(",")}))
        except InputError as error:
            raise InputError(f"checkpoint_words: {error}; or babylm for 1M, 2M ... 10M, 20M ... 100M") from error

    def __post_init__(self) -> None:
        _ = self.word_counts, self.taught
        bounds = [name for name in ("minutes", "steps", "epochs") if getattr(self, name) is not None]
        if len(bounds) > 1:
            raise InputError(f"{' and '.join(bounds)} were both given; a run is bounded by one of them")
        if self.epochs is not None and not 0 < self.epochs < 1e6:
            raise InputError(f"epochs: {self.epochs:g} is no number of passes over a text; use 1, or any number above 0")
        if self.minutes is not None and not 0.2 <= self.minutes < 1e6:
            raise InputError(f"minutes: {self.minutes:g} is out of range; the least is 0.2")
        for name in ("steps", "dim", "layers", "batch", "length", "threads", "checkpoint_every"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise InputError(f"{name}: {value} is less than 1")
        if self.vocab is not None and not 257 <= self.vocab <= 2**20:
            raise InputError(f"vocab: {self.vocab} is out of range; 256 bytes and the end of a text make 257, the most is {2**20}")
        if self.mixer is not None:
            expand(self.mixer, self.layers)
        if self.channel is not None and self.channel not in ("none", "partner", *CHANNEL):
            raise unknown("channel mixer", self.channel, ["none", "partner", *sorted(CHANNEL)])
        for table, cls, needed in (
            ("model", LMConfig, {"vocab": 1, "dim": self.dim or self.model.get("embedding_dim") or LMConfig.dim}),
            ("train", TrainConfig, {"steps": 1}),
            ("evaluate", EvaluateConfig, {}),
        ):
            from_dict(cls, needed | getattr(self, table), table)
        if "device" in self.train:
            raise InputError("train.device: say it as device, or with --device")
        if self.train.get("steps") == 0:
            raise InputError("train.steps: 0 is less than 1")
