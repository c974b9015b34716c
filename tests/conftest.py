"""What all tests share: one thread, the data folder, and states compared up to left padding."""

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# Before torch: threads that wait soon give way; else a test on two of them takes a hundred times as long beside other work.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")
import torch

settings.register_profile("here", deadline=None, max_examples=20, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("here")

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(autouse=True)
def one_thread():
    """Small tensors on a shared machine run best on one thread, and the seed is fixed."""
    torch.set_num_threads(1)
    torch.manual_seed(0)


@pytest.fixture
def real_data() -> Path:
    """The folder of real corpora; the test is skipped where there is none."""
    folder = Path(os.environ.get("RITORNELLO_DATA", ROOT / "../shared/data"))
    if not folder.is_dir():
        pytest.skip("no real data: set RITORNELLO_DATA to its folder")
    return folder
