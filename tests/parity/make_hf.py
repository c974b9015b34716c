"""Whole language models of `transformers` with random weights, in the layouts of its files."""

import json

import torch
from torch import Tensor

PACKAGES = ("transformers",)
SIZES = {"vocab_size": 260, "num_hidden_layers": 3}
MODELS = {
    "llama": {"hidden_size": 16, "intermediate_size": 24, "num_attention_heads": 4, "num_key_value_heads": 2, "rms_norm_eps": 1e-5},
    "mamba": {"hidden_size": 16, "state_size": 4, "num_hidden_layers": 2},
    "mamba2": {"hidden_size": 16, "state_size": 4, "num_heads": 4, "head_dim": 8, "n_groups": 2, "time_step_limit": (0.01, 1.0)},
    "rwkv": {"hidden_size": 16, "intermediate_size": 40, "num_hidden_layers": 2},
    "recurrent_gemma": {
        "hidden_size": 24, "intermediate_size": 48, "num_attention_heads": 3, "num_key_value_heads": 1, "attention_window_size": 7,
    },
}  # fmt: skip


def random_model(kind: str, settings: dict):
    """A language model of `transformers` in which no weight is a constant, float32, in eval mode."""
    import transformers

    torch.manual_seed(6)
    config = transformers.AutoConfig.for_model(kind, **SIZES | settings)
    model = transformers.AutoModelForCausalLM.from_config(config).float().eval()
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            noise = torch.randn(weight.shape, generator=generator)
            weight.copy_(weight + 0.3 * noise if weight.dim() < 2 or "A_log" in name or "time_mix" in name else 0.3 * noise)
    return model


def made(kind: str) -> dict[str, Tensor]:
    """in.* weights by their names, in.tokens (1, 12), out.logits, and the bytes of config.json."""
    model = random_model(kind, MODELS[kind])
    tokens = torch.randint(0, 260, (1, 12), generator=torch.Generator().manual_seed(8))
    with torch.no_grad():
        logits = model(tokens, use_cache=False).logits
    table = json.loads(model.config.to_json_string()) | {"architectures": [type(model).__name__]}
    table = {name: table[name] for name in sorted(table) if name != "transformers_version" and not name.startswith("_")}
    tied = model.config.tie_word_embeddings
    weights = {f"in.{name}": value.clone() for name, value in model.state_dict().items() if not (tied and name == "lm_head.weight")}
    return weights | {
        "in.tokens": tokens,
        "out.logits": logits,
        "config": torch.tensor(list(json.dumps(table).encode()), dtype=torch.uint8),
    }


MADE = {f"hf_{kind}": lambda kind=kind: made(kind) for kind in MODELS}
