"""A language model: embedding, blocks of a time mixer and a channel mixer, norm, head.

    x = x + time(norm(x));  x = x + channel(norm(x))        for each block (pre-norm)

With plain wiring nothing is added, x = time(norm(x)), and without norms that is LSTMs one above the other as they were once stacked.
With dense wiring a block reads, instead of the output of the one below, a linear map of the embedding and the outputs
of all blocks below (Ding et al. 2018, arXiv:1802.00889, densely connected LSTMs).

Dropout comes in four places, as in AWD-LSTM (Merity et al. 2017, arXiv:1708.02182): whole words, the embedding, each mixer's output,
the features before the head; `locked_dropout` keeps one mask for a whole piece.

The state goes in and comes out; `forward` on one token is decoding, on a text it is training.
"""

import math
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from ritornello.errors import InputError, unknown
from ritornello.mixers import CHANNEL, MIXERS, mixer
from ritornello.mixers.base import Context, Empty, Mixer, Place
from ritornello.mixers.dropout import Dropout, Locked, check, words
from ritornello.mixers.rms_norm import RMSNorm
from ritornello.ops.op import IMPLS
from ritornello.state import State, named_leaves, nbytes

DROPOUTS = ("dropout", "input_dropout", "output_dropout", "word_dropout", "locked_dropout")  # of LMConfig: how it learns, not what it is


class CausalLM(Protocol):
    """What evaluation, sampling and teaching need of a model: ours or any other."""

    def init_state(self, batch: int) -> State: ...
    def __call__(self, tokens: Tensor, state: State, reset: Tensor | None = None) -> tuple[Tensor, State]: ...


@dataclass(frozen=True, kw_only=True)
class LMConfig:
    vocab: int
    dim: int = 256
    layers: tuple[str, ...] = ("hgrn2",) * 4  # time mixers from bottom to top, names into `mixers`
    channel: str | None = "swiglu"  # the channel mixer of every block; "partner": what its time mixer's paper has; None: no channel mixing
    mixers: dict[str, Mixer.Config] = field(default_factory=dict)  # settings by mixer name; absent: the mixer's defaults
    wiring: Literal["residual", "dense", "plain"] = "residual"
    norm: Literal["rms", "layer", "none"] = "rms"
    norm_eps: float = 1e-6
    embedding_dim: int | None = None  # a narrower embedding fills the first channels, the others are zero; None: as wide as the model
    embedding_norm: bool = False  # a norm on the embedding, as in RWKV
    embedding_scale: bool = False  # embeddings times the square root of dim, in bfloat16, as in RecurrentGemma
    softcap: float | None = None  # logits are kept within this: cap * tanh(logits / cap), as in Griffin
    tied: bool = True  # head and embedding share their weights
    dropout: float = 0.0  # on the embedding and on each mixer's output
    input_dropout: float | None = None  # on the embedding; None: as `dropout`
    output_dropout: float = 0.0  # on the features before the head
    word_dropout: float = 0.0  # of whole words of the vocabulary, at all their places in a step
    locked_dropout: bool = False  # channels are left out for a whole piece, not at each token anew

    @staticmethod
    def member(_: str, key: str) -> type[Mixer.Config]:
        return mixer(key).Config

    def __post_init__(self) -> None:
        if min(self.vocab, self.dim, len(self.layers)) < 1:
            raise InputError(f"model: vocab {self.vocab}, dim {self.dim} and {len(self.layers)} layers must all be at least 1")
        for name in ("dropout", "input_dropout", "output_dropout", "word_dropout"):
            check(getattr(self, name) or 0.0, f"model.{name}")
        if not 0 < self.embedding_width <= self.dim:
            raise InputError(f"model.embedding_dim: {self.embedding_dim} is not in 1 to {self.dim}, the model's width")
        if self.tied and self.embedding_width < self.dim:
            raise InputError(f"model.embedding_dim: {self.embedding_dim} is narrower than the head it is tied to; use model.tied=false")
        for name in ("norm_eps", "softcap"):
            if getattr(self, name) is not None and not 0 < getattr(self, name) < math.inf:
                raise InputError(f"model.{name}: {getattr(self, name)} is not a positive number")
        for name in self.layers:
            mixer(name)
            if name in CHANNEL:
                raise InputError(f"model.layers: {name} mixes channels, not time; use one of {', '.join(sorted(set(MIXERS) - CHANNEL))}")
        if self.channel not in (None, "partner"):
            mixer(self.channel)
            if self.channel not in CHANNEL:
                raise InputError(f"model.channel: {self.channel} mixes time, not channels; use one of {', '.join(sorted(CHANNEL))}")

    @property
    def embedding_width(self) -> int:
        return self.dim if self.embedding_dim is None else self.embedding_dim

    @property
    def channels(self) -> tuple[str | None, ...]:
        """The channel mixer of each block, from bottom to top."""
        return tuple(mixer(name).partner if self.channel == "partner" else self.channel for name in self.layers)


class BlockState(NamedTuple):
    time: Any
    channel: Any


class Block(nn.Module):
    def __init__(self, config: LMConfig, place: Place):
        super().__init__()
        name, channel = config.layers[place.index], config.channels[place.index]
        self.wiring, self.inlet = config.wiring, None
        if config.wiring == "dense":
            self.inlet = nn.Linear((1 + place.index) * config.dim, config.dim, bias=False)
        self.time_norm = _norm(config)
        self.time = mixer(name)(config.dim, config.mixers.get(name, mixer(name).Config()), place)
        self.channel = None
        if channel is not None:
            self.channel_norm = _norm(config)
            own = config.mixers.get(channel, mixer(channel).Config())
            self.channel = mixer(channel)(config.dim, own, Place(place.index, place.count, place.index, place.count))
        self.drop = _dropout(config, config.dropout)

    def init_state(self, batch: int) -> BlockState:
        return BlockState(self.time.init_state(batch), self.channel.init_state(batch) if self.channel else Empty())

    def forward(self, below: list[Tensor], state: BlockState, context: Context) -> tuple[Tensor, BlockState]:
        """The outputs of everything below, embedding first, each (B, T, D), to this block's output and state."""
        x = below[-1] if self.inlet is None else self.inlet(torch.cat(below, -1))
        y, time = self.time(normed(self.time_norm, x, context), state.time, context)
        x = self.added(x, y)
        if self.channel is None:
            return x, BlockState(time, state.channel)
        y, channel = self.channel(normed(self.channel_norm, x, context), state.channel, context)
        return self.added(x, y), BlockState(time, channel)

    def added(self, x: Tensor, y: Tensor) -> Tensor:
        """What a mixer read and what it made of it, as the wiring has it."""
        return self.drop(y) if self.wiring == "plain" else x + self.drop(y)


class LM(nn.Module):
    """A causal language model over token ids. `impl` says how ops compute ("auto": the best there is); it is no part of the model."""

    def __init__(self, config: LMConfig, impl: str = "auto"):
        super().__init__()
        if impl not in IMPLS:
            raise unknown("implementation", impl, IMPLS)
        self.config, self.impl = config, impl
        self.embedding = nn.Embedding(config.vocab, config.embedding_width)
        self.scale = torch.tensor(config.dim**0.5, dtype=torch.bfloat16, device="cpu").item()
        self.embedding_norm = _norm(config) if config.embedding_norm else None
        self.drop = _dropout(config, config.dropout if config.input_dropout is None else config.input_dropout)
        self.drop_features = _dropout(config, config.output_dropout) if config.output_dropout else None
        self.blocks = nn.ModuleList(Block(config, place) for place in places(config.layers))
        self.norm = _norm(config)
        self.head = nn.Linear(config.dim, config.vocab, bias=False)
        nn.init.normal_(self.embedding.weight, std=0.02)
        nn.init.normal_(self.head.weight, std=0.02)
        if config.tied:
            self.head.weight = self.embedding.weight

    def init_state(self, batch: int) -> tuple[BlockState, ...]:
        """A fresh state for `batch` rows."""
        return tuple(block.init_state(batch) for block in self.blocks)  # type: ignore[operator]

    def embed(self, tokens: Tensor) -> Tensor:
        """Ids (B, T), or embeddings (B, T, D), to what the lowest block reads (B, T, D)."""
        x = tokens if tokens.is_floating_point() else self.look_up(tokens)
        if self.config.embedding_scale:
            x = x * self.scale
        if self.embedding_norm is not None:
            x = self.embedding_norm(x)
        return self.drop(x)

    def look_up(self, tokens: Tensor) -> Tensor:
        """Ids (B, T) to their embeddings (B, T, D), in training without the words that are dropped."""
        x, rate = self.embedding(tokens), self.config.word_dropout
        x = words(x, tokens, self.embedding.num_embeddings, rate) if self.training and rate else x
        return x if x.shape[-1] == self.config.dim else nn.functional.pad(x, (0, self.config.dim - x.shape[-1]))

    def features(self, tokens: Tensor, state: State, reset: Tensor | None = None) -> tuple[Tensor, State]:
        """Ids (B, T), or embeddings (B, T, D), to normed features (B, T, D) and the state after them."""
        outputs, after, context = [self.embed(tokens)], [], Context(reset, self.impl)
        for block, before in zip(self.blocks, state, strict=True):
            x, block_state = block(outputs, before, context)
            outputs = [*outputs, x] if self.config.wiring == "dense" else [x]
            after.append(block_state)
        x = normed(self.norm, outputs[-1], context)
        return (x if self.drop_features is None else self.drop_features(x)), tuple(after)

    def forward(self, tokens: Tensor, state: State, reset: Tensor | None = None) -> tuple[Tensor, State]:
        """Logits (B, T, vocab) for the token after each, and the state after the last."""
        x, state = self.features(tokens, state, reset)
        return self.logits(x), state

    def logits(self, features: Tensor) -> Tensor:
        """Normed features (..., D) to logits (..., vocab)."""
        logits, cap = self.head(features), self.config.softcap
        return logits if cap is None else cap * torch.tanh(logits / cap)

    @property
    def causal(self) -> bool:
        """Whether no output sees a later token, as predicting the next one requires."""
        return all("causal" in mixer(name).laws for name in self.config.layers)

    @property
    def grows(self) -> bool:
        """Whether the state grows with time (some layer keeps its whole past)."""
        return any(mixer(name).grows for name in self.config.layers)


def _norm(config: LMConfig) -> nn.Module:
    if config.norm == "none":
        return nn.Identity()
    return (RMSNorm if config.norm == "rms" else nn.LayerNorm)(config.dim, eps=config.norm_eps)


def _dropout(config: LMConfig, rate: float) -> nn.Module:
    return (Locked if config.locked_dropout else Dropout)(rate)


def normed(norm: nn.Module, x: Tensor, context: Context) -> Tensor:
    """`norm` of x, by the context's implementation where it has several."""
    return norm(x, context.impl) if isinstance(norm, RMSNorm) else norm(x)


def places(layers: tuple[str, ...]) -> list[Place]:
    """The place of each layer: which of all, which of its own kind."""
    return [Place(index, len(layers), layers[:index].count(name), layers.count(name)) for index, name in enumerate(layers)]


def parameters(config: LMConfig, *, embedding: bool = True) -> int:
    """How many numbers the model of this config learns, counted without making it; `embedding=False` leaves embedding and head out."""
    with torch.device("meta"):
        model = LM(config)
    ends = [] if embedding else [model.embedding.weight] if config.tied else [model.embedding.weight, model.head.weight]
    return sum(weight.numel() for weight in model.parameters()) - sum(weight.numel() for weight in ends)


def state_nbytes(config: LMConfig, tokens: int) -> int:
    """Bytes of one sequence's state after so many tokens, weights in float32."""
    with torch.device("meta"):
        state = LM(config).init_state(1)
    total = 0
    for kind, block in zip(config.layers, state, strict=True):
        total += nbytes(block.channel)
        for name, leaf in named_leaves(block.time):
            shape = (1, tokens, *leaf.shape[2:]) if name in mixer(kind).grows else leaf.shape
            total += math.prod(shape) * leaf.element_size()
    return total
