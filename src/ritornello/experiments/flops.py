"""What a model computes for a token, counted by running its definition for one token on tensors that have shapes and no numbers.

Every multiplication, addition and function of a number is one FLOP: a matrix product costs two for each weight, the recurrence what its
`loop` does with each number of the state, attention what it does with each token it sees. Looking up an embedding, comparing and moving
numbers are free; what is made of weights alone, such as Mamba's A, counts for every token. How an implementation regroups the sums is
not counted: equal FLOP means equal work by definition, not by kernel.

In a text of L tokens attention sees (L + 1) / 2 of them on average, a window of W the mean of min(t, W). The backward pass costs two
forward ones, as each product has two gradients (Kaplan et al. 2020, arXiv:2001.08361).
"""

import functools
import json
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from ritornello.config import from_dict, to_dict
from ritornello.mixers import mixer
from ritornello.model import LM, LMConfig
from ritornello.state import State, rebuild

aten = torch.ops.aten
NAMES = """
    _softmax abs add add_ addcmul amax clamp clamp_max clamp_min cos cumsum div exp expm1 gelu lerp linalg_vector_norm log log1p
    log_sigmoid_forward masked_fill maximum mean minimum mul native_layer_norm neg pow reciprocal relu rsqrt rsub sgn sigmoid silu sin
    softplus sqrt square sub sum tanh where"""
ONE_BY_ONE = tuple(getattr(aten, name) for name in NAMES.split())


def forward_flop(config: LMConfig, length: int, *, products: bool = False) -> float:
    """FLOP of one token, averaged over a text of `length` tokens from its beginning; with `products` those of matrix products alone."""
    rules: dict[Any, Callable[..., int]] = {} if products else dict.fromkeys(ONE_BY_ONE, _largest)
    counter = FlopCounterMode(display=False, custom_mapping=rules | {aten._scaled_dot_product_flash_attention_for_cpu: _attention})
    with FakeTensorMode(), torch.no_grad():
        model = LM(_windows(config, length), "loop").eval()
        tokens, state = torch.zeros(1, 1, dtype=torch.int64), _halfway(config, model.init_state(1), length)
        with counter:
            model(tokens, state)
    return float(counter.get_total_flops())


def training_flop(config: LMConfig, length: int) -> float:
    """FLOP of training on one token, forward and backward; counted once for all runs of a model."""
    return _training_flop(json.dumps(to_dict(config), sort_keys=True), length)


@functools.cache
def _training_flop(config: str, length: int) -> float:
    return 3 * forward_flop(from_dict(LMConfig, json.loads(config)), length)


def mean_context(length: int, window: float = math.inf) -> int:
    """How many tokens, itself among them, a token of the text sees on average, rounded."""
    whole = min(length, window)
    return max(1, round((whole * (whole + 1) / 2 + (length - whole) * whole) / length))


def _windows(config: LMConfig, length: int) -> LMConfig:
    """Windows as wide as what is seen through them on average."""
    mixers = dict(config.mixers)
    for name in config.layers:
        own = config.mixers.get(name, mixer(name).Config())
        if hasattr(own, "window"):
            mixers[name] = from_dict(type(own), to_dict(own) | {"window": mean_context(length, own.window)})
    return replace(config, mixers=mixers)


def _halfway(config: LMConfig, state: State, length: int) -> State:
    """A fresh state grown to what the mean token finds."""

    def grown(name: str, leaf: Tensor, grows: frozenset[str]) -> Tensor:
        return leaf.new_zeros(1, mean_context(length) - 1, *leaf.shape[2:]) if name in grows else leaf

    blocks = []
    for kind, block in zip(config.layers, state, strict=True):
        grows, time = mixer(kind).grows, block.time
        if grows:
            time = rebuild(time, [grown(name, leaf, grows) for name, leaf in zip(time._fields, time, strict=True)])
        blocks.append(rebuild(block, [time, block.channel]))
    return tuple(blocks)


def _largest(*shapes: Any, out_shape: Any = None, **_: Any) -> int:
    """One for each number that goes in or comes out, whichever are more."""
    return max(math.prod(shape) for shape in (*shapes, out_shape) if isinstance(shape, torch.Size))


def _attention(q: torch.Size, k: torch.Size, v: torch.Size, *_: Any, **__: Any) -> int:
    """Scores q k' and their mean of v: (..., H, T, d), (..., G, S, d) and (..., G, S, d)."""
    return 2 * math.prod(q[:-1]) * k[-2] * (q[-1] + v[-1])
