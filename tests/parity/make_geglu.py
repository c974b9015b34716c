"""RecurrentGemma's feed-forward layer, `transformers`' own."""

import outside
import torch
from torch import Tensor

PACKAGES = ("transformers",)


def geglu() -> dict[str, Tensor]:
    """One layer (D = 16, 24 hidden)."""
    import transformers
    from transformers.models.recurrent_gemma.modeling_recurrent_gemma import RecurrentGemmaMlp

    generator = torch.Generator().manual_seed(8)
    block = RecurrentGemmaMlp(transformers.RecurrentGemmaConfig(hidden_size=16, intermediate_size=48))
    with torch.no_grad():
        for weight in block.parameters():
            weight.copy_(torch.randn(weight.shape, generator=generator))
    x = torch.randn(2, 5, 16, generator=generator).requires_grad_()
    return outside.with_gradients({"x": x, **dict(block.named_parameters())}, {"y": block(x)})


MADE = {"geglu": geglu}
