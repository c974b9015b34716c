"""RecurrentGemma's recurrent block, `transformers`' own: a text from its start, then token by token from its cache."""

import outside
import torch
from torch import Tensor

PACKAGES = ("transformers",)


def rglru() -> dict[str, Tensor]:
    """One block (D = 16, recurrence of 24 in 4 gate blocks) over 33 tokens at once and 4 more one by one."""
    import transformers
    from transformers.models.recurrent_gemma.modeling_recurrent_gemma import RecurrentGemmaRecurrentBlock

    config = transformers.RecurrentGemmaConfig(hidden_size=16, lru_width=24, num_attention_heads=4, num_key_value_heads=1)
    generator = torch.Generator().manual_seed(3)
    block = RecurrentGemmaRecurrentBlock(config, 0)
    with torch.no_grad():
        for weight in block.parameters():
            weight.copy_(torch.randn(weight.shape, generator=generator) * 0.5)
        block.rg_lru.recurrent_param -= 3  # decays that remember for some ten tokens
    x = torch.randn(2, 37, 16, generator=generator).requires_grad_()
    cuts = [33, 1, 1, 1, 1]
    pieces = [block(part, at, None)[0] for part, at in zip(x.split(cuts, 1), torch.arange(37)[None].split(cuts, 1), strict=True)]
    outputs = {"y": torch.cat(pieces, 1), "end.h": block.rg_lru.recurrent_states, "end.conv": block.conv1d_state.mT}
    return outside.with_gradients({"x": x, **dict(block.named_parameters())}, outputs)


MADE = {"rglru": rglru}
