"""Who multiplies float32 matrices: only where it is exact and faster, put back afterwards, and never measured with --steps."""

import json
import os
import platform
import subprocess
import sys

import pytest
import torch

import ritornello
from ritornello.errors import InputError
from ritornello.experiments import machine
from ritornello.experiments.machine import WORST_ERROR, fastest_gemm, matrix_products, onednn_error

SETTING = torch.backends.mkldnn.matmul


def exact(monkeypatch, error: float) -> None:
    """As if oneDNN's products had this error here."""
    monkeypatch.setattr(machine, "onednn_error", lambda: error)


def gain(monkeypatch, times: float) -> None:
    """As if oneDNN were so many times faster: a clock that runs by who is set."""
    now = [0.0]

    def clock() -> float:
        now[0] += 1.0 if SETTING.fp32_precision == "bf16" else times
        return now[0]

    monkeypatch.setattr(machine.time, "perf_counter", clock)


def test_the_error_is_measured_against_float64():
    """Exact to float32 or rounded to bfloat16: nothing lies between, so the bound tells them apart on any processor."""
    assert not 2e-6 < onednn_error() < 5e-4
    before = SETTING.fp32_precision
    onednn_error.__wrapped__()
    assert SETTING.fp32_precision == before


def test_products_are_switched_and_put_back(monkeypatch):
    exact(monkeypatch, 3e-7)
    before, gpu = SETTING.fp32_precision, torch.backends.cuda.matmul.fp32_precision
    with matrix_products("onednn") as by:
        assert (by, SETTING.fp32_precision) == ("onednn", "bf16")
        assert torch.get_float32_matmul_precision() == "medium"  # which torch.compile asks for, and which raises where settings differ
        assert torch.backends.cuda.matmul.fp32_precision == gpu
        with matrix_products("torch") as inner:
            assert inner == "torch"
    assert SETTING.fp32_precision == before
    with pytest.raises(KeyError), matrix_products("onednn"):
        raise KeyError
    assert SETTING.fp32_precision == before
    assert (torch.get_float32_matmul_precision(), torch.backends.cuda.matmul.fp32_precision) == ("highest", gpu)
    for value in ("ieee", "bf16"):  # what a user set
        SETTING.fp32_precision = value
        with matrix_products("onednn"):
            assert SETTING.fp32_precision == "bf16"
        assert SETTING.fp32_precision == value
    SETTING.fp32_precision = before


def test_products_that_round_are_refused(monkeypatch):
    exact(monkeypatch, 3e-3)
    before = SETTING.fp32_precision
    with matrix_products("onednn") as by:
        assert (by, SETTING.fp32_precision) == ("torch", before)
    gain(monkeypatch, 5.0)
    assert fastest_gemm(1) == "torch"


def test_only_a_clear_gain_counts(monkeypatch):
    exact(monkeypatch, WORST_ERROR / 2)
    threads = torch.get_num_threads()
    for times, wanted in ((0.5, "torch"), (1.1, "torch"), (1.3, "onednn")):
        gain(monkeypatch, times)
        assert fastest_gemm(1) == wanted
    assert torch.get_num_threads() == threads


def test_products_inside_are_right_to_float32():
    """Whatever this processor does: inside the switch nothing is rounded to bfloat16."""
    a, b = torch.randn(300, 200), torch.randn(200, 150)
    with matrix_products("onednn"):
        found = a @ b
    assert (found.double() - a.double() @ b.double()).norm() < 1e-5 * found.norm()


def test_a_run_of_given_steps_measures_nothing_and_takes_what_is_said(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.txt").write_text("\n\n".join(f"the cat {n} sat on a mat and saw that dog run far from home" for n in range(60)))
    small = {"steps": 2, "batch": 2, "length": 16, "dim": 16, "layers": 1, "evaluate": {"validations": 1, "sample_tokens": 4}}

    def measured(threads: int) -> str:
        raise AssertionError("nothing is measured with --steps")

    monkeypatch.setattr("ritornello.experiments.plan.fastest_gemm", measured)
    path = ritornello.run("text.txt", out="torch", quiet=True, **small)
    settings = json.loads((path / "config.json").read_text())["train"]
    assert {name: settings[name] for name in ("gemm", "keep_memory", "precision", "threads")} == {
        "gemm": "torch",
        "keep_memory": True,
        "precision": "float32",
        "threads": 2,
    }
    assert json.loads((path / "provenance.json").read_text())["threads"] == 2  # not those of this moment
    for error in (3e-7, 3e-3):
        exact(monkeypatch, error)
        monkeypatch.setattr("ritornello.experiments.plan.onednn_error", lambda error=error: error)
        if error > WORST_ERROR:
            with pytest.raises(InputError, match=r"train\.gemm: on this processor oneDNN rounds float32 products"):
                ritornello.run("text.txt", out="rounds", quiet=True, train={"gemm": "onednn"}, **small)
        else:
            path = ritornello.run("text.txt", out="onednn", quiet=True, train={"gemm": "onednn", "loss_chunk": 7}, **small)
            assert json.loads((path / "config.json").read_text())["train"]["gemm"] == "onednn"
    assert SETTING.fp32_precision == "none"


PROBE = """
import ctypes, resource
from ritornello.experiments.machine import keep_freed_memory
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_size_t], [ctypes.c_void_p]
assert keep_freed_memory()
for _ in range(2):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    blocks = [libc.malloc(700 << 20) for _ in range(2)]
    ctypes.memset(blocks[1], 1, 4 << 20)
    for block in blocks:
        libc.free(block)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc can be told")
def test_freed_memory_is_kept_however_much_it_is():
    done = subprocess.run([sys.executable, "-c", PROBE], capture_output=True, text=True, check=True)
    first, second = map(int, done.stdout.split())
    assert first >= 1000  # pages of 4 MiB
    assert second < 100


@pytest.mark.parametrize(("said", "found"), [({}, "10000"), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "active"}, None)])
def test_threads_of_a_command_soon_give_way_unless_told_otherwise(said, found):
    """The command says so before torch is there to read it."""
    code = (
        "import os, sys; from ritornello import cli\ntry: cli.main(['--help'])\n"
        "finally: print(os.environ.get('GOMP_SPINCOUNT'), 'torch' in sys.modules)"
    )
    clean = {name: value for name, value in os.environ.items() if name not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=clean | said, check=False)
    assert done.stdout.splitlines()[-1] == f"{found} False"
