"""sLSTM beside the xlstm package 2.0.6's layer with its plain cell, on the same weights."""

import outside
import torch

from ritornello.mixers.base import Context, Place
from ritornello.mixers.slstm import SLSTM, State


def test_slstm_is_the_authors():
    """Outputs from a fresh and from a warm state, end state and gradients agree (float32 throughout)."""
    gold = outside.golden("slstm")
    mixer = SLSTM(16, SLSTM.Config(), Place())
    ours = dict(mixer.named_parameters())
    with torch.no_grad():
        for name, weight in ours.items():
            weight.copy_(gold[f"in.{name}"])
    inputs = {name: gold[f"in.{name}"].requires_grad_() for name in ("x", *State._fields)}
    x, context = inputs["x"], Context()
    fresh, _ = mixer(x, mixer.init_state(2), context)
    y, end = mixer(x, State(*(inputs[name] for name in State._fields)), context)
    outputs = {"fresh": fresh, "y": y, "end.conv": end.conv, **{f"end.{name}": getattr(end, name) for name in "hcnm"}}
    for name, value in outputs.items():
        outside.close(value, gold[f"out.{name}"])
    leaves = ours | inputs
    for name, grad in zip(leaves, torch.autograd.grad(outside.weighted(outputs), list(leaves.values())), strict=True):
        outside.close(grad, gold[f"grad.{name}"], 1e-4)
