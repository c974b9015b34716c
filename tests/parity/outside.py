"""Outside implementations, run on our weights. They make the golden tensors beside this file.

python tests/parity/outside.py        writes golden/*.safetensors anew (extra: parity)
"""

import importlib.metadata
import importlib.util
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

GOLDEN = Path(__file__).with_name("golden")


def gla_naive():
    """flash-linear-attention's plain recurrence, loaded by its path: the package itself needs triton."""
    files = importlib.metadata.files("fla-core") or []
    path = next(file.locate() for file in files if str(file) == "fla/ops/gla/naive.py")
    spec = importlib.util.spec_from_file_location("gla_naive", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.naive_recurrent_gla


def hgrn2() -> dict[str, Tensor]:
    """Two HGRN2 mixers in a row (D = 16, 2 heads): the gate equations written out, the recurrence flash-linear-attention's."""
    generator = torch.Generator().manual_seed(1)
    w = {f"{layer}.{name}": torch.randn(16, 16, generator=generator) * 0.4 for layer in (0, 1) for name in ("q", "f", "v", "out")}
    w |= {f"{layer}.norm": 1 + torch.randn(16, generator=generator) * 0.2 for layer in (0, 1)}
    w |= {"rise": torch.randn(2, 16, generator=generator), "x": torch.randn(2, 37, 16, generator=generator)}
    w |= {f"{layer}.S": torch.randn(2, 2, 8, 8, generator=generator) for layer in (0, 1)}
    leaves = {name: tensor.requires_grad_() for name, tensor in w.items()}
    recur = gla_naive()
    share = torch.softmax(leaves["rise"], 0)
    floors = [torch.zeros(16), share[1]]
    x, out = leaves["x"], {}
    for layer in (0, 1):
        q = torch.nn.functional.silu(x @ leaves[f"{layer}.q"].T)
        raw = torch.nn.functional.logsigmoid(x @ leaves[f"{layer}.f"].T)
        g = raw if layer == 0 else torch.logaddexp(floors[1].log(), torch.log1p(-floors[1]) + raw)
        v = x @ leaves[f"{layer}.v"].T
        heads = (tensor.unflatten(-1, (2, 8)) for tensor in (q, 1 - g.exp(), v, g))
        y, S = recur(*heads, initial_state=leaves[f"{layer}.S"], output_final_state=True)
        y = y.flatten(-2)
        y = y / (y.square().mean(-1, keepdim=True) + 1e-6).sqrt() * leaves[f"{layer}.norm"]
        x = y @ leaves[f"{layer}.out"].T
        out[f"{layer}.end"] = S
    return _with_gradients(leaves, {"y": x, **out})


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
    result = _with_gradients(leaves, {"logits": model(tokens).logits})
    return result | {"tokens": tokens}


def _with_gradients(leaves: dict[str, Tensor], outputs: dict[str, Tensor]) -> dict[str, Tensor]:
    grads = torch.autograd.grad(weighted(outputs), list(leaves.values()))
    tensors = {f"in.{name}": leaf for name, leaf in leaves.items()}
    tensors |= {f"out.{name}": value for name, value in outputs.items()}
    tensors |= {f"grad.{name}": grad for name, grad in zip(leaves, grads, strict=True)}
    return {name: tensor.detach().clone().contiguous() for name, tensor in tensors.items()}


def weighted(outputs: dict[str, Tensor]) -> Tensor:
    """The number whose gradients are compared: every entry of every output weighs differently."""
    return sum((value * torch.linspace(-1, 1, value.numel(), dtype=value.dtype).view(value.shape)).sum() for value in outputs.values())


MADE = {"hgrn2": hgrn2, "llama": llama}


def golden(name: str) -> dict[str, Tensor]:
    return load_file(GOLDEN / f"{name}.safetensors")


if __name__ == "__main__":
    GOLDEN.mkdir(exist_ok=True)
    versions = {name: importlib.metadata.version(name) for name in ("torch", "transformers", "fla-core")}
    for name, make in MADE.items():
        save_file(make(), GOLDEN / f"{name}.safetensors", metadata=versions)
        print(name, versions)
