"""A passage of text with the surprisal of every token: -log2 p(token | all earlier ones), in bits.

`surprisal` asks the model, `passage` turns the answer into pieces that can be shown: a token that
ends inside a UTF-8 character, or before a mark that belongs to it, is joined with the next one.
"""

import math
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from typing import Any

import torch
from torch import Tensor

from ritornello.errors import InputError
from ritornello.state import named_leaves

Guesses = Sequence[tuple[int, float]]  # (token id, probability), the likeliest first
JOINER = "\u200d"
SPECIAL = "∎"  # stands for a token that has no text, such as the end of a document
VISIBLE = {" ": "␣", "\n": "↵", "\r": "␍", "\t": "⇥", "\u00a0": "⍽"}


@torch.no_grad()
def surprisal(model: Any, tokenizer: Any, ids: Sequence[int], *, length: int = 512, top: int = 5) -> tuple[list[float], list[Guesses]]:
    """-log p(token | BOS and all earlier tokens) in nats for every id, and the `top` likeliest tokens in its place.

    `model` is any CausalLM, in evaluation mode: `init_state(1)` and `model(tokens (1, T), state) -> (logits (1, T, V), state)`.
    It reads `length` tokens at a time, so memory does not grow with the text beyond what the state itself does.
    The log-softmax is taken in float32 or wider. Raises InputError if there are no ids.
    """
    if not ids:
        raise InputError("surprisal: expected at least one token, found none; give a longer text")
    state = model.init_state(1)
    device = next((leaf.device for _, leaf in named_leaves(state)), torch.device("cpu"))
    targets = torch.tensor(ids, device=device)
    inputs = torch.cat([targets.new_tensor([tokenizer.bos]), targets[:-1]])
    nats: list[float] = []
    guesses: list[Guesses] = []
    for x, y in zip(inputs.split(length), targets.split(length), strict=True):
        logits, state = model(x[None], state)
        log_p: Tensor = logits[0].to(torch.promote_types(logits.dtype, torch.float32)).log_softmax(-1)  # (T, V)
        nats += (-log_p.gather(-1, y[:, None])[:, 0]).tolist()
        best, where = log_p.topk(min(top, log_p.shape[-1]), -1)
        guesses += [list(zip(*row, strict=True)) for row in zip(where.tolist(), best.exp().tolist(), strict=True)]
    return nats, guesses


def passage(
    nats: Sequence[float],
    tokens: Sequence[int],
    token_bytes: Callable[[int], bytes] | Sequence[bytes],
    guesses: Sequence[Guesses],
    name: str = "",
) -> dict[str, Any]:
    """The plain JSON that the page draws: {"name", "tokens", "nbytes", "nats_per_token", "bits_per_byte", "pieces"}.

    A piece is [text, number of tokens, bits, [[guess, probability], ...]]; its guesses are for its first token.
    The bits of the pieces add up to those of the tokens. `token_bytes` gives the UTF-8 bytes of a token id, none for a
    special token. Raises InputError unless there is one value in nats and one list of guesses for each token.
    """
    if not tokens or len(nats) != len(tokens) or len(guesses) != len(tokens):
        raise InputError(
            f"passage: {len(tokens)} tokens, {len(nats)} surprisals, {len(guesses)} lists of guesses; need as many of each, at least one"
        )
    spell = token_bytes if callable(token_bytes) else token_bytes.__getitem__
    pieces = []
    for text, group in _join(_characters([spell(token) for token in tokens])):
        shown = [[visible(spell(token)), round(p, 4)] for token, p in guesses[group.start]]
        pieces.append([text, len(group), math.fsum(nats[i] for i in group) / math.log(2), shown])
    nbytes = sum(len(spell(token)) for token in tokens)
    total = math.fsum(nats)
    return {
        "name": name,
        "tokens": len(tokens),
        "nbytes": nbytes,
        "nats_per_token": total / len(tokens),
        "bits_per_byte": total / math.log(2) / nbytes if nbytes else None,
        "pieces": pieces,
    }


def visible(raw: bytes) -> str:
    r"""A token as readable text: ␣ for a space, ↵ for a line end, \xNN for bytes that are no characters, ∎ for a special token."""
    if not raw:
        return SPECIAL
    text = raw.decode("utf-8", errors="backslashreplace")
    shown = "".join(VISIBLE.get(char) or (char if _drawable(char) else char.encode("unicode_escape").decode()) for char in text)
    return f"◌{shown}" if unicodedata.category(text[0]).startswith("M") else shown


def _drawable(char: str) -> bool:
    return char.isprintable() or char in "\u200c\u200d"


def _characters(spelled: Sequence[bytes]) -> Iterator[tuple[str, range]]:
    """(text, tokens) where every text is whole characters. Bytes that cannot become one are spelled out."""
    pending, start = b"", 0
    for index, raw in enumerate(spelled):
        if pending and not raw:  # a special token ends whatever was open
            yield pending.decode("utf-8", errors="backslashreplace"), range(start, index)
            pending, start = b"", index
        pending += raw
        try:
            text = pending.decode("utf-8")
        except UnicodeDecodeError as error:
            if error.reason == "unexpected end of data" and index + 1 < len(spelled):
                continue
            text = pending.decode("utf-8", errors="backslashreplace")
        yield text, range(start, index + 1)
        pending, start = b"", index + 1


def _join(parts: Iterable[tuple[str, range]]) -> Iterator[tuple[str, range]]:
    """Parts joined wherever a cut would tear a character from its marks, a joined emoji or a flag apart."""
    text, group = "", range(0)
    for more, indices in chain(parts, [("", range(0))]):
        if text and more and _belongs(text, more):
            text, group = text + more, range(group.start, indices.stop)
            continue
        if group:
            yield text, group
        text, group = more, indices


def _belongs(before: str, after: str) -> bool:
    first = after[0]
    if unicodedata.category(first).startswith("M") or first == JOINER or "\U0001f3fb" <= first <= "\U0001f3ff":
        return not before.endswith("\n")
    if _is_flag_half(first):
        trailing = len(before) - len(before.rstrip("".join(map(chr, range(0x1F1E6, 0x1F200)))))
        return trailing % 2 == 1
    return before.endswith(JOINER)


def _is_flag_half(char: str) -> bool:
    return "\U0001f1e6" <= char <= "\U0001f1ff"
