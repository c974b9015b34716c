"""The unitary recurrent network beside a NumPy transcription of its paper."""

import numpy as np
import paper
import paper_unitary
import pytest

from ritornello.mixers.base import Context, Place
from ritornello.mixers.unitary import State, Unitary

SIZES = {"x": (37, 6), "h": (2, 3)}


def transcribed(inputs):
    """Outputs and end state on the weights, x (T, 6) and h (2, 3)."""
    entries = np.split(inputs["x"] @ inputs["skew.weight"].T, 2, axis=1)
    hs = np.concatenate([paper_unitary.states(*each) for each in zip(entries, inputs["h"], strict=True)], 1)
    return {"y": hs @ inputs["out.weight"].T, "end": hs[-1].reshape(2, 3)}


@pytest.mark.parametrize("impl", ["loop", "chunk"])
def test_unitary_is_the_papers(impl):
    mixer, random = Unitary(6, Unitary.Config(head_dim=3), Place()).double(), np.random.default_rng(3)
    leaves = paper.fill(mixer, random, 0.7) | {name: paper.leaf(random.normal(size=size)) for name, size in SIZES.items()}
    y, state = mixer(leaves["x"][None], State(leaves["h"][None]), Context(impl=impl))
    paper.agree(lambda: {"y": y[0], "end": state.h[0]}, transcribed, leaves)
