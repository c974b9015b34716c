"""Training, teaching and scoring on another device than the processor: nothing is left behind, and the numbers are the same.

No GPU is needed: a stand-in for one is compiled, see stand_in.cpp.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from ritornello._native.library import compiler
from ritornello.errors import InputError
from ritornello.experiments.machine import pick_device

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def there(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A folder of runs made on the stand-in, and what on_device.py found."""
    used = compiler()
    if used is None:
        pytest.skip("no C++ compiler")
    folder, root = tmp_path_factory.mktemp("device"), Path(torch.__file__).parent
    library = folder / "libstandin.so"
    includes = [f"-I{root / 'include'}", f"-I{root / 'include/torch/csrc/api/include'}"]
    build = [used, "-O0", "-std=c++20", "-shared", "-fPIC", *includes, str(HERE / "stand_in.cpp"), "-o", str(library), f"-L{root / 'lib'}"]
    built = subprocess.run([*build, "-ltorch", "-ltorch_cpu", "-lc10"], capture_output=True, text=True, timeout=300)
    assert built.returncode == 0, built.stderr[-2000:]
    environment = os.environ | {"RITORNELLO_CACHE": str(folder / "cache")}
    script = [sys.executable, str(HERE / "on_device.py"), str(library), str(folder)]
    ran = subprocess.run(script, capture_output=True, text=True, timeout=300, env=environment)
    assert ran.returncode == 0, ran.stderr[-3000:]
    return folder, json.loads((folder / "found.json").read_text())


def test_every_mixer_trains_there_as_here(there: tuple[Path, dict[str, Any]]) -> None:
    found = there[1]["mixers"]
    assert len(found) >= 20
    assert {"hgrn2", "mamba", "attention"} <= found.keys()
    for name, said in found.items():
        assert said["left"] == [], f"{name}: states on the processor"
        assert said["nats"] < 1e-5, name
        assert said["gradients"] < 1e-3, name


def test_what_is_kept_of_teachers_goes_to_the_device(there: tuple[Path, dict[str, Any]]) -> None:
    apart = there[1]["lessons"]
    assert apart.keys() == {"kept", "aligned"}
    assert all(0 <= each < 1e-6 for each in apart.values())


def test_a_run_there_is_a_run_here(there: tuple[Path, dict[str, Any]]) -> None:
    folder, found = there
    assert set(found["runs"]["code"].values()) == {0}
    assert found["runs"]["device"] == "standin"
    logs = [[json.loads(line)["loss"] for line in (folder / name / "log.jsonl").read_text().splitlines()] for name in ("there", "here")]
    assert len(logs[0]) == 3
    assert logs[0] == pytest.approx(logs[1], rel=1e-3)
    first, second = (json.loads((folder / f"scored {name}" / "results.json").read_text())["rows"] for name in ("there", "here"))
    values = [[row["value"] for row in rows if row["value"] is not None] for rows in (first, second)]
    assert len(values[0]) >= 3
    assert values[0] == pytest.approx(values[1], rel=1e-4)


def test_a_run_goes_on_there_and_here(there: tuple[Path, dict[str, Any]]) -> None:
    folder = there[0]
    last = [json.loads((folder / name / "log.jsonl").read_text().splitlines()[-1]) for name in ("more", "gone on there", "gone on here")]
    assert [each["step"] for each in last] == [3, 3, 3]
    assert last[1]["loss"] == last[0]["loss"]
    assert last[2]["held_out_bits_per_byte"] == pytest.approx(last[0]["held_out_bits_per_byte"], rel=1e-3)


def test_a_device_that_is_not_here_is_one_line() -> None:
    assert pick_device("cpu") == "cpu"
    assert pick_device("auto") == ("cuda" if torch.cuda.is_available() else "cpu")
    with pytest.raises(InputError, match="torch knows no 'gpu' to compute on; use auto, cpu or cuda"):
        pick_device("gpu")
    with pytest.raises(InputError, match=r"device: cuda:99, and torch \S+ finds .*; use cpu, or auto"):
        pick_device("cuda:99")
