"""What a result carries about where it was made."""

import subprocess
import sys

import numpy as np

TOLD = "from ritornello.provenance import peak_memory; print(peak_memory())"


def test_peak_memory_is_the_processes_own():
    """A small process that a large one starts tells of itself."""
    held = np.ones(80_000_000)  # 640 MB, touched
    told = int(subprocess.run([sys.executable, "-c", TOLD], capture_output=True, text=True, check=True).stdout)
    assert 0 < told < held.nbytes / 2
