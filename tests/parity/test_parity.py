"""Our numbers beside those of outside implementations on the same weights: outputs, end states, gradients.

The golden tensors were made by flash-linear-attention 0.6.0 (its plain gated-linear-attention recurrence) and
transformers 5.23.0 (Llama); with the extra `parity` installed they are made again and compared.
"""

import importlib.util

import outside
import pytest
import torch

from ritornello.mixers.attention import Attention
from ritornello.mixers.base import Context, Place
from ritornello.mixers.hgrn2 import HGRN2, State
from ritornello.mixers.lstm import LSTM
from ritornello.mixers.lstm import State as LSTMState
from ritornello.mixers.swiglu import SwiGLU
from ritornello.model import LM, LMConfig

LLAMA = {"embed_tokens.weight": "embedding.weight", "norm.weight": "norm.weight", "lm_head.weight": "head.weight"} | {
    f"layers.{layer}.{theirs}.weight": f"blocks.{layer}.{ours}.weight"
    for layer in (0, 1)
    for theirs, ours in {
        "self_attn.q_proj": "time.q",
        "self_attn.k_proj": "time.k",
        "self_attn.v_proj": "time.v",
        "self_attn.o_proj": "time.out",
        "mlp.gate_proj": "channel.gate",
        "mlp.up_proj": "channel.up",
        "mlp.down_proj": "channel.down",
        "input_layernorm": "time_norm",
        "post_attention_layernorm": "channel_norm",
    }.items()
}


def close(found, wanted, tolerance=2e-5):
    torch.testing.assert_close(found, wanted, rtol=tolerance, atol=tolerance * float(wanted.abs().max()))


@pytest.mark.parametrize("impl", ["loop", "chunk"])
def test_hgrn2_is_gated_linear_attention_with_its_gate_equations(impl):
    """Inputs, weights, end states and gradients of two stacked mixers agree with the outside recurrence (it is float32 throughout)."""
    gold = outside.golden("hgrn2")
    layers = [HGRN2(16, HGRN2.Config(head_dim=8), Place(nth, 2, nth, 2)) for nth in (0, 1)]
    ours = {f"{nth}.{name}": getattr(layer, name).weight for nth, layer in enumerate(layers) for name in ("q", "f", "v", "out", "norm")}
    ours["rise"] = layers[0].rise
    with torch.no_grad():
        for name, weight in ours.items():
            weight.copy_(gold[f"in.{name}"])
    inputs = {name: gold[f"in.{name}"].requires_grad_() for name in ("x", "0.S", "1.S")}
    x, context, outputs = inputs["x"], Context(impl=impl), {}
    for nth, layer in enumerate(layers):
        x, state = layer(x, State(inputs[f"{nth}.S"]), context)
        outputs[f"{nth}.end"] = state.S
    outputs = {"y": x, **outputs}
    for name, value in outputs.items():
        close(value, gold[f"out.{name}"])
    leaves = ours | inputs
    for name, grad in zip(leaves, torch.autograd.grad(outside.weighted(outputs), list(leaves.values())), strict=True):
        close(grad, gold[f"grad.{name}"], 1e-4)


def llama() -> tuple[LM, dict]:
    gold = outside.golden("llama")
    mixers = {"attention": Attention.Config(head_dim=8), "swiglu": SwiGLU.Config(hidden=24)}
    model = LM(LMConfig(vocab=40, dim=16, layers=("attention",) * 2, mixers=mixers, tied=False))
    theirs = {name.removeprefix("in.").removeprefix("model."): tensor for name, tensor in gold.items() if name.startswith("in.")}
    model.load_state_dict({LLAMA[name]: tensor for name, tensor in theirs.items()})
    return model, gold


def test_llama_is_transformers():
    model, gold = llama()
    logits, _ = model(gold["tokens"], model.init_state(2))
    close(logits, gold["out.logits"])
    weights = dict(model.named_parameters())
    grads = dict(zip(weights, torch.autograd.grad(outside.weighted({"logits": logits}), list(weights.values())), strict=True))
    for theirs, ours in LLAMA.items():
        prefix = "grad." if theirs == "lm_head.weight" else "grad.model."
        close(grads[ours], gold[prefix + theirs], 1e-4)


def test_llama_token_by_token_is_transformers():
    """Decoding through the growing state gives the outside model's whole-text logits."""
    model, gold = llama()
    state, got = model.init_state(2), []
    for token in gold["tokens"].split(1, 1):
        logits, state = model(token, state)
        got.append(logits)
    close(torch.cat(got, 1), gold["out.logits"])


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


@pytest.mark.parity
@pytest.mark.parametrize("name", sorted(outside.MADE))
def test_the_golden_tensors_are_what_the_outside_makes(name):
    for package in ("transformers", "fla"):
        if importlib.util.find_spec(package) is None:
            pytest.skip("needs the extra `parity`")
    made, gold = outside.MADE[name](), outside.golden(name)
    assert set(made) == set(gold)
    for key, value in made.items():
        close(value, gold[key], 1e-5) if value.is_floating_point() else torch.testing.assert_close(value, gold[key])
