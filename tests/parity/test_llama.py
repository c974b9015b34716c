"""Attention, SwiGLU and the model around them beside transformers 5.23.0's Llama, on the same weights."""

import outside
import pytest
import torch

from ritornello.mixers.attention import Attention
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


# each golden file with the attention it is of
SETTINGS = {"llama": Attention.Config(head_dim=8), "llama_grouped": Attention.Config(head_dim=4, kv_heads=2, bias=True)}
either = pytest.mark.parametrize("name", SETTINGS)


def ours(theirs: str) -> str:
    """Our name of a weight of theirs."""
    module, kind = theirs.removeprefix("model.").rsplit(".", 1)
    return LLAMA[f"{module}.weight"].removesuffix("weight") + kind


def llama(name: str) -> tuple[LM, dict]:
    gold = outside.golden(name)
    mixers = {"attention": SETTINGS[name], "swiglu": SwiGLU.Config(hidden=24)}
    model = LM(LMConfig(vocab=40, dim=16, layers=("attention",) * 2, mixers=mixers, tied=False))
    model.load_state_dict({ours(key.removeprefix("in.")): tensor for key, tensor in gold.items() if key.startswith("in.")})
    return model, gold


@either
def test_llama_is_transformers(name):
    model, gold = llama(name)
    logits, _ = model(gold["tokens"], model.init_state(2))
    outside.close(logits, gold["out.logits"])
    weights = dict(model.named_parameters())
    grads = dict(zip(weights, torch.autograd.grad(outside.weighted({"logits": logits}), list(weights.values())), strict=True))
    for key, wanted in gold.items():
        if key.startswith("grad."):
            outside.close(grads[ours(key.removeprefix("grad."))], wanted, 1e-4)


@either
def test_llama_token_by_token_is_transformers(name):
    """Decoding through the growing state gives the outside model's whole-text logits."""
    model, gold = llama(name)
    state, got = model.init_state(2), []
    for token in gold["tokens"].split(1, 1):
        logits, state = model(token, state)
        got.append(logits)
    outside.close(torch.cat(got, 1), gold["out.logits"])
