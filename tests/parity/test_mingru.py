"""minGRU beside the log-space equations of its paper, transcribed to NumPy."""

import paper
import paper_mingru
import pytest
import torch
from laws import lively

from ritornello.mixers.base import Context, Place
from ritornello.mixers.mingru import MinGRU, State


@pytest.mark.parametrize("impl", ["loop", "chunk"])
def test_mingru_is_the_papers(impl):
    """Outputs, end state and gradients from a warm, positive state."""
    mixer = lively(MinGRU(6, MinGRU.Config(), Place()))
    x, h = torch.randn(2, 19, 6, dtype=torch.float64, requires_grad=True), torch.rand(2, 12, dtype=torch.float64, requires_grad=True)

    def ours():
        y, state = mixer(x, State(h), Context(impl=impl))
        return {"y": y, "end": state.h}

    paper.agree(ours, paper_mingru.mingru, {**dict(mixer.named_parameters()), "x": x, "h": h})


def test_its_gates_are_a_third_of_a_grus():
    """Two maps of the input, biases with them, where a GRU has three of the input and three of the state."""
    mixer = MinGRU(16, MinGRU.Config(expand=1), Place())
    gates = sum(weight.numel() for linear in (mixer.z, mixer.v) for weight in linear.parameters())
    assert 3 * gates == sum(weight.numel() for weight in torch.nn.GRU(16, 16).parameters())


def test_an_expansion_of_nothing_is_refused():
    with pytest.raises(ValueError, match="the hidden state is 0 times as wide as the model; use 1 or more"):
        MinGRU(16, MinGRU.Config(expand=0), Place())
