"""mLSTM, the block of the authors' package on its native path."""

import outside
import torch
from torch import Tensor

PACKAGES = ("xlstm",)


def mlstm() -> dict[str, Tensor]:
    """One layer (D = 8, 2 heads of 8, convolution 4) on 23 tokens. Values are small, so that the norm does not undo every scale.

    The cell's end state is taken from its recurrent form, fed token by token. That form starts its running maximum at 0 and so needs a
    first write above 1 to agree with the parallel one: the input gates' biases see to it.
    """
    from xlstm.blocks.mlstm.layer import mLSTMLayer, mLSTMLayerConfig

    layer = mLSTMLayer(mLSTMLayerConfig(num_heads=2, embedding_dim=8, context_length=23, round_proj_up_to_multiple_of=16))
    generator = torch.Generator().manual_seed(6)
    with torch.no_grad():
        for weight in layer.parameters():
            weight.copy_(torch.randn(weight.shape, generator=generator) * 0.5)
        layer.mlstm_cell.igate.bias.fill_(1)
        layer.v_proj.weight.mul_(0.02)
    x = torch.randn(2, 23, 8, generator=generator).requires_grad_()
    made = outside.with_gradients({"x": x, **dict(layer.named_parameters())}, {"y": layer(x)})
    with torch.no_grad():
        memory, steps = {}, []
        for token in x.split(1, 1):
            y, memory = layer.step(token, **memory)
            steps.append(y)
    torch.testing.assert_close(torch.cat(steps, 1), made["out.y"], rtol=1e-4, atol=1e-4)
    C, n, m = memory["mlstm_state"]
    made |= {"out.C": C, "out.n": n[..., 0], "out.m": m[..., 0, 0], "out.past": memory["conv_state"][0]}
    return {name: tensor.detach().clone().contiguous() for name, tensor in made.items()}


MADE = {"mlstm": mlstm}
