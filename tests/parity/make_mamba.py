"""Mamba's block, `transformers`' own and mambapy's, each decoding token by token too."""

import outside
import torch
from torch import Tensor, nn

PACKAGES = ("transformers", "mambapy")


def filled(block: nn.Module) -> nn.Module:
    """Weights large enough that every path matters; step sizes and decays stay positive and moderate."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for weight in block.parameters():
            weight.copy_(torch.randn(weight.shape, generator=generator) * 0.4)
    return block


def text() -> Tensor:
    return torch.randn(2, 37, 16, generator=torch.Generator().manual_seed(6)).requires_grad_()


def mamba() -> dict[str, Tensor]:
    """`transformers`' (D = 16, N = 4, biases everywhere): outputs, gradients, the end state, and the outputs of decoding by its cache."""
    import transformers
    from transformers.models.mamba.modeling_mamba import MambaMixer

    config = transformers.MambaConfig(hidden_size=16, state_size=4, num_hidden_layers=1, use_bias=True, use_conv_bias=True)
    block, x = filled(MambaMixer(config, 0)), text()
    cache = transformers.DynamicCache(config=config)
    whole = block(x, cache_params=cache)
    tensors = outside.with_gradients({"x": x, **dict(block.named_parameters())}, {"y": whole, "h": cache.get_recurrent_state(0)})
    cache, outputs = transformers.DynamicCache(config=config), []
    with torch.no_grad():
        for piece in x.split([5, *[1] * 32], 1):
            outputs.append(block(piece, cache_params=cache))
    return tensors | {"decoded": torch.cat(outputs, 1)}


def mamba_mambapy() -> dict[str, Tensor]:
    """mambapy's (D = 16, N = 4, only the convolution has a bias): outputs and gradients of its parallel scan; its steps."""
    from mambapy.mamba import MambaBlock, MambaConfig

    block, x = filled(MambaBlock(MambaConfig(d_model=16, n_layers=1, d_state=4))), text()
    tensors = outside.with_gradients({"x": x, **dict(block.named_parameters())}, {"y": block(x)})
    cache, outputs = (torch.zeros(2, 32, 4), torch.zeros(2, 32, 3)), []
    with torch.no_grad():
        for token in x.unbind(1):
            y, cache = block.step(token, cache)
            outputs.append(y)
    return tensors | {"decoded": torch.stack(outputs, 1), "end.h": cache[0], "end.conv": cache[1].contiguous()}


MADE = {"mamba": mamba, "mamba_mambapy": mamba_mambapy}
