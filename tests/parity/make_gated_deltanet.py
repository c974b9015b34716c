"""Gated DeltaNet: flash-linear-attention's recurrence with the layer's equations written out here, and `transformers`' own block."""

import outside
import torch
from torch import Tensor
from torch.nn.functional import conv1d, silu, softplus

PACKAGES = ("fla-core", "transformers")


def gated_deltanet() -> dict[str, Tensor]:
    """One mixer (D = 16, 2 heads, keys of 4, values of 8, beta up to 2) on 37 tokens from a warm state."""
    generator = torch.Generator().manual_seed(5)
    shapes = {"q": (8, 16), "k": (8, 16), "v": (16, 16), "gate": (16, 16), "out": (16, 16), "beta": (2, 16), "a": (2, 16), "norm": (8,)}
    leaves = {f"{name}.weight": torch.randn(shape, generator=generator) * 0.4 for name, shape in shapes.items()}
    shapes = {"A_log": (2,), "dt_bias": (2,), "conv.weight": (32, 1, 4), "past": (2, 3, 32), "x": (2, 37, 16), "S": (2, 2, 4, 8)}
    leaves |= {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    for leaf in leaves.values():
        leaf.requires_grad_()
    x = leaves["x"]
    mixed = torch.cat([leaves["past"], torch.cat([x @ leaves[f"{name}.weight"].T for name in "qkv"], -1)], 1)
    mixed = silu(conv1d(mixed.mT, leaves["conv.weight"], groups=32).mT)
    q, k, v = (each.unflatten(-1, (2, -1)) for each in mixed.split([8, 8, 16], -1))
    q, k = (each / (each.square().sum(-1, keepdim=True) + 1e-6).sqrt() for each in (q, k))
    beta, a = 2 * torch.sigmoid(x @ leaves["beta.weight"].T), x @ leaves["a.weight"].T
    g = -leaves["A_log"].exp() * softplus(a + leaves["dt_bias"])
    recur = outside.naive("gated_delta_rule").naive_recurrent_gated_delta_rule
    y, S = recur(q, k, v, beta, g, initial_state=leaves["S"], output_final_state=True)
    y = y / (y.square().mean(-1, keepdim=True) + 1e-5).sqrt() * leaves["norm.weight"]
    y = y.flatten(-2) * silu(x @ leaves["gate.weight"].T)
    return outside.with_gradients(leaves, {"y": y @ leaves["out.weight"].T, "end": S})


def gated_deltanet_qwen3() -> dict[str, Tensor]:
    """`transformers`' Qwen3-Next block (D = 16, 2 heads, keys of 4, values of 8): outputs, end state, gradients, decoding by its cache."""
    import transformers
    from transformers.models.qwen3_next.modeling_qwen3_next import Qwen3NextGatedDeltaNet

    config = transformers.Qwen3NextConfig(
        hidden_size=16,
        num_hidden_layers=1,
        layer_types=["linear_attention"],
        linear_num_key_heads=2,
        linear_num_value_heads=2,
        linear_key_head_dim=4,
        linear_value_head_dim=8,
        rms_norm_eps=1e-5,
    )
    block, generator = Qwen3NextGatedDeltaNet(config, 0), torch.Generator().manual_seed(6)
    with torch.no_grad():
        for weight in block.parameters():
            weight.copy_(torch.randn(weight.shape, generator=generator) * (0.4 if weight.dim() > 1 else 1))
    x = torch.randn(2, 37, 16, generator=generator).requires_grad_()
    cache = transformers.DynamicCache(config=config)
    whole = block(x, cache_params=cache)
    tensors = outside.with_gradients({"x": x, **dict(block.named_parameters())}, {"y": whole, "end": cache.get_recurrent_state(0)})
    cache, outputs = transformers.DynamicCache(config=config), []
    with torch.no_grad():
        for piece in x.split([5, *[1] * 32], 1):
            outputs.append(block(piece, cache_params=cache))
    return tensors | {"decoded": torch.cat(outputs, 1)}


MADE = {"gated_deltanet": gated_deltanet, "gated_deltanet_qwen3": gated_deltanet_qwen3}
