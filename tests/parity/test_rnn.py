"""The simple recurrent network beside torch 2.13's own."""

import pytest
import torch

from ritornello.mixers.base import Context, Place
from ritornello.mixers.rnn import RNN, State


@pytest.mark.parametrize("activation", ["tanh", "relu"])
@pytest.mark.parametrize("impl", ["loop", "chunk"])
def test_rnn_is_torchs(activation, impl):
    """The same weights in a plain torch RNN, from a state that is not zero: outputs, end state, gradients."""
    mixer = RNN(16, RNN.Config(activation=activation), Place()).double()
    theirs = torch.nn.RNN(16, 16, nonlinearity=activation, batch_first=True).double()
    theirs.load_state_dict(mixer.rnn.state_dict())
    x, h = torch.randn(3, 21, 16, dtype=torch.float64, requires_grad=True), torch.randn(3, 16, dtype=torch.float64, requires_grad=True)
    y, end = theirs(x, h[None])
    for reset in (None, torch.zeros(3, 21, dtype=torch.bool)):
        ours, state = mixer(x, State(h), Context(reset, impl))
        torch.testing.assert_close(ours, y, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(state.h, end[0], rtol=1e-12, atol=1e-12)
        grads = [
            torch.autograd.grad(out.square().sum(), [x, h, *module.parameters()], retain_graph=True)
            for out, module in ((ours, mixer), (y, theirs))
        ]
        for found, wanted in zip(*grads, strict=True):
            torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-10)
