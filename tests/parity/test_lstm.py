"""LSTM beside torch 2.13's own, with and without projection, and its variants beside the equations of Greff et al. 2015."""

import numpy as np
import paper_lstm
import pytest
import torch

from ritornello.mixers.base import Context, Place
from ritornello.mixers.lstm import LSTM, GatesState, State

SWITCHES = {
    "": {"peepholes": True},
    "NIG": {"peepholes": True, "input_gate": False},
    "NFG": {"peepholes": True, "forget_gate": False},
    "NOG": {"peepholes": True, "output_gate": False},
    "NIAF": {"peepholes": True, "input_activation": False},
    "NOAF": {"peepholes": True, "output_activation": False},
    "NP": {},
    "CIFG": {"peepholes": True, "coupled": True},
    "FGR": {"peepholes": True, "gate_recurrence": True},
}


@pytest.mark.parametrize("widths", [(16, None), (16, 5), (48, 16)])
@pytest.mark.parametrize("impl", ["loop", "chunk"])
def test_lstm_is_torchs(widths, impl):
    """The same weights in a plain torch LSTM, from a state that is not zero: outputs, end state, gradients."""
    width, projection = widths
    mixer = LSTM(16, LSTM.Config(expand=width // 16, projection=projection), Place()).double()
    theirs = torch.nn.LSTM(16, width, batch_first=True, proj_size=projection or 0).double()
    theirs.load_state_dict(mixer.lstm.state_dict())
    x, h, c = (torch.randn(*shape, dtype=torch.float64) for shape in ((3, 21, 16), (3, projection or width), (3, width)))
    y, (end_h, end_c) = theirs(x, (h[None], c[None]))
    want = y if mixer.out is None else y @ mixer.out.weight.T
    for reset in (None, torch.zeros(3, 21, dtype=torch.bool)):
        ours, state = mixer(x, State(h, c), Context(reset, impl))
        for found, wanted in ((ours, want), (state.h, end_h[0]), (state.c, end_c[0])):
            torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12)
        grads = [
            torch.autograd.grad(out.square().sum(), list(module.parameters()), retain_graph=True)
            for out, module in ((ours, mixer.lstm), (want, theirs))
        ]
        for found, wanted in zip(*grads, strict=True):
            torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-10)


def ours(change, w, outputs):
    """Our mixer in float64 with the paper's arrays in it: D = 6, so are the cells."""
    projection = outputs if outputs < 6 else None
    mixer = LSTM(6, LSTM.Config(projection=projection, **SWITCHES[change]), Place()).double()
    parts = [{"g": "z"}.get(name, name) for name in mixer.parts]
    weights = {
        "weight_ih_l0": np.concatenate([w[f"W_{part}"] for part in parts]),
        "weight_hh_l0": np.concatenate([w[f"R_{part}"] for part in parts]),
        "bias_ih_l0": np.concatenate([w[f"b_{part}"] for part in parts]),
    }
    if change == "NP":
        weights["bias_hh_l0"] = 0 * weights["bias_ih_l0"]
    else:
        weights["peephole"] = np.stack([w[f"p_{gate}"] for gate in mixer.gates])
    if change == "FGR":
        weights["weight_gates"] = np.block([[w[f"R_{source}{gate}"] for source in mixer.gates] for gate in mixer.gates])
    if projection:
        weights["weight_hr_l0"] = w["P"]
    mixer.lstm.load_state_dict({name: torch.tensor(value) for name, value in weights.items()})
    mixer.out = None  # what leaves it is h itself
    return mixer


@pytest.mark.parametrize("outputs", [6, 4])
@pytest.mark.parametrize("change", paper_lstm.CHANGES)
def test_each_variant_is_the_papers(change, outputs):
    """Outputs and end state from the same weights and a warm state; the gradient in three directions of the input, by differences."""
    w, random = paper_lstm.weights(change, 6, 6, outputs), np.random.default_rng(1)
    mixer = ours(change, w, outputs)
    xs, y, c = random.normal(size=(9, 6)), random.normal(size=outputs), random.normal(size=6)
    gates = {gate: random.uniform(size=6) for gate in "ifo"}
    state = [torch.tensor(leaf)[None] for leaf in (y, c, np.concatenate(list(gates.values())))]
    state = GatesState(*state) if change == "FGR" else State(*state[:2])
    x = torch.tensor(xs)[None].requires_grad_()

    want, end_y, end_c, end_gates = paper_lstm.block(change, w, xs, y, c, gates)
    wanted = [want, end_y, end_c, *([np.concatenate(list(end_gates.values()))] if change == "FGR" else [])]
    found, end = mixer(x, state, Context())
    for a, b in zip([found, *end], wanted, strict=True):
        np.testing.assert_allclose(a[0].detach(), b, rtol=1e-11, atol=1e-11)

    grad = torch.autograd.grad(found.square().sum() + end.c.sum(), x)[0][0].numpy()
    for direction in random.normal(size=(3, 9, 6)):
        values = []
        for step in (1e-5, -1e-5):
            ys, _, last, _ = paper_lstm.block(change, w, xs + step * direction, y, c, gates)
            values.append((ys**2).sum() + last.sum())
        np.testing.assert_allclose((grad * direction).sum(), (values[0] - values[1]) / 2e-5, rtol=1e-6)
