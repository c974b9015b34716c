"""Models as readers of whole texts, for fine-tuning: tokens in, one feature vector for each token out.

    causal    BOS first, second on the next line            read at the last token: the first has seen nothing but itself
    masked    CLS first SEP second SEP                      read at the first token, which sees all

Texts are padded on the right. No token of a causal model sees that; models of transformers are told where a text ends.
"""

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ritornello.data.tokenizers import Tokenizer
from ritornello.errors import InputError
from ritornello.evals.subject import Subject
from ritornello.model import LM


class Encoder(nn.Module):
    """A model without its head, to be trained. `pool` is the token that stands for a text, `length` what the model reads at most."""

    def __init__(self, tokenizer: Tokenizer, dim: int, causal: bool, length: int | None):
        super().__init__()
        self.tokenizer, self.dim, self.causal, self.length = tokenizer, dim, causal, length
        self.pool = "last" if causal else "first"

    def encode(self, texts: Sequence[tuple[str, ...]], length: int) -> list[list[int]]:
        """The tokens of each text, which has one part or two, `length` of them at most; see `shortened`."""
        length = min(length, self.length or length)
        between = "\n" if self.causal else ""
        flat = [between * (place > 0) + part for text in texts for place, part in enumerate(text)]
        ids = iter(self.tokenizer.encode_many(flat))
        end = [] if self.causal else [self.tokenizer.eos]
        found = []
        for text in texts:
            parts = shortened([next(ids).tolist() for _ in text], length - 1 - len(end) * len(text))
            found.append([self.tokenizer.bos, *(index for part in parts for index in (*part, *end))])
        return found

    def forward(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        """Ids (B, T), padded on the right with any id, and the length of each row (B,), to features (B, T, D)."""
        raise NotImplementedError


class LMEncoder(Encoder):
    """A language model of ours."""

    def __init__(self, model: LM, tokenizer: Tokenizer):
        super().__init__(tokenizer, model.config.dim, causal=True, length=None)
        self.model = model

    def forward(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        """See `Encoder`."""
        return self.model.features(tokens, self.model.init_state(len(tokens)))[0]


class NetEncoder(Encoder):
    """A model of transformers, causal or masked."""

    def __init__(self, net: nn.Module, tokenizer: Tokenizer, causal: bool, length: int):
        super().__init__(tokenizer, net.config.hidden_size, causal, length)  # type: ignore[union-attr, arg-type]
        net.config.use_cache = False  # type: ignore[union-attr]
        self.net: nn.Module = net.base_model  # type: ignore[assignment]

    def forward(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        """See `Encoder`."""
        real = torch.arange(tokens.shape[1], device=tokens.device) < lengths[:, None]
        return self.net(input_ids=tokens, attention_mask=real.long()).last_hidden_state


def encoder_of(subject: Subject) -> Encoder:
    """A trainable copy of a subject's model; the subject stays as it is. InputError for one that gives scores only."""
    model, tokenizer = (getattr(subject, name, None) for name in ("model", "tokenizer"))
    if isinstance(model, LM) and tokenizer is not None:
        return LMEncoder(copy.deepcopy(model).requires_grad_(True), tokenizer)
    net = getattr(model, "net", None)  # as hf.model's classes have it
    if isinstance(net, nn.Module) and tokenizer is not None:
        return NetEncoder(copy.deepcopy(net).requires_grad_(True), tokenizer, not hasattr(model, "mask"), model.length)  # type: ignore[union-attr]
    raise InputError(f"{subject.name}: gives scores only; fine-tuning needs a model whose weights are at hand")


def shortened(parts: Sequence[list[int]], room: int) -> list[list[int]]:
    """The parts, of at most `room` tokens in all: while there are too many, the longest part loses its last."""
    sizes = [len(part) for part in parts]
    while sum(sizes) > max(0, room):
        sizes[sizes.index(max(sizes))] -= 1
    return [part[:size] for part, size in zip(parts, sizes, strict=True)]
