"""The kernels under the address and undefined-behaviour sanitizers, in a C++ program of their own beside plain loops."""

import subprocess
from pathlib import Path

import pytest

from ritornello._native import library

DRIVER = Path(__file__).with_name("driver.cpp")
CHECKS = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-D_GLIBCXX_ASSERTIONS", "-std=c++17", "-O1", "-g")


@pytest.fixture(scope="module")
def compiler(tmp_path_factory) -> str:
    """A compiler whose sanitizers work."""
    found = library.compiler()
    if found is None:
        pytest.skip("no C++ compiler found")
    folder = tmp_path_factory.mktemp("probe")
    (folder / "probe.cpp").write_text("int main() { return 0; }\n", encoding="utf-8")
    made = subprocess.run([found, *CHECKS, str(folder / "probe.cpp"), "-o", str(folder / "probe")], capture_output=True, check=False)
    if made.returncode or subprocess.run([str(folder / "probe")], capture_output=True, check=False).returncode:
        pytest.skip(f"{found} has no sanitizers")
    return found


NAMES = list(library.ISAS)
HERE = [name for name in NAMES if NAMES.index(name) >= NAMES.index(library.instruction_set())]  # what this processor has


@pytest.mark.parametrize("isa", [HERE[0], *(pytest.param(name, marks=pytest.mark.slow) for name in HERE[1:-1]), "base"])
def test_no_kernel_reads_or_writes_beside_its_buffers(isa, compiler, tmp_path):
    """And each agrees with its formula. The instruction sets' tiles differ: widest and narrowest here, the rest where there is time."""
    driver, options = tmp_path / "driver", (library.OPENMP, *library._options(isa))
    sources = [str(path) for path in (DRIVER, *library._sources())]
    made = subprocess.run([compiler, *CHECKS, *options, *sources, "-o", str(driver)], capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stderr
    done = subprocess.run([str(driver)], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "comparisons, 0 failures" in done.stdout
