"""RecurrentGemma's local attention, `transformers`' own."""

import outside
import torch
from torch import Tensor

PACKAGES = ("transformers",)


def window() -> dict[str, Tensor]:
    """One attention block (D = 16, 4 heads of 4 on one of keys and values, window 7) over 23 tokens, masked as its model does."""
    import transformers
    from transformers.masking_utils import create_sliding_window_causal_mask
    from transformers.models.recurrent_gemma.modeling_recurrent_gemma import RecurrentGemmaAttention

    config = transformers.RecurrentGemmaConfig(
        hidden_size=16, num_attention_heads=4, num_key_value_heads=1, attention_window_size=7, attn_implementation="eager"
    )
    generator = torch.Generator().manual_seed(4)
    block = RecurrentGemmaAttention(config, 0)
    with torch.no_grad():
        for weight in block.parameters():
            weight.copy_(torch.randn(weight.shape, generator=generator) * 0.5)
    x = torch.randn(2, 23, 16, generator=generator).requires_grad_()
    position = torch.arange(23)[None]
    mask = create_sliding_window_causal_mask(config, x, None, None, position)
    y, _ = block(x, position, mask)
    return outside.with_gradients({"x": x, **dict(block.named_parameters())}, {"y": y})


MADE = {"window": window}
