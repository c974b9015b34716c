"""Mamba-2, `transformers`' own block."""

import outside
import torch
from torch import Tensor

PACKAGES = ("transformers",)


def mamba2() -> dict[str, Tensor]:
    """One block (D = 12, 4 heads of 6 in 2 groups, state 5) on 23 tokens, again with the last two by its cache, again with limited steps.

    Its cached step, unlike its whole pass, does not limit the steps: the cache is made without a limit.
    """
    import transformers
    from transformers.models.mamba2.modeling_mamba2 import Mamba2Mixer

    config = transformers.Mamba2Config(
        hidden_size=12, num_heads=4, head_dim=6, state_size=5, n_groups=2, conv_kernel=4, chunk_size=8, use_bias=True,
        num_hidden_layers=1,
    )  # fmt: skip
    generator = torch.Generator().manual_seed(5)
    block = Mamba2Mixer(config, 0).eval()
    with torch.no_grad():
        for weight in block.parameters():
            weight.copy_(torch.randn(weight.shape, generator=generator) * 0.6)
    x = torch.randn(2, 23, 12, generator=generator).requires_grad_()
    leaves = {"x": x, **dict(block.named_parameters())}
    made = outside.with_gradients(leaves, {"y": block(x)})
    cache = transformers.DynamicCache(config=config)
    with torch.no_grad():
        block(x[:, :21], cache_params=cache)
        made["out.h"] = cache.get_recurrent_state(0).clone()
        made["out.past"] = cache.get_conv_state(0).clone()
        made["out.steps"] = torch.cat([block(x[:, t : t + 1], cache_params=cache) for t in (21, 22)], 1)
        block.time_step_limit = (0.1, 2.0)
        made["out.limited"] = block(x)
    return made


MADE = {"mamba2": mamba2}
