"""The golden tensors are what the outside implementations make; with the extra `parity` they are made again and compared."""

import importlib.metadata

import outside
import pytest
import torch


@pytest.mark.parity
@pytest.mark.parametrize("name", sorted(outside.makers()))
def test_the_golden_tensors_are_what_the_outside_makes(name):
    make, packages = outside.makers()[name]
    for package in packages:
        try:
            importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            pytest.skip(f"{package} is not installed; it comes with the extra `parity`")
    made, gold = make(), outside.golden(name)
    assert set(made) == set(gold)
    for key, value in made.items():
        outside.close(value, gold[key], 1e-5) if value.is_floating_point() else torch.testing.assert_close(value, gold[key])


def test_golden_tensors_are_small():
    assert {path.stem for path in outside.GOLDEN.glob("*.safetensors")} == set(outside.makers())
    assert max(path.stat().st_size for path in outside.GOLDEN.glob("*.safetensors")) < 200_000
