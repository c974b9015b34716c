"""Several trained models as one, whose opinion of the next token is to be learned.

With z_k the logits of teacher k of n, at a temperature T:

    probabilities   p = 1/n sum_k softmax(z_k / T)
    logits          p = softmax(1/n sum_k z_k / T)              Timiryasov and Tastet 2023, arXiv:2308.02019 (BabyLlama)

A teacher is any CausalLM; a recurrent one has a state like the student's, which goes in and comes out.
"""

import math
from collections.abc import Sequence
from functools import reduce
from typing import Literal

import torch
from torch import Tensor, nn

from ritornello.errors import InputError
from ritornello.model import CausalLM
from ritornello.state import State


class Teachers:
    """A CausalLM whose logits are log p of the formula. No module: a teacher's weights are not the student's to learn, keep or clip."""

    def __init__(
        self,
        models: Sequence[CausalLM],
        vocab: int,
        temperature: float = 1.0,
        average: Literal["probabilities", "logits"] = "probabilities",
    ):
        """`vocab`: the ids that count. InputError if a teacher does not know them all."""
        self.models, self.vocab, self.temperature, self.average = tuple(models), vocab, temperature, average
        for model in models:
            if isinstance(model, nn.Module):
                model.eval()
            knows = model(torch.zeros(1, 1, dtype=torch.int64, device=self.device), model.init_state(1))[0].shape[-1]
            if knows < vocab:
                raise InputError(f"a teacher knows {knows:,} ids, the student {vocab:,}; leave model.vocab out")

    @property
    def device(self) -> torch.device:
        """Where they compute, all in one place."""
        weights = (weight for model in self.models if isinstance(model, nn.Module) for weight in model.parameters())
        return next((weight.device for weight in weights), torch.device("cpu"))

    @property
    def grows(self) -> bool:
        """Whether some state grows with time."""
        return any(_grows(model) for model in self.models)

    def init_state(self, batch: int) -> State:
        """A fresh state for `batch` rows."""
        return tuple(model.init_state(batch) for model in self.models)

    def without_growth(self, state: State, batch: int) -> State:
        """The state of `batch` rows with a fresh one for each teacher whose own grows: it reads piece by piece, as it was trained."""
        return tuple(model.init_state(batch) if _grows(model) else own for model, own in zip(self.models, state, strict=True))

    @torch.no_grad()
    def __call__(self, tokens: Tensor, state: State, reset: Tensor | None = None) -> tuple[Tensor, State]:
        """Ids (B, T) to log p (B, T, vocab), float32 or wider, and the state after them."""
        found, after = [], []
        for model, before in zip(self.models, state, strict=True):
            logits, end = model(tokens, before, reset)
            found.append(logits[..., : self.vocab].to(torch.promote_types(logits.dtype, torch.float32)) / self.temperature)
            after.append(end)
        if self.average == "logits":
            return torch.stack(found).mean(0).log_softmax(-1), tuple(after)
        whole = reduce(torch.logaddexp, [each.log_softmax(-1) for each in found])  # a tenth of the time of logsumexp over a stack
        return (whole - math.log(len(found)) if len(found) > 1 else whole), tuple(after)


def _grows(model: CausalLM) -> bool:
    return bool(getattr(model, "grows", False))
