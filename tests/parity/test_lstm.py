"""LSTM beside torch's own."""

import torch

from ritornello.mixers.base import Context, Place
from ritornello.mixers.lstm import LSTM
from ritornello.mixers.lstm import State as LSTMState


def test_lstm_is_torchs():
    """The same weights in a plain torch LSTM, from a state that is not zero: outputs, end state, gradients."""
    mixer, theirs = LSTM(16, LSTM.Config(), Place()).double(), torch.nn.LSTM(16, 16, batch_first=True).double()
    theirs.load_state_dict(mixer.lstm.state_dict())
    x, h, c = (torch.randn(*shape, dtype=torch.float64) for shape in ((3, 21, 16), (3, 16), (3, 16)))
    y, (end_h, end_c) = theirs(x, (h[None], c[None]))
    for reset in (None, torch.zeros(3, 21, dtype=torch.bool)):  # both ways through: plain and packed
        ours, state = mixer(x, LSTMState(h, c), Context(reset))
        for found, wanted in ((ours, y), (state.h, end_h[0]), (state.c, end_c[0])):
            torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12)
        grads = [
            torch.autograd.grad(out.square().sum(), list(module.parameters()), retain_graph=True)
            for out, module in ((ours, mixer), (y, theirs))
        ]
        for found, wanted in zip(*grads, strict=True):
            torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-10)
