"""HGRN2 as a whole language model: the recurrence flash-linear-attention's, the rest of its model written out, by its names."""

import json

import outside
import torch
from torch import Tensor

PACKAGES = ("fla-core",)
TABLE = {  # of fla 0.6.0's HGRN2Config
    "architectures": ["HGRN2ForCausalLM"], "attn": None, "attn_mode": "chunk", "attnres_block_size": None, "bos_token_id": 1,
    "conv_size": 4,
    "elementwise_affine": True, "eos_token_id": 2, "expand_ratio": 8, "fuse_cross_entropy": True, "fuse_linear_cross_entropy": False,
    "fuse_norm": True, "fuse_swiglu": True, "hidden_act": "swish", "hidden_ratio": 4, "hidden_size": 16, "initializer_range": 0.02,
    "intermediate_size": 24, "max_position_embeddings": 2048, "model_type": "hgrn2", "norm_eps": 1e-6, "num_heads": 2,
    "num_hidden_layers": 2, "pad_token_id": None, "tie_word_embeddings": False, "use_cache": True, "use_l2warp": False,
    "use_lower_bound": True, "use_short_conv": False, "vocab_size": 260,
}  # fmt: skip


def norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    return x / (x.square().mean(-1, keepdim=True) + eps).sqrt() * weight


def hf_hgrn2() -> dict[str, Tensor]:
    """in.* weights by their names, in.tokens (1, 12), out.logits, and the bytes of config.json."""
    generator = torch.Generator().manual_seed(9)
    shapes = {"model.embeddings.weight": (260, 16), "model.lower_bounds": (2, 16), "model.norm.weight": (16,), "lm_head.weight": (260, 16)}
    for layer in (0, 1):
        at = f"model.layers.{layer}."
        shapes |= {f"{at}attn.{name}_proj.weight": (16, 16) for name in "qfio"}
        shapes |= {f"{at}{name}.weight": (16,) for name in ("attn_norm", "attn.g_norm", "mlp_norm")}
        shapes |= {f"{at}mlp.{name}_proj.weight": (24, 16) for name in ("gate", "up")} | {f"{at}mlp.down_proj.weight": (16, 24)}
    w = {name: torch.randn(shape, generator=generator) * 0.3 + (len(shape) == 1) for name, shape in shapes.items()}
    tokens = torch.randint(0, 260, (1, 12), generator=generator)
    recur, x = outside.naive("gla").naive_recurrent_gla, w["model.embeddings.weight"][tokens]
    floors = [torch.zeros(16), torch.softmax(w["model.lower_bounds"], 0)[1]]
    for layer in (0, 1):
        part = {name.removeprefix(f"model.layers.{layer}."): weight for name, weight in w.items()}
        u = norm(x, part["attn_norm.weight"], 1e-6)
        q, f, i = (u @ part[f"attn.{name}_proj.weight"].T for name in "qfi")
        f = floors[layer] + (1 - floors[layer]) * torch.sigmoid(f)
        heads = (each.unflatten(-1, (2, 8)) for each in (torch.nn.functional.silu(q), 1 - f, i, f.log()))
        y = norm(recur(*heads)[0].flatten(-2), part["attn.g_norm.weight"], 1e-5)  # rms_norm_linear's own epsilon
        x = x + y @ part["attn.o_proj.weight"].T
        u = norm(x, part["mlp_norm.weight"], 1e-6)
        x = (
            x
            + (torch.nn.functional.silu(u @ part["mlp.gate_proj.weight"].T) * (u @ part["mlp.up_proj.weight"].T))
            @ part["mlp.down_proj.weight"].T
        )
    logits = norm(x, w["model.norm.weight"], 1e-6) @ w["lm_head.weight"].T
    table = torch.tensor(list(json.dumps(TABLE).encode()), dtype=torch.uint8)
    return {f"in.{name}": weight for name, weight in w.items()} | {"in.tokens": tokens, "out.logits": logits, "config": table}


MADE = {"hf_hgrn2": hf_hgrn2}
