"""LLaMA, `transformers`' own."""

import outside
import torch
from torch import Tensor

PACKAGES = ("transformers",)


def llama(**settings) -> dict[str, Tensor]:
    """A LLaMA of two layers (D = 16, 2 heads, 40 tokens known), `transformers`' own."""
    import transformers

    torch.manual_seed(2)
    shape = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "vocab_size": 40} | settings
    config = transformers.LlamaConfig(
        **shape, rms_norm_eps=1e-6, initializer_range=0.3, tie_word_embeddings=False, max_position_embeddings=64
    )
    model = transformers.LlamaForCausalLM(config)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name.endswith("bias"):
                weight.normal_()
    leaves = dict(model.named_parameters())
    tokens = torch.randint(0, 40, (2, 33), generator=torch.Generator().manual_seed(3))
    result = outside.with_gradients(leaves, {"logits": model(tokens).logits})
    return result | {"tokens": tokens}


def llama_grouped() -> dict[str, Tensor]:
    """The same with 4 heads that read 2 of keys and values, and biases on the attention's maps."""
    return llama(num_attention_heads=4, num_key_value_heads=2, attention_bias=True)


MADE = {"llama": llama, "llama_grouped": llama_grouped}
