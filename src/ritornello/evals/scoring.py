"""Log-probabilities of texts and of long documents under any causal language model.

`log_prob` scores many short texts, one number each. `stream_nats` scores documents of any length, one number a token, so that
a standard error can be formed. Both take any model with `init_state(batch)` and `model(tokens, state, reset) -> (logits, state)`.

Rounding is kept out: logits are widened to float32 before the log-softmax whatever the weights are, sums are float64. Sums kept in
16 bits make ties, and ties count as right in the official minimal-pair rules.
"""

import heapq
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ritornello.errors import InputError
from ritornello.evals.prefixes import shared_log_prob
from ritornello.model import LM, CausalLM
from ritornello.state import nbytes
from ritornello.state import rows as select

LOGITS_BYTES = 2**27  # of float32 logits from one forward pass
SOFTMAX_BYTES = 2**24  # widened at once
STATE_BYTES = 2**29  # of fresh state in one batch

Array = Tensor | np.ndarray
Progress = Callable[[int, int], None]  # (tokens done, tokens in all)
Measure = Callable[[Tensor, Tensor], Tensor]  # logits (B, T, V) and targets (B, T) to what is wanted of each target (B, T, ...)


class Scored(NamedTuple):
    """Every scored token of a set of documents, in document order: t1..tn EOS of the first, then of the second."""

    nats: Tensor  # (N,) float32 or wider, on the CPU: -log p(target | its document up to there)
    targets: Tensor  # (N,) int64
    documents: Tensor  # (N,) int64, the index of the document


class _Limits(NamedTuple):
    """What one forward pass may hold."""

    device: torch.device
    tokens: int
    rows: int


def log_prob(
    model: CausalLM,
    texts: Sequence[list[int]],
    *,
    first: Sequence[int] | None = None,
    tokens_per_batch: int = 16384,
    progress: Progress | None = None,
) -> Tensor:
    """Sum of log p(token | earlier tokens), in nats: (len(texts),) float64 on the CPU.

    The first token of a text, BOS as a rule, conditions and is not scored; `first` says for each text where scoring begins, 1 or later.
    Equal texts are scored once, and under an LM of ours equal beginnings too (see prefixes.py). Other models read each text by itself;
    right padding needs no mask, as a causal model's earlier outputs cannot see it. Raises InputError for an empty text or an unknown id.
    """
    for index, text in enumerate(texts):
        if not text:
            raise InputError(f"text {index} of {len(texts)} is empty; a text begins with a token that conditions the rest, such as BOS")
    places: dict[tuple[tuple[int, ...], int], int] = {}
    begins = [1] * len(texts) if first is None else first
    where = [places.setdefault((tuple(text), begin), len(places)) for text, begin in zip(texts, begins, strict=True)]
    unique, begins = [list(text) for text, _ in places], [begin for _, begin in places]
    sums = torch.zeros(len(unique), dtype=torch.float64)
    if not unique:
        return sums
    done, whole = 0, sum(len(text) - 1 for text in unique)
    with evaluating(model):
        _limits(model, [torch.tensor(text) for text in unique], tokens_per_batch)
        several = (unique, begins, tokens_per_batch)
        for chosen, found in shared_log_prob(model, *several) if isinstance(model, LM) else _padded_log_prob(model, *several):
            sums[chosen] = found
            done += sum(len(unique[index]) - 1 for index in chosen)
            if progress:
                progress(done, whole)
    return sums[where]


def stream_nats(
    model: CausalLM,
    ids: Array,
    ends: Array | Sequence[int],
    *,
    bos: int,
    eos: int,
    length: int,
    carry: bool,
    rows: int = 32,
    limit_tokens: int | None = None,
    progress: Progress | None = None,
) -> Scored:
    """-log p of every token of the documents, each followed by EOS and conditioned on BOS and its own past.

    `ids` (M,) holds all documents one after another without special tokens, `ends` where each stops. With `carry` a document
    is conditioned on all its past: documents are packed into `rows` rows and reset where a document starts, the state goes from
    piece to piece, and `length` only says how much is done at once. Without it, for models whose state grows and which were
    trained at `length`: windows of `length` tokens, each half a window after the last; a token is scored once, with at least
    length / 2 tokens of past where there are so many. `limit_tokens` scores the first so many targets only.
    """
    if length < 2:
        raise InputError(f"stream_nats: length must be at least 2 tokens, found {length}")
    if rows < 1:
        raise InputError(f"stream_nats: rows must be at least 1, found {rows}")
    if limit_tokens is not None and limit_tokens < 1:
        raise InputError(f"stream_nats: limit_tokens must be at least 1, found {limit_tokens}")
    documents = _documents(ids, ends, bos, eos, limit_tokens)
    found = stream(model, documents, token_nats, length=length, carry=carry, rows=rows, progress=progress)
    return Scored(
        torch.cat(found),
        torch.cat([document[1:] for document in documents]),
        torch.arange(len(documents)).repeat_interleave(torch.tensor([len(document) - 1 for document in documents])),
    )


def stream(
    model: CausalLM,
    documents: Sequence[Tensor],
    measure: Measure,
    *,
    length: int,
    carry: bool,
    rows: int = 32,
    progress: Progress | None = None,
) -> list[Tensor]:
    """As `stream_nats`, for anything one may want of logits: documents (n + 1,), the first token conditions, to (n, ...) each."""
    with evaluating(model):
        if carry:
            return _carried(model, documents, rows, rows * length, progress, measure)
        return _windowed(model, documents, length, rows * length, progress, measure)


@contextmanager
def evaluating(model: Any) -> Iterator[None]:
    """Dropout off and no gradients; each module's training flag is put back."""
    training = [module for module in model.modules() if module.training] if isinstance(model, nn.Module) else []
    for module in training:
        module.training = False
    try:
        with torch.inference_mode():
            yield
    finally:
        for module in training:
            module.training = True


def token_nats(logits: Tensor, targets: Tensor) -> Tensor:
    """-log p(target): (B, T, V) logits of any dtype and (B, T) targets to (B, T), float32 or wider, a block of rows at a time."""
    flat, wanted = logits.flatten(0, 1), targets.flatten()
    wide = torch.promote_types(logits.dtype, torch.float32)
    step = max(1, SOFTMAX_BYTES // (4 * logits.shape[-1]))
    blocks = zip(flat.split(step), wanted.split(step), strict=True)
    return torch.cat([F.cross_entropy(block.to(wide), want, reduction="none") for block, want in blocks]).view(targets.shape)


def _documents(ids: Array, ends: Array | Sequence[int], bos: int, eos: int, limit: int | None) -> list[Tensor]:
    """BOS t1..tn EOS of each document, until `limit` targets are reached; the last may then lack its end."""
    found, start, left = [], 0, float("inf") if limit is None else limit
    ids = ids.cpu().numpy() if isinstance(ids, Tensor) else ids
    stops = [int(end) for end in ends]
    if not stops:
        raise InputError("stream_nats: there is no document to score")
    if stops[-1] != len(ids):
        raise InputError(f"stream_nats: the last of {len(stops)} documents ends at {stops[-1]}, but there are {len(ids)} tokens")
    for end in stops:
        if left <= 0:
            break
        if not start <= end <= len(ids):
            raise InputError(f"stream_nats: a document ends at {end}; expected an offset from {start} to {len(ids)}")
        document = torch.cat([torch.tensor([bos]), torch.from_numpy(np.array(ids[start:end], dtype=np.int64)), torch.tensor([eos])])
        if len(document) - 1 > left:
            document = document[: int(left) + 1]
        found.append(document)
        left -= len(document) - 1
        start = end
    return found


def _limits(model: CausalLM, texts: Sequence[Tensor], tokens: int) -> _Limits:
    """The model's device and vocabulary, and what a pass may hold. One token is run to learn the vocabulary."""
    if tokens < 1:
        raise InputError(f"a batch must have room for at least 1 token, found {tokens}")
    held = [*model.parameters(), *model.buffers()] if isinstance(model, nn.Module) else []
    device = held[0].device if held else getattr(model, "device", torch.device("cpu"))
    state = model.init_state(1)
    vocabulary = model(torch.zeros(1, 1, dtype=torch.int64, device=device), state)[0].shape[-1]
    low, high = (int(bound) for bound in torch.cat(list(texts)).aminmax())
    if low < 0 or high >= vocabulary:
        raise InputError(
            f"token id {low if low < 0 else high} is not among the model's {vocabulary}; use the tokenizer the model was trained with"
        )
    most = min(tokens, LOGITS_BYTES // (4 * vocabulary))
    return _Limits(device, max(1, most), max(1, STATE_BYTES // max(1, nbytes(state))))


def _padded(
    model: CausalLM, texts: Sequence[Tensor], tokens: int, progress: Progress | None, measure: Measure
) -> Iterator[tuple[list[int], list[int], Tensor]]:
    """Texts from fresh states, longest first: indices, numbers of targets, what is measured (B, T, ...) on the CPU, right-padded."""
    order = sorted((index for index in range(len(texts)) if len(texts[index]) > 1), key=lambda index: -len(texts[index]))
    if not order:
        return
    limits = _limits(model, texts, tokens)
    whole, done = sum(len(texts[index]) - 1 for index in order), 0
    while order:
        longest = len(texts[order[0]]) - 1
        count = max(1, min(limits.tokens // longest, limits.rows))
        chosen, order = order[:count], order[count:]
        batch = nn.utils.rnn.pad_sequence([texts[index] for index in chosen], batch_first=True).to(limits.device)
        state, found = model.init_state(len(chosen)), []
        for inputs, targets in zip(batch[:, :-1].split(limits.tokens, 1), batch[:, 1:].split(limits.tokens, 1), strict=True):
            logits, state = model(inputs, state)
            found.append(measure(logits, targets).cpu())
        sizes = [len(texts[index]) - 1 for index in chosen]
        yield chosen, sizes, torch.cat(found, 1)
        done += sum(sizes)
        if progress:
            progress(done, whole)


def _padded_log_prob(model: CausalLM, texts: Sequence[list[int]], first: Sequence[int], tokens: int) -> Iterator[tuple[list[int], Tensor]]:
    """As `shared_log_prob`, for any model: each text by itself, right padding unseen."""
    begin = torch.tensor(first)
    for chosen, sizes, nats in _padded(model, [torch.tensor(text) for text in texts], tokens, None, token_nats):
        at = torch.arange(1, nats.shape[1] + 1)
        scored = (at <= torch.tensor(sizes)[:, None]) & (at >= begin[chosen, None])
        yield chosen, -nats.double().where(scored, 0).sum(1)


def _windowed(
    model: CausalLM, documents: Sequence[Tensor], length: int, tokens: int, progress: Progress | None, measure: Measure
) -> list[Tensor]:
    """What is measured at each document's targets, from windows of `length` inputs that start every length // 2 tokens."""
    stride = length // 2
    windows, places = [], []  # places: (document, first target in the window, first one it scores)
    for index, document in enumerate(documents):
        for start in range(0, max(1, len(document) - 1 - length + stride), stride):
            windows.append(document[start : start + length + 1])
            places.append((index, start, start + length - stride if start else 0))
    parts: list[dict[int, Tensor]] = [{} for _ in documents]
    for chosen, sizes, nats in _padded(model, windows, tokens, progress, measure):
        for row, (window, size) in enumerate(zip(chosen, sizes, strict=True)):
            index, start, first = places[window]
            parts[index][first] = nats[row, first - start : size].clone()  # not a view that keeps the batch alive
    return [torch.cat([part for _, part in sorted(found.items())]) for found in parts]


def _carried(
    model: CausalLM, documents: Sequence[Tensor], count: int, tokens: int, progress: Progress | None, measure: Measure
) -> list[Tensor]:
    """What is measured at each document's targets: documents packed into at most `count` rows, the state threaded from piece to piece."""
    limits = _limits(model, documents, tokens)
    plan = _pack([len(document) - 1 for document in documents], min(count, limits.rows))
    inputs = [torch.cat([documents[index][:-1] for index in row]) for row in plan]
    targets = [torch.cat([documents[index][1:] for index in row]) for row in plan]
    starts = [torch.cat([torch.arange(len(documents[index]) - 1) == 0 for index in row]) for row in plan]
    sizes = [len(row) for row in inputs]
    nats: list[list[Tensor]] = [[] for _ in plan]
    at, state = 0, model.init_state(len(plan))
    while at < sizes[0]:
        live = sum(size > at for size in sizes)
        end = at + max(1, limits.tokens // live)
        x, y, fresh = (
            nn.utils.rnn.pad_sequence([row[at:end] for row in part[:live]], batch_first=True).to(limits.device)
            for part in (inputs, targets, starts)
        )
        if at == 0:
            fresh[:, 0] = False  # the state is fresh already, and a piece without a reset is faster
        logits, state = model(x, select(state, slice(0, live)), fresh if fresh.any() else None)
        scored = measure(logits, y).cpu()
        for row in range(live):
            nats[row].append(scored[row, : sizes[row] - at])
        at = end
        if progress:
            progress(sum(min(size, at) for size in sizes), sum(sizes))
    found = [torch.empty(0)] * len(documents)
    for row, order in enumerate(plan):
        parts = torch.cat(nats[row]).split([len(documents[index]) - 1 for index in order])
        for index, part in zip(order, parts, strict=True):
            found[index] = part
    return found


def _pack(sizes: Sequence[int], count: int) -> list[list[int]]:
    """Indices of documents in at most `count` rows of nearly equal length, the longest row first: the longest document goes to
    the emptiest row (Graham 1969)."""
    heap = [(0, row) for row in range(min(count, len(sizes)))]
    plan: list[list[int]] = [[] for _ in heap]
    for index in sorted(range(len(sizes)), key=lambda index: -sizes[index]):
        load, row = heapq.heappop(heap)
        plan[row].append(index)
        heapq.heappush(heap, (load + sizes[index], row))
    return sorted(plan, key=lambda row: -sum(sizes[index] for index in row))
