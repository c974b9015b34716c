"""minLSTM beside the log-space equations of its paper, transcribed to NumPy."""

import paper
import paper_minlstm
import pytest
import torch
from laws import lively

from ritornello.mixers.base import Context, Place
from ritornello.mixers.minlstm import MinLSTM, State


@pytest.mark.parametrize("impl", ["loop", "chunk"])
def test_minlstm_is_the_papers(impl):
    """Outputs, end state and gradients from a warm, positive state."""
    mixer = lively(MinLSTM(6, MinLSTM.Config(), Place()))
    x, h = torch.randn(2, 19, 6, dtype=torch.float64, requires_grad=True), torch.rand(2, 12, dtype=torch.float64, requires_grad=True)

    def ours():
        y, state = mixer(x, State(h), Context(impl=impl))
        return {"y": y, "end": state.h}

    paper.agree(ours, paper_minlstm.minlstm, {**dict(mixer.named_parameters()), "x": x, "h": h})


def test_the_gates_share_one_unit_even_where_both_are_shut():
    """Gates of exp(-200) each, far below what float32 can divide, still mix the old and the new half and half."""
    mixer = MinLSTM(4, MinLSTM.Config(expand=1), Place())
    with torch.no_grad():
        for linear in (mixer.f, mixer.i):
            torch.nn.init.zeros_(linear.weight)
            torch.nn.init.constant_(linear.bias, -200.0)
        torch.nn.init.zeros_(mixer.v.weight)
        torch.nn.init.constant_(mixer.v.bias, 0.5)  # g(0.5) = 1
    x = torch.zeros(1, 3, 4, requires_grad=True)
    y, state = mixer(x, mixer.init_state(1), Context())
    torch.testing.assert_close(state.h, torch.full((1, 4), 1 - 0.5**3))
    assert torch.autograd.grad(y.sum(), mixer.f.bias)[0].isfinite().all()
