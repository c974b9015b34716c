"""Mamba-2 beside `transformers` 5.23.0's block on the same weights."""

import outside
import pytest

from ritornello.mixers.base import Context, Place
from ritornello.mixers.mamba2 import Mamba2

NAMES = {"into.": "in_proj.", "conv.": "conv1d.", "norm": "norm.weight", "out.": "out_proj."}  # ours: theirs; the others are the same


def ours(impl: str, **settings):
    """The golden tensors under our names, the mixer filled from them, and its context."""
    gold = outside.golden("mamba2")
    for mine, theirs in NAMES.items():
        for name in [name for name in gold if name.partition(".")[2].startswith(theirs)]:
            gold[name.replace(theirs, mine, 1)] = gold.pop(name)
    mixer = Mamba2(12, Mamba2.Config(eps=1e-5, head_dim=6, state_dim=5, groups=2, bias=True, **settings), Place())
    return gold, mixer, outside.copied(mixer, gold), Context(impl=impl)


@pytest.mark.parametrize("impl", ["loop", "chunk"])
def test_mamba2_is_transformers_block(impl):
    """Outputs and gradients."""
    gold, mixer, weights, context = ours(impl)
    x = gold["in.x"].requires_grad_()
    y, _ = mixer(x, mixer.init_state(2), context)
    outside.agree(weights | {"x": x}, {"y": y}, gold)


@pytest.mark.parametrize("impl", ["loop", "chunk"])
def test_its_state_is_transformers_cache(impl):
    """After 21 tokens, theirs with the value's axis first and one more input of the convolution; then two tokens one by one."""
    gold, mixer, _, context = ours(impl)
    first, *steps = gold["in.x"].split([21, 1, 1], 1)
    _, state = mixer(first, mixer.init_state(2), context)
    outside.close(state.h, gold["out.h"].mT)
    outside.close(state.past, gold["out.past"][..., 1:].mT)
    for step, want in zip(steps, gold["out.steps"].unbind(1), strict=True):
        y, state = mixer(step, state, context)
        outside.close(y[:, 0], want)


def test_steps_keep_to_their_limit():
    gold, mixer, _, context = ours("chunk", dt_limit=(0.1, 2.0))
    outside.close(mixer(gold["in.x"], mixer.init_state(2), context)[0], gold["out.limited"])
    assert (gold["out.limited"] - gold["out.y"]).abs().max() > 0.1
