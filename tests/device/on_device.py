"""Run in a process of its own, since torch takes a stand-in for good: what training and scoring do on another device, as JSON.

python on_device.py LIBRARY FOLDER
"""

import copy
import json
import shutil
import sys
import types
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

NAME = "standin"
ABSENT = ("gru", "lstm", "unitary")  # the first two need fused cells, the third complex numbers, which the stand-in has not


def register(library: str) -> None:
    """Make torch know the stand-in as a device of that name."""
    torch.utils.rename_privateuse1_backend(NAME)
    module = types.SimpleNamespace(
        is_available=lambda: True,
        device_count=lambda: 1,
        current_device=lambda: 0,
        manual_seed_all=lambda seed: None,
        _is_in_bad_fork=lambda: False,
        get_amp_supported_dtype=lambda: [torch.bfloat16],
    )
    torch._register_device_module(NAME, module)
    torch.ops.load_library(library)
    torch.utils.generate_methods_for_privateuse1_backend()
    torch.__future__.set_swap_module_params_on_conversion(True)  # else weights that are tied come apart


def mixers() -> dict[str, Any]:
    """For every causal mixer: what stayed on the processor, and how far a step's loss and gradients are from the processor's."""
    from ritornello.mixers import CHANNEL, MIXERS
    from ritornello.model import LM, LMConfig

    found = {}
    for name in sorted(set(MIXERS) - CHANNEL - set(ABSENT)):
        torch.manual_seed(0)
        model = LM(LMConfig(vocab=50, dim=32, layers=(name,) * 2, dropout=0.0), "chunk")
        if not model.causal:
            continue
        nats, gradients, _ = _step(copy.deepcopy(model), "cpu")
        there, gradients_there, state = _step(copy.deepcopy(model).to(NAME), NAME)
        off = max(float((a - b).norm() / (1e-6 + a.norm())) for a, b in zip(gradients, gradients_there, strict=True))
        found[name] = {"left": state, "nats": abs(nats - there) / nats, "gradients": off}
    return found


def _step(model: nn.Module, device: str) -> tuple[float, list[Tensor], list[str]]:
    from ritornello.data.batches import Batch
    from ritornello.state import named_leaves
    from ritornello.train.losses import NextToken

    generator = torch.Generator().manual_seed(1)
    tokens = torch.randint(0, 50, (2, 24), generator=generator)
    reset = torch.rand(2, 24, generator=generator) < 0.1
    loss = NextToken(model)
    outcome = loss(Batch(tokens, tokens, reset, torch.zeros(2)).to(device), loss.init_state(2))
    outcome.nats.backward()
    left = [name for name, leaf in named_leaves(outcome.state) if leaf.device.type != device]
    return float(outcome.nats.detach()), [weight.grad.cpu() for weight in model.parameters() if weight.grad is not None], left


def lessons() -> dict[str, float]:
    """Gradients of what kept teachers and spans of bytes say, on the stand-in and on the processor: how far apart."""
    import numpy as np

    from ritornello.data.batches import Batch
    from ritornello.train.kept import Kept
    from ritornello.train.spans import Aligned

    random = np.random.default_rng(0)
    kept = Kept([], 0, 2.0, Path())
    kept.arrays = [random.integers(0, 9, (40, 3)), random.standard_normal((40, 3), np.float32), random.standard_normal(40, np.float32)]
    aligned = Aligned(random.random(40) < 0.5, random.random(40), 1.0)
    targets, places = torch.from_numpy(random.integers(0, 9, (2, 7))), torch.from_numpy(random.integers(0, 40, (2, 7)))
    batch, logits = Batch(targets, targets, None, torch.zeros(2), places), torch.from_numpy(random.standard_normal((2, 7, 9)))
    found = {}
    for name, lesson in (("kept", kept), ("aligned", aligned)):
        gradients = []
        for device in ("cpu", NAME):
            own = logits.clone().to(device).requires_grad_()
            lesson(batch.to(device), own, ())[0].backward()
            assert own.grad is not None
            gradients.append(own.grad.cpu())
        found[name] = float((gradients[0] - gradients[1]).norm() / gradients[0].norm())
    return found


def runs(folder: Path) -> dict[str, Any]:
    """A run there and one here, a student of the first, and pairs scored in both places."""
    from ritornello.cli import main
    from ritornello.folder import read_config
    from ritornello.train.loop import TrainConfig

    assert TrainConfig(steps=1).device == "cpu"
    (folder / "text.txt").write_text("The cat sits on the mat. A dog ran to the old house, and nobody saw it.\n\n" * 200, encoding="utf-8")
    (folder / "pairs.jsonl").write_text('{"sentence_good": "The cat sits.", "sentence_bad": "The cat sit."}\n' * 3, encoding="utf-8")
    sizes = {"steps": 3, "dim": 16, "layers": 1, "batch": 4, "length": 32}
    small = [*(f"--{name}={size}" for name, size in sizes.items()), "--quiet", "evaluate.ngram_tokens=2000", "evaluate.sample_tokens=4"]
    more = ["train.average.decay=0.9", "train.objective.masked.share=0.5", "model.dropout=0.1"]
    code = {}
    for name, device in (("there", NAME), ("here", "cpu")):
        code[name] = main(["run", str(folder / "text.txt"), *small, "--device", device, "--out", str(folder / name)])
    more += ["--checkpoint-every", "1"]
    code["more"] = main(["run", str(folder / "text.txt"), *small, *more, "--device", NAME, "--out", str(folder / "more")])
    for name, device in (("gone on there", NAME), ("gone on here", "cpu")):
        _cut(folder / "more", folder / name)
        code[name] = main(["resume", str(folder / name), "--device", device, "--quiet"])
    taught = ["--steps", "2", "--device", NAME, "--hints", "1", "--no-control", "--quiet", "--out", str(folder / "student")]
    code["distill"] = main(["distill", "--teacher", str(folder / "there"), *taught])
    asked = ["--pairs", str(folder / "pairs.jsonl"), "--text", str(folder / "text.txt"), "--quiet"]
    for name, device in (("scored there", NAME), ("scored here", "cpu")):
        code[name] = main(["evaluate", str(folder / "there"), *asked, "--device", device, "--out", str(folder / name)])
    return {"code": code, "device": read_config(folder / "there")["train"]["device"]}


def _cut(run: Path, to: Path) -> None:
    """A copy of a finished run as it was before its last step."""
    shutil.copytree(run, to)
    for name in ("report.html", "model.safetensors", "results.json", "checkpoints/step-00000003.safetensors"):
        (to / name).unlink()


if __name__ == "__main__":
    register(sys.argv[1])
    torch.set_num_threads(1)
    found = {"mixers": mixers(), "lessons": lessons(), "runs": runs(Path(sys.argv[2]))}
    Path(sys.argv[2], "found.json").write_text(json.dumps(found), encoding="utf-8")
