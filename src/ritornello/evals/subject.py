"""Who is evaluated: anything that gives log-probabilities to texts.

A suite's items become requests, "how probable is the end of this text, given its beginning?", and a subject answers them. So a suite
knows nothing of models, and a model nothing of suites.

How a text becomes tokens is the protocol's:

ritornello       BOS, then the text
official-2024    BOS, then " " + text where all of it is scored (BabyLM 2024, a fork of lm-evaluation-harness)
official-2025    the text alone, so its first token conditions and is never scored (BabyLM 2025, where the tokenizer adds nothing)

A token is scored if any of its characters lies in the part that is asked for.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from ritornello.data.tokenizers import Tokenizer
from ritornello.errors import InputError, unknown
from ritornello.evals.scoring import LOGITS_BYTES, Progress, Scored, evaluating, log_prob, stream_nats
from ritornello.model import CausalLM

PROTOCOLS = ("ritornello", "official-2024", "official-2025")


class Request(NamedTuple):
    """How probable is text[start:], given text[:start]?"""

    text: str
    start: int = 0  # characters that condition and are not scored


class Subject(Protocol):
    @property
    def name(self) -> str: ...
    @property
    def sha256(self) -> str: ...  # of weights, architecture and tokenizer: with a task's, the key of a kept result
    @property
    def protocol(self) -> str: ...

    def log_probs(self, requests: Sequence[Request], progress: Progress | None = None) -> Tensor:
        """Natural logarithms, (requests,) float64 on the CPU; NaN where the model gives no finite one."""
        ...

    def counts(self, requests: Sequence[Request]) -> Tensor:
        """Tokens that are scored, (requests,) int64."""
        ...

    def greedy(self, requests: Sequence[Request]) -> Tensor:
        """Whether every scored token is the most probable one at its place, (requests,) bool. InputError if the subject cannot tell."""
        ...


@dataclass(frozen=True)
class CausalSubject:
    """A causal language model and its tokenizer."""

    model: CausalLM
    tokenizer: Tokenizer
    name: str
    sha256: str
    protocol: str = "ritornello"
    window: int = 512  # tokens of a long text at a time; a model whose state grows sees no more than these

    def __post_init__(self) -> None:
        _check_protocol(self.protocol)

    def log_probs(self, requests: Sequence[Request], progress: Progress | None = None) -> Tensor:
        """See `Subject`. InputError for a text without a token to score."""
        texts, first = tokenized(self.tokenizer, requests, self.protocol)
        found = log_prob(self.model, texts, first=first, progress=progress)
        return found.where(found.isfinite(), torch.nan)

    def stream(self, documents: Sequence[np.ndarray], progress: Progress | None = None) -> Scored:
        """Nats of every token of documents of any length, (n,) ids each: the state is carried, where it does not grow."""
        return stream_nats(
            self.model,
            np.concatenate(documents),
            np.cumsum([len(document) for document in documents]),
            bos=self.tokenizer.bos,
            eos=self.tokenizer.eos,
            length=self.window,
            carry=not getattr(self.model, "grows", True),
            progress=progress,
        )

    def counts(self, requests: Sequence[Request]) -> Tensor:
        """See `Subject`."""
        return torch.tensor([len(text) - begin for text, begin in zip(*tokenized(self.tokenizer, requests, self.protocol), strict=True)])

    def greedy(self, requests: Sequence[Request]) -> Tensor:
        """See `Subject`. Of tokens that are equally probable the first counts as the most probable."""
        texts, first = tokenized(self.tokenizer, requests, self.protocol)
        device = next((each.device for each in self.model.parameters()), "cpu") if isinstance(self.model, nn.Module) else "cpu"
        right = torch.ones(len(texts), dtype=torch.bool)
        order = sorted(range(len(texts)), key=lambda index: len(texts[index]))
        with evaluating(self.model):
            while order:
                rows = max(1, LOGITS_BYTES // (4 * self.tokenizer.size * len(texts[order[-1]])))
                order, chosen = order[:-rows], order[-rows:]
                batch = pad_sequence([torch.tensor(texts[index]) for index in chosen], batch_first=True)
                best = self.model(batch[:, :-1].to(device), self.model.init_state(len(chosen)))[0].argmax(-1).cpu()
                for row, index in enumerate(chosen):
                    scored = slice(first[index], len(texts[index]))
                    right[index] = bool((best[row, scored.start - 1 : scored.stop - 1] == batch[row, scored]).all())
        return right


def tokenized(tokenizer: Tokenizer, requests: Sequence[Request], protocol: str) -> tuple[list[list[int]], list[int]]:
    """The tokens of each request, the first of which conditions, and the place of the first that is scored. InputError where none is."""
    _check_protocol(protocol)
    begin = [] if protocol == "official-2025" else [tokenizer.bos]
    space = " " if protocol == "official-2024" else ""
    texts = [request.text if request.start else space + request.text for request in requests]
    found = tokenizer.encode_from(texts, [request.start for request in requests])
    tokens, first = [[*begin, *ids.tolist()] for ids, _ in found], [max(1, len(begin) + place) for _, place in found]
    for index, (text, place) in enumerate(zip(tokens, first, strict=True)):
        if place >= len(text):
            hint = "; its first token conditions, under official-2025" if not begin and text else ""
            raise InputError(f"text {index} of {len(tokens)} has no token to score{hint}")
    return tokens, first


def _check_protocol(protocol: str) -> None:
    if protocol not in PROTOCOLS:
        raise unknown("protocol of a causal model", protocol, PROTOCOLS)
