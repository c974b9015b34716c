"""A model in the middle of a text, as a value.

A session holds the state and the logits of the next token and is never changed: feeding it gives a new one. So forking is
using a session twice, rewinding is going back to an earlier one, and for a model whose state does not grow the text may go on
for ever. Token number n is drawn with a generator that is a pure function of (seed, n): a fork draws what its origin would.

    session = start(model, tokenizer.bos, seed=1)
    for piece in text_stream(session, tokenizer, "Once upon", max_tokens=100):
        print(piece, end="")

The model is used as it is handed over: call its `eval()` first. No gradients are kept.
"""

import codecs
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from ritornello.data.tokenizers import Tokenizer
from ritornello.errors import InputError
from ritornello.serve.native import NativeEngine
from ritornello.serve.sampling import check, sample
from ritornello.state import State, named_leaves

PIECE = 256  # tokens of a prompt fed at a time: bounds the memory for logits; exact by the split law
AHEAD = 16  # tokens of a text that are written in one native call


class Engine(Protocol):
    """What computes: any CausalLM, or another form of the same model with the same states."""

    def init_state(self, batch: int) -> State: ...
    def __call__(self, tokens: Tensor, state: State) -> tuple[Tensor, State]: ...


@dataclass(frozen=True, eq=False)
class Session:
    """`start` makes the first one."""

    engine: Engine
    state: State  # of one row
    logits: Tensor  # (V,), of the next token
    seed: int
    count: int  # tokens since BOS

    def feed(self, tokens: list[int]) -> "Session":
        """The session after these tokens; `self` stays as it is. Raises InputError for an id outside the vocabulary."""
        for token in tokens:
            if not 0 <= token < len(self.logits):
                raise InputError(f"token {token}: the model knows ids from 0 to {len(self.logits) - 1}")
        if not tokens:
            return self
        logits, state = _advance(self.engine, tokens, self.state, self.logits.device)
        return replace(self, logits=logits, state=state, count=self.count + len(tokens))

    def generator(self) -> torch.Generator:
        """The randomness of the next token, on the CPU: a pure function of (seed, count)."""
        return _generator(self.seed, self.count)


def start(engine: Engine, bos: int, seed: int) -> Session:
    """The session at the beginning of a text, after BOS, on the device of the engine's states."""
    state = engine.init_state(1)
    device = next((leaf.device for _, leaf in named_leaves(state)), torch.device("cpu"))
    logits, state = _advance(engine, [bos], state, device)
    return Session(engine, state, logits, seed, 0)


def stream(
    session: Session, *, temperature: float = 1.0, top_k: int | None = None, top_p: float | None = None, max_tokens: int, stop: int | None
) -> Iterator[tuple[int, Session]]:
    """Draw and feed up to `max_tokens` tokens; yields each with the session after it.

    The token `stop` (None: no such token) ends the stream and is neither yielded nor fed: fewer than `max_tokens` tokens
    say that the text ended by itself. Settings are those of `sampling.sample`; bad ones raise InputError here, not at the first token.
    """
    _check(temperature, top_k, top_p, max_tokens)
    return _stream(session, temperature, top_k, top_p, max_tokens, stop)


def tokens(
    session: Session, *, temperature: float = 1.0, top_k: int | None = None, top_p: float | None = None, max_tokens: int, stop: int | None
) -> Iterator[int]:
    """The tokens of `stream` without the sessions between: a native engine draws and feeds 16 in a call."""
    _check(temperature, top_k, top_p, max_tokens)
    return _tokens(session, temperature, top_k, top_p, max_tokens, stop)


def text_stream(
    session: Session,
    tokenizer: Tokenizer,
    prompt: str = "",
    *,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    max_tokens: int,
) -> Iterator[str]:
    """Feed the prompt, then stream the text that follows until EOS or for `max_tokens` tokens.

    A character whose bytes lie in several tokens comes with the last of them. Bytes that are not UTF-8 become U+FFFD, also
    those of a character that the end cuts off. Special ids give no text, and a special token's name in the prompt is text.
    Exact if the tokenizer is lossless. Raises InputError as `stream`, and if model and tokenizer differ in size.
    """
    if len(session.logits) != tokenizer.size:
        raise InputError(
            f"the model knows {len(session.logits)} ids, the tokenizer {tokenizer.size}; use the tokenizer the model was trained with"
        )
    session = session.feed(tokenizer.encode(prompt))
    drawn = tokens(session, temperature=temperature, top_k=top_k, top_p=top_p, max_tokens=max_tokens, stop=tokenizer.eos)
    return _text(drawn, tokenizer.token_bytes)


def _generator(seed: int, count: int) -> torch.Generator:
    digest = hashlib.blake2b(f"{seed} {count}".encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "little"))


def _check(temperature: float, top_k: int | None, top_p: float | None, max_tokens: int) -> None:
    check(temperature, top_k, top_p)
    if max_tokens < 0:
        raise InputError(f"max tokens: expected 0 or more, found {max_tokens}")


def _advance(engine: Engine, tokens: list[int], state: State, device: torch.device) -> tuple[Tensor, State]:
    """The logits (V,) after at least one token, and the state."""
    with torch.no_grad():
        for begin in range(0, len(tokens), PIECE):
            logits, state = engine(torch.tensor([tokens[begin : begin + PIECE]], device=device), state)
    return logits[0, -1].clone(), state  # a view would keep the logits of all tokens


def _stream(
    session: Session, temperature: float, top_k: int | None, top_p: float | None, max_tokens: int, stop: int | None
) -> Iterator[tuple[int, Session]]:
    for _ in range(max_tokens):
        drawn = sample(session.logits[None], temperature=temperature, top_k=top_k, top_p=top_p, generator=session.generator())
        token = int(drawn)
        if token == stop:
            return
        session = session.feed([token])
        yield token, session


def _tokens(
    session: Session, temperature: float, top_k: int | None, top_p: float | None, max_tokens: int, stop: int | None
) -> Iterator[int]:
    """Where a native engine draws fewer than asked for, `sample` finds the end or says what is wrong."""
    while isinstance(engine := session.engine, NativeEngine) and max_tokens > 0:
        places = range(session.count, session.count + min(AHEAD, max_tokens))
        uniforms = [float(torch.rand((), dtype=torch.float64, generator=_generator(session.seed, place))) for place in places]
        drawn, logits, state = engine.write(
            session.logits, session.state, uniforms, temperature=temperature, top_k=top_k, top_p=top_p, stop=stop
        )
        yield from drawn
        session = replace(session, logits=logits, state=state, count=session.count + len(drawn))
        max_tokens -= len(drawn)
        if len(drawn) < len(places):
            break
    for token, _ in _stream(session, temperature, top_k, top_p, max_tokens, stop):
        yield token


def _text(drawn: Iterator[int], token_bytes: Sequence[bytes]) -> Iterator[str]:
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    for token in drawn:
        if piece := decoder.decode(token_bytes[token]):
            yield piece
    if rest := decoder.decode(b"", final=True):
        yield rest
