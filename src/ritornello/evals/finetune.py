"""Fine-tuning: a model and a fresh head on one of its features learn to sort texts into classes.

    logits = head(pool(encoder(tokens)))          all weights are trained

After each epoch the texts of `select` are sorted; the epoch that did best on them sorts those of `report`. Batches hold texts of
nearly one length, so little is computed on padding, and padding changes no result (see encoder.py). The same seed gives the same bits.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from ritornello.errors import InputError
from ritornello.evals.encoder import Encoder
from ritornello.evals.scoring import Progress
from ritornello.train.loop import Diverged
from ritornello.train.optimizers import rate

POOLED = 32  # batches whose texts are sorted by length together
TOKENS = 16384  # in one batch that is only read


class Example(NamedTuple):
    parts: tuple[str, ...]  # a sentence, or two
    label: int
    document: str  # what it is about; examples of one document are never parted


class Split(NamedTuple):
    train: Sequence[Example]
    select: Sequence[Example]  # the best epoch is chosen on these
    report: Sequence[Example]


@dataclass(frozen=True, kw_only=True)
class Recipe:
    lr: float
    batch: int  # texts
    epochs: int  # at most
    length: int = 128  # tokens of a text at most
    patience: int | None = None  # epochs without a gain after which it stops; None: never
    threshold: float = 0.0  # what counts as a gain
    schedule: Literal["linear", "cosine"] = "linear"
    warmup: float = 0.0  # share of the steps
    floor: float = 0.0  # share of the rate that is left at the end
    weight_decay: float = 0.0
    clip: float = 1.0  # largest norm of the whole gradient
    head: Literal["linear", "mlp"] = "linear"
    pool: Literal["first", "last", "mean"] | None = None  # what stands for a text; None: the encoder's own choice


class Tuned(NamedTuple):
    choices: list[int]  # one class for each text of `report`
    epoch: int  # the one that did best on `select`, from 1
    epochs: int  # that were trained
    score: float  # of that epoch on `select`


class Classifier(nn.Module):
    """An encoder and a head: a linear map without bias, as transformers' causal classifiers have, or BabyLM 2025's two layers."""

    def __init__(self, encoder: Encoder, classes: int, recipe: Recipe):
        super().__init__()
        self.encoder, self.pool, dim = encoder, recipe.pool or encoder.pool, encoder.dim
        if recipe.head == "linear":
            self.head: nn.Module = nn.Linear(dim, classes, bias=False)
            nn.init.normal_(self.head.weight, std=0.02)
        else:
            inner = (nn.LayerNorm(dim), nn.Linear(dim, dim), nn.GELU(), nn.LayerNorm(dim), nn.Dropout(0.1))
            self.head = nn.Sequential(*inner, nn.Linear(dim, classes))

    def forward(self, texts: Sequence[list[int]]) -> Tensor:
        """Tokens of texts to logits (B, classes)."""
        device = next(self.parameters()).device
        lengths = torch.tensor([len(text) for text in texts], device=device)
        tokens = pad_sequence([torch.tensor(text) for text in texts], batch_first=True).to(device)
        return self.head(pooled(self.encoder(tokens, lengths), lengths, self.pool))


def pooled(features: Tensor, lengths: Tensor, pool: str) -> Tensor:
    """Features (B, T, D) of rows of these lengths to one for each row (B, D): that of the first or last token, or the mean."""
    if pool == "first":
        return features[:, 0]
    if pool == "last":
        return features[torch.arange(len(features), device=features.device), lengths - 1]
    real = torch.arange(features.shape[1], device=features.device) < lengths[:, None]
    return features.where(real[..., None], 0).sum(1) / lengths[:, None]


def finetune(
    encoder: Encoder,
    split: Split,
    classes: int,
    recipe: Recipe,
    score: Callable[[list[int], list[int]], float],
    seed: int = 0,
    progress: Progress | None = None,
) -> Tuned:
    """Train `encoder`, in place, on split.train, and sort split.report. `score` takes labels and choices; larger is better.

    Progress is told in steps. Raises InputError for a split without texts, Diverged when numbers run out.
    """
    for name, part in zip(Split._fields, split, strict=True):
        if not part:
            raise InputError(f"fine-tuning: there is nothing to {name}{' on' if name == 'select' else ''}; give more texts")
    tokens = [encoder.encode([example.parts for example in part], recipe.length) for part in split]
    labels = [[example.label for example in part] for part in split]
    device = next(encoder.parameters()).device
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        model = Classifier(encoder, classes, recipe).to(device)
        best, kept, waited, epoch = Tuned([], 0, 0, float("-inf")), {}, 0, 0
        epochs = _epochs(model, tokens[0], labels[0], recipe, seed, progress)
        for epoch, _ in enumerate(epochs, 1):
            found = score(labels[1], choices(model, tokens[1]))
            waited = 0 if found > best.score + recipe.threshold else waited + 1
            if found > best.score:
                best = Tuned([], epoch, epoch, found)
                kept = {name: value.clone() for name, value in model.state_dict().items()}
            if recipe.patience is not None and waited >= recipe.patience:
                break
        model.load_state_dict(kept)
    return best._replace(choices=choices(model, tokens[2]), epochs=epoch)


def _epochs(
    model: Classifier, tokens: list[list[int]], labels: list[int], recipe: Recipe, seed: int, progress: Progress | None
) -> Iterator[None]:
    """Trains the model, an epoch at a time."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.0, weight_decay=recipe.weight_decay, fused=True)
    each = -(-len(tokens) // recipe.batch)
    steps, step = recipe.epochs * each, 0
    warmup = round(recipe.warmup * steps)
    for epoch in range(recipe.epochs):
        model.train()
        for chosen in batches([len(text) for text in tokens], recipe.batch, torch.Generator().manual_seed((seed << 16) + epoch)):
            wanted = torch.tensor([labels[index] for index in chosen])
            logits = model([tokens[index] for index in chosen]).float()
            loss = F.cross_entropy(logits, wanted.to(logits.device))
            loss.backward()
            norm = nn.utils.clip_grad_norm_(model.parameters(), recipe.clip)
            if not (loss.isfinite() and norm.isfinite()):
                raise Diverged(f"fine-tuning, step {step + 1}: the loss is not a finite number; try a rate below {recipe.lr:g}")
            share = rate(step, steps, warmup=warmup, schedule=recipe.schedule)
            for group in optimizer.param_groups:
                group["lr"] = recipe.lr * (share if step < warmup else recipe.floor + (1 - recipe.floor) * share)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            step += 1
            if progress:
                progress(step, steps)
        yield


def batches(lengths: Sequence[int], size: int, generator: torch.Generator) -> list[list[int]]:
    """All texts once, in batches in random order, the texts of a batch of nearly one length."""
    order = torch.randperm(len(lengths), generator=generator).tolist()
    found = []
    for start in range(0, len(order), POOLED * size):
        pool = sorted(order[start : start + POOLED * size], key=lambda index: lengths[index])
        found += [pool[first : first + size] for first in range(0, len(pool), size)]
    return [found[index] for index in torch.randperm(len(found), generator=generator).tolist()]


def choices(model: Classifier, tokens: Sequence[list[int]]) -> list[int]:
    """The class of each text, the first of equals; dropout is off. Raises Diverged where a logit is not a number."""
    model.eval()
    order = sorted(range(len(tokens)), key=lambda index: len(tokens[index]))
    found = [0] * len(tokens)
    while order:
        rows = max(1, TOKENS // len(tokens[order[-1]]))
        order, chosen = order[:-rows], order[-rows:]
        with torch.inference_mode():
            logits = model([tokens[index] for index in chosen])
        if not logits.isfinite().all():
            raise Diverged("fine-tuning: the model gives logits that are not finite numbers")
        for index, choice in zip(chosen, logits.argmax(-1).tolist(), strict=True):
            found[index] = choice
    return found
