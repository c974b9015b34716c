"""Outside implementations, run on given weights, make the golden tensors beside this file.

Each make_NAME.py has PACKAGES, the distributions it needs, and MADE, functions by the name of the file they fill;
a function returns tensors named in.*, out.*, grad.* (see `with_gradients`).

python tests/parity/outside.py [NAME ...]        writes golden/*.safetensors anew (extra: parity)
"""

import importlib
import importlib.metadata
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

HERE = Path(__file__).parent
GOLDEN = HERE / "golden"


def naive(op: str, file: str = "naive") -> ModuleType:
    """A plain recurrence of flash-linear-attention, loaded by its path: the package itself needs triton."""
    name = f"fla/ops/{op}/{file}.py"
    path = next(found.locate() for found in importlib.metadata.files("fla-core") or [] if str(found) == name)
    spec = importlib.util.spec_from_file_location(f"{op}_{file}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def with_gradients(leaves: dict[str, Tensor], outputs: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a golden file: what went in, what came out, and the gradients of `weighted(outputs)`."""
    grads = torch.autograd.grad(weighted(outputs), list(leaves.values()))
    tensors = {f"in.{name}": leaf for name, leaf in leaves.items()}
    tensors |= {f"out.{name}": value for name, value in outputs.items()}
    tensors |= {f"grad.{name}": grad for name, grad in zip(leaves, grads, strict=True)}
    return {name: tensor.detach().clone().contiguous() for name, tensor in tensors.items()}


def weighted(outputs: dict[str, Tensor]) -> Tensor:
    """The number whose gradients are compared: every entry of every output weighs differently."""
    return sum((value * torch.linspace(-1, 1, value.numel(), dtype=value.dtype).view(value.shape)).sum() for value in outputs.values())


def makers() -> dict[str, tuple[Callable[[], dict[str, Tensor]], tuple[str, ...]]]:
    """Every golden file: the function that makes it, and the distributions that function needs."""
    modules = [importlib.import_module(path.stem) for path in sorted(HERE.glob("make_*.py"))]
    return {name: (make, module.PACKAGES) for module in modules for name, make in module.MADE.items()}


def golden(name: str) -> dict[str, Tensor]:
    return load_file(GOLDEN / f"{name}.safetensors")


def close(found: Tensor, wanted: Tensor, tolerance: float = 2e-5) -> None:
    """Equal to `tolerance`, relative and as a share of the largest entry."""
    torch.testing.assert_close(found, wanted, rtol=tolerance, atol=tolerance * float(wanted.abs().max()))


def copied(module: torch.nn.Module, gold: dict[str, Tensor]) -> dict[str, Tensor]:
    """A module's parameters by name, filled with the golden tensors of the same names."""
    with torch.no_grad():
        for name, weight in module.named_parameters():
            weight.copy_(gold[f"in.{name}"])
    return dict(module.named_parameters())


def agree(leaves: dict[str, Tensor], outputs: dict[str, Tensor], gold: dict[str, Tensor]) -> None:
    """Every output and every gradient of `weighted(outputs)` is the golden one."""
    for name, value in outputs.items():
        close(value, gold[f"out.{name}"])
    for name, grad in zip(leaves, torch.autograd.grad(weighted(outputs), list(leaves.values())), strict=True):
        close(grad, gold[f"grad.{name}"], 1e-4)


if __name__ == "__main__":
    GOLDEN.mkdir(exist_ok=True)
    for name, (make, packages) in makers().items():
        if sys.argv[1:] and name not in sys.argv[1:]:
            continue
        versions = {package: importlib.metadata.version(package) for package in ("torch", *packages)}
        save_file(make(), GOLDEN / f"{name}.safetensors", metadata=versions)
        print(name, versions)
