"""`ritornello doctor`: a screenful that is true with and without a compiler."""

import json
import subprocess
import sys

import pytest

from ritornello._native import library
from ritornello.cli import main
from ritornello.experiments import doctor


@pytest.fixture
def no_compiler(monkeypatch, tmp_path):
    """A machine with neither compiler nor prebuilt kernels."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(library, "prebuilt", lambda: None)
    library.library.cache_clear()
    yield
    library.library.cache_clear()


def test_it_fits_a_screen(capsys):
    assert main(["doctor"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) <= 40
    assert max(map(len, lines)) <= 160
    for word in ("this machine", "in use", "what would make it faster", "untested", library.active()):
        assert any(word in line for line in lines), word


def test_json_says_the_same(capsys):
    assert main(["doctor", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["active"]["kernels"] == library.active()
    assert found["machine"]["instructions"].split(",")[0] == library.instruction_set()
    assert set(found["ops"]) == set(doctor.all_ops())


def test_every_op_has_an_example_that_it_can_run():
    for name, op in doctor.all_ops().items():
        assert op.choose(*doctor.example(name)) in op.implementations


def test_without_a_compiler_it_says_what_to_install(no_compiler, capsys):
    assert main(["doctor", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["active"]["kernels"] == "not built: no C++ compiler found (c++, g++ or clang++)"
    assert found["faster"][0].startswith("install a C++ compiler")
    assert not any(text.startswith("native") for text in found["ops"].values())
    assert all("native: not built" in found["ops"][name] for name in found["ops"] if "native" in found["ops"][name])


@pytest.mark.parametrize(
    ("error", "fastest", "said"), [(2e-3, "torch", "would round"), (4e-7, "torch", "no faster"), (4e-7, "onednn", "by oneDNN")]
)
def test_who_multiplies_matrices(error, fastest, said, monkeypatch):
    monkeypatch.setattr(doctor, "onednn_error", lambda: error)
    monkeypatch.setattr(doctor, "fastest_gemm", lambda threads: fastest)
    assert said in doctor.examine()["active"]["products"]


def test_fewer_threads_than_cores_are_pointed_out(monkeypatch):
    monkeypatch.setattr(doctor, "cores", lambda: 1)
    assert not any(text.startswith("let torch use") for text in doctor.advice())
    monkeypatch.setattr(doctor, "cores", lambda: 64)
    assert any(text.startswith("let torch use all 64 cores (it uses 1)") for text in doctor.advice())


def test_help_needs_no_torch():
    code = "import sys, ritornello.cli as cli\ntry: cli.main(['doctor', '--help'])\nexcept SystemExit: print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "what this machine has" in done.stdout
    assert done.stdout.splitlines()[-1] == "False"
