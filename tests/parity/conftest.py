"""`pytest tests/parity --errors FILE` keeps the largest error of every comparison, for the table of mixers."""

import json
from pathlib import Path

import pytest
import torch


def pytest_addoption(parser):
    parser.addoption("--errors", type=Path, help="append each parity test's largest relative error to this JSON-lines file")


@pytest.fixture(autouse=True)
def kept_errors(request, monkeypatch):
    """An error is the norm of a difference over the norm of what was wanted."""
    path, plain, errors = request.config.getoption("--errors", None), torch.testing.assert_close, []
    if path is None:
        yield
        return

    def compare(found, wanted, **options):
        plain(found, wanted, **options)
        if isinstance(wanted, torch.Tensor) and wanted.is_floating_point() and wanted.numel():
            difference = (found.detach().double() - wanted.detach().double()).norm()
            errors.append(float(difference / wanted.detach().double().norm().clamp_min(1e-30)))

    monkeypatch.setattr(torch.testing, "assert_close", compare)
    yield
    if errors:
        line = {"file": request.path.name, "test": request.node.name, "comparisons": len(errors), "error": max(errors)}
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
