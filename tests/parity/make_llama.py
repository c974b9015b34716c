"""LLaMA, `transformers`' own."""

import outside
import torch
from torch import Tensor

PACKAGES = ("transformers",)


def llama() -> dict[str, Tensor]:
    """A LLaMA of two layers (D = 16, 2 heads, 40 tokens known), `transformers`' own."""
    import transformers

    torch.manual_seed(2)
    config = transformers.LlamaConfig(
        vocab_size=40,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        rms_norm_eps=1e-6,
        initializer_range=0.3,
        tie_word_embeddings=False,
        max_position_embeddings=64,
    )
    model = transformers.LlamaForCausalLM(config)
    leaves = dict(model.named_parameters())
    tokens = torch.randint(0, 40, (2, 33), generator=torch.Generator().manual_seed(3))
    result = outside.with_gradients(leaves, {"logits": model(tokens).logits})
    return result | {"tokens": tokens}


MADE = {"llama": llama}
