"""Attention, SwiGLU and the model around them beside transformers 5.23.0's Llama, on the same weights."""

import outside
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
    outside.close(logits, gold["out.logits"])
    weights = dict(model.named_parameters())
    grads = dict(zip(weights, torch.autograd.grad(outside.weighted({"logits": logits}), list(weights.values())), strict=True))
    for theirs, ours in LLAMA.items():
        prefix = "grad." if theirs == "lm_head.weight" else "grad.model."
        outside.close(grads[ours], gold[prefix + theirs], 1e-4)


def test_llama_token_by_token_is_transformers():
    """Decoding through the growing state gives the outside model's whole-text logits."""
    model, gold = llama()
    state, got = model.init_state(2), []
    for token in gold["tokens"].split(1, 1):
        logits, state = model(token, state)
        got.append(logits)
    outside.close(torch.cat(got, 1), gold["out.logits"])
