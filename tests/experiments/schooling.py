"""What tests of teaching share: settings of small runs, and short words for what they leave."""

from pathlib import Path

import torch

from ritornello import cli, folder
from ritornello.config import from_dict
from ritornello.experiments.console import Console
from ritornello.experiments.material import Material, gather_again
from ritornello.experiments.settings import RunConfig

SMALL = {"batch": 4, "length": 32, "dim": 32, "layers": 2, "evaluate": {"validations": 1, "sample_tokens": 5, "ngram_tokens": 2000}}
LESS = ["evaluate.validations=1", "evaluate.sample_tokens=5", "evaluate.ngram_tokens=2000", "--quiet"]
QUIET = Console(quiet=True)


def main(capsys, *words) -> tuple[int, str, str]:
    code = cli.main([str(word) for word in words])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def config(path) -> RunConfig:
    return from_dict(RunConfig, folder.read_config(Path(path)))


def weights(path) -> dict[str, torch.Tensor]:
    return folder.read_tensors(Path(path) / "model.safetensors")[0]


def same(left, right) -> bool:
    a, b = weights(left), weights(right)
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def material(path="teacher") -> Material:
    return gather_again(Path(path), config(path), QUIET)
