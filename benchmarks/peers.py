"""Forward and backward of whole models beside those of transformers, on the same weights: S7 step.

    python -m benchmarks.peers [--only mamba] [--rounds 3] [--keep]

Both compute the mean loss of a text of 512 tokens and the gradients of all weights: ours as it trains, theirs as AutoModelForCausalLM
gives it, after their losses and the gradients of their embeddings were found alike. transformers' Mamba takes a minute or two a step, so
rounds are few.
"""

import argparse
from collections.abc import Callable, Iterator
from functools import partial

import torch
import transformers

from benchmarks.common import Row, errors, main, medians, ratio
from ritornello.data.batches import Batch
from ritornello.hf.convert import LAYOUTS
from ritornello.mixers import mixer
from ritornello.model import LM, LMConfig, parameters
from ritornello.train.losses import NextToken

HEADS = {"rglru": mixer("rglru").Config(head_dim=128)}  # transformers' gates have as many blocks as its attention has heads
GRIFFIN = {"channel": "geglu", "embedding_scale": True, "softcap": 30.0, "mixers": HEADS}
RWKV = {"channel": "rwkv_channel", "norm": "layer", "embedding_norm": True}
MODELS = {  # a layer, or a period of them, and what its paper sets beside
    "mamba": ("mamba", ("mamba",), {"channel": None}),
    "mamba2": ("mamba2", ("mamba2",), {"channel": None}),
    "rwkv4": ("rwkv", ("rwkv4",), RWKV),
    "griffin": ("recurrent_gemma", ("rglru", "rglru", "window"), GRIFFIN),
    "attention": ("llama", ("attention",), {}),
}


def rows(name: str, options: argparse.Namespace) -> Iterator[Row]:
    layout_name, period, more = MODELS[name]
    vocab, dim, depth, B, T = (512, 128, 2, 1, 32) if options.quick else (8192, 256, 10 // len(period), 1, 512)
    torch.manual_seed(0)
    config = LMConfig(vocab=vocab, dim=dim, layers=period * depth, **more)
    ours, theirs = LM(config), twin(LM(config), layout_name)
    weights = theirs.state_dict()
    ours.load_state_dict({own: change.back(weights[their]) for own, their, change in LAYOUTS[layout_name].pairs(ours)}, strict=False)
    text = torch.randint(vocab, (B, T + 1), generator=torch.Generator().manual_seed(1))
    work = {"native": our_step(ours, text), "transformers": their_step(theirs, text)}
    loss, gradient = errors(work["native"](), [each.double() for each in work["transformers"]()])
    assert loss < 1e-5, (name, loss)
    assert gradient < 1e-3, (name, gradient)
    times = medians(work, options.rounds)
    shape = f"{parameters(config) / 1e6:.1f}M parameters, B={B} T={T}"
    setting = {"model": type(theirs).__name__, "attention": theirs.config._attn_implementation, "precision": "float32"}
    yield ratio("S7 step", f"{name}, {shape}", "transformers", times, mixer=name, setting=setting, gradient_error=gradient)


def twin(ours: LM, layout_name: str) -> torch.nn.Module:
    """transformers' model of the same settings."""
    layout, config = LAYOUTS[layout_name], ours.config
    table = {"vocab_size": config.vocab, "hidden_size": config.dim, "num_hidden_layers": len(config.layers)}
    table |= {"tie_word_embeddings": config.tied, "use_cache": False} | layout.write(ours)
    return transformers.AutoModelForCausalLM.from_config(transformers.AutoConfig.for_model(layout_name, **table)).float()


def our_step(model: LM, text: torch.Tensor) -> Callable[[], list[torch.Tensor]]:
    loss_of = NextToken(model)
    batch = Batch(text[:, :-1], text[:, 1:].contiguous(), None, torch.zeros(len(text), dtype=torch.int64))

    def step() -> list[torch.Tensor]:
        model.zero_grad()
        nats, count, *_ = loss_of(batch, loss_of.init_state(len(text)))
        loss = nats / count
        loss.backward()
        return [loss.detach(), gradient(model.embedding)]

    return step


def their_step(model: torch.nn.Module, text: torch.Tensor) -> Callable[[], list[torch.Tensor]]:
    def step() -> list[torch.Tensor]:
        model.zero_grad()
        logits = model(text[:, :-1]).logits
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), text[:, 1:].flatten())
        loss.backward()
        return [loss.detach(), gradient(model.get_input_embeddings())]  # type: ignore[operator]

    return step


def gradient(embedding: torch.nn.Module) -> torch.Tensor:
    found = embedding.weight.grad
    assert isinstance(found, torch.Tensor), "the embedding has a gradient after a step"
    return found.clone()


PARTS = {name: partial(rows, name) for name in MODELS}
main(__name__, __doc__, PARTS, rounds=3)
