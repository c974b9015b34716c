"""Masked language models: pseudo-log-likelihoods.

    PLL(text) = sum of log p(token | all other tokens)

over the tokens that are asked for, one of them masked at a time. Under the protocol "within-word" the later tokens of its word are masked
with it, for the end of a rare word gives its beginning away, and long words look too probable. What the tokenizer puts around a text is
seen and not scored. It is no probability of the text: compare it with other pseudo-log-likelihoods only.

Sources: Salazar et al. 2020, arXiv:1910.14659; within-word masks: Kauf and Ivanova 2023, arXiv:2305.10588.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from ritornello.data.documents import utf8
from ritornello.data.tokenizers import LibraryTokenizer
from ritornello.errors import InputError, unknown
from ritornello.evals.scoring import LOGITS_BYTES, Progress, evaluating, token_nats
from ritornello.evals.subject import PROTOCOLS, Request

WITHIN_WORD = "within-word"


class MaskedLM(Protocol):
    mask: int  # the id that hides a token

    def __call__(self, texts: list[Tensor]) -> Tensor: ...  # ids (T,) of each text to logits (B, T, V), padded on the right


class Tokens(NamedTuple):
    """A text, and the places of the tokens that are scored."""

    ids: tuple[int, ...]
    words: tuple[int | None, ...]  # which word of the text a token is part of
    places: tuple[int, ...]


@dataclass(frozen=True)
class MaskedSubject:
    """A masked language model and its tokenizer. Protocols are those of a causal model, and "within-word"."""

    model: MaskedLM
    tokenizer: LibraryTokenizer
    name: str
    sha256: str
    protocol: str = "ritornello"

    def log_probs(self, requests: Sequence[Request], progress: Progress | None = None) -> Tensor:
        """Pseudo-log-likelihoods, see `Subject`. Equal requests are scored once. InputError for a text without a token to score."""
        texts = self._tokenized(requests)
        unique = {text: index for index, text in enumerate(dict.fromkeys(texts))}
        sums = torch.zeros(len(unique), dtype=torch.float64)
        asked = sorted(((text, place) for text in unique for place in text.places), key=lambda each: -len(each[0].ids))
        done = 0
        with evaluating(self.model):
            for batch in self._batches(asked):
                logits = self.model([self._hidden(text, place) for text, place in batch])
                places = torch.tensor([place for _, place in batch])
                wanted = torch.tensor([text.ids[place] for text, place in batch])
                nats = token_nats(logits[torch.arange(len(batch)), places][:, None], wanted[:, None])
                sums.index_add_(0, torch.tensor([unique[text] for text, _ in batch]), -nats[:, 0].double())
                done += len(batch)
                if progress:
                    progress(done, len(asked))
        found = sums[[unique[text] for text in texts]]
        return found.where(found.isfinite(), torch.nan)

    def counts(self, requests: Sequence[Request]) -> Tensor:
        """See `Subject`."""
        return torch.tensor([len(text.places) for text in self._tokenized(requests)])

    def greedy(self, requests: Sequence[Request]) -> Tensor:
        """InputError: to say a word's first token, a masked model would have to be told how many tokens the word has."""
        raise InputError(f"{self.name} is a masked model, which does not write; only a causal one has a most probable next word")

    def _tokenized(self, requests: Sequence[Request]) -> list[Tokens]:
        if self.protocol not in (*PROTOCOLS, WITHIN_WORD):
            raise unknown("protocol", self.protocol, (*PROTOCOLS, WITHIN_WORD))
        space = " " if self.protocol == "official-2024" else ""
        texts = [request.text if request.start else space + request.text for request in requests]
        for text in texts:
            utf8(text, "text")
        found = []
        for index, (start, each) in enumerate(zip((each.start for each in requests), self.tokenizer.raw.encode_batch(texts), strict=True)):
            ends = [0 if special else end for (_, end), special in zip(each.offsets, each.special_tokens_mask, strict=True)]
            places = tuple(place for place, end in enumerate(ends) if end > start)
            if not places:
                raise InputError(f"text {index} of {len(texts)} has no token to score")
            found.append(Tokens(tuple(each.ids), tuple(each.word_ids), places))
        return found

    def _hidden(self, text: Tokens, place: int) -> Tensor:
        """The text with the token at that place masked, and with it the rest of its word if the protocol says so."""
        ids, word = torch.tensor(text.ids), text.words[place]
        rest = range(place + 1, len(text.ids)) if self.protocol == WITHIN_WORD else ()
        ids[[place, *takewhile(lambda other: text.words[other] == word, rest)]] = self.model.mask
        return ids

    def _batches(self, asked: Sequence[tuple[Tokens, int]]) -> Iterator[Sequence[tuple[Tokens, int]]]:
        """As many as there is room for the logits of; the longest texts come first."""
        start = 0
        while start < len(asked):
            rows = max(1, LOGITS_BYTES // (4 * self.tokenizer.size * len(asked[start][0].ids)))
            yield asked[start : start + rows]
            start += rows
