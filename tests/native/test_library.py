"""Where the kernels come from: compiled once and kept, whole or not at all, and never from a place that others can write to."""

import ctypes
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ritornello._native import library
from ritornello.errors import InputError

SOURCE = '#include "lanes.h"\nextern "C" int64_t ritornello_lanes() { return LANES; }\n'
pytestmark = pytest.mark.skipif(library.compiler() is None, reason="no C++ compiler found")


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A package folder with a source that compiles at once, and an empty cache."""
    folder = tmp_path / "package"
    folder.mkdir()
    for name in ("lanes.h", "about.cpp"):
        shutil.copy(library.HERE / name, folder)
    (folder / "small.cpp").write_text(SOURCE, encoding="utf-8")
    monkeypatch.setattr(library, "HERE", folder)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    library.library.cache_clear()
    yield folder
    library.library.cache_clear()


@pytest.fixture
def wrapped(tmp_path, monkeypatch):
    """Puts a compiler first on the PATH that refuses some options, as an older or a smaller one would, and writes down how it is called."""

    def wrap(*refused: str) -> None:
        real, folder = library.compiler(), tmp_path / "bin"
        folder.mkdir()
        cases = f'echo "$*" >> {tmp_path}/calls\n' + "".join(
            f'case " $* " in *" {option} "*) echo "error: unrecognized option {option}" >&2; exit 1;; esac\n' for option in refused
        )
        (folder / "c++").write_text(f'#!/bin/sh\n{cases}exec {real} "$@"\n', encoding="utf-8")
        (folder / "c++").chmod(0o755)
        monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")

    return wrap


def kept(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / "cache" / "ritornello" / "native").glob("*.so"))


def test_it_is_compiled_once_and_kept(here, tmp_path, monkeypatch):
    assert library.library().ritornello_lanes() in (4, 8, 16)
    assert library.active() == f"compiled for {library.instruction_set()}"
    (made,) = kept(tmp_path)
    library.library.cache_clear()
    monkeypatch.setattr(library, "build", None)  # would fail if it were called
    assert library._compiled() == made
    assert [path.name for path in made.parent.iterdir() if path != made] == ["lock"]


def test_other_sources_are_another_library(here, tmp_path):
    first = library._compiled()
    (here / "small.cpp").write_text(SOURCE.replace("return LANES", "return 1 + LANES"), encoding="utf-8")
    second = library._compiled()
    assert first != second
    assert ctypes.CDLL(str(second)).ritornello_lanes() == 1 + ctypes.CDLL(str(first)).ritornello_lanes()
    assert len(kept(tmp_path)) == 2


@pytest.mark.parametrize("damage", [b"", b"\x7fELF", None])
def test_a_damaged_file_is_built_again(damage, here, tmp_path):
    path = library._compiled()
    whole = path.read_bytes()
    middle = len(whole) // 2
    path.write_bytes(whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :] if damage is None else damage)
    again = library._compiled()
    assert library._hash(again) == again.stem.rpartition("-")[2]
    assert ctypes.CDLL(str(again)).ritornello_lanes() in (4, 8, 16)
    assert kept(tmp_path) == [again]


def test_four_processes_at_once_make_one(here, tmp_path, wrapped):
    wrapped()
    code = (
        "import ctypes, sys, pathlib; from ritornello._native import library; library.HERE = pathlib.Path(sys.argv[1]);"
        "print(ctypes.CDLL(str(library._compiled())).ritornello_lanes())"
    )
    running = [subprocess.Popen([sys.executable, "-c", code, str(here)], stdout=subprocess.PIPE, text=True) for _ in range(4)]
    said = {process.communicate(timeout=120)[0] for process in running}
    assert [process.returncode for process in running] == [0] * 4
    assert len(said) == 1
    assert len(kept(tmp_path)) == 1
    assert (tmp_path / "calls").read_text().count("-shared") == 1  # the others waited for it
    assert not list((tmp_path / "cache" / "ritornello" / "native").glob(".tmp-*"))


def test_a_process_killed_while_it_compiles_leaves_nothing_behind(here, tmp_path, monkeypatch):
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "c++").write_text('#!/bin/sh\ncase "$*" in *--version*) exec echo slow;; esac\nexec sleep 20\n', encoding="utf-8")
    (folder / "c++").chmod(0o755)
    code = "import sys, pathlib; from ritornello._native import library; library.HERE = pathlib.Path(sys.argv[1]); library._compiled()"
    slow = subprocess.Popen([sys.executable, "-c", code, str(here)], env=os.environ | {"PATH": f"{folder}:{os.environ['PATH']}"})
    cache = tmp_path / "cache" / "ritornello" / "native"
    while not list(cache.glob(".tmp-*/")):
        time.sleep(0.02)
    slow.kill()
    slow.wait()
    made = library._compiled()
    assert sorted(path.name for path in cache.iterdir()) == sorted(["lock", made.name])


@pytest.mark.parametrize(("place", "mode"), [("cache/ritornello/native", 0o777), ("cache/ritornello/native", 0o770), ("cache", 0o777)])
def test_a_place_that_others_can_write_to_is_refused(place, mode, here, tmp_path):
    made = library._compiled()
    (tmp_path / place).chmod(mode)
    with pytest.raises(InputError, match="written by"):
        library._compiled()
    assert library.active().startswith("not built: ")
    assert "\n" not in library.active()
    (tmp_path / place).chmod(0o1777 if place == "cache" else 0o755)  # in a sticky folder others cannot rename what is ours
    assert library._compiled() == made


def test_a_users_own_group_may_write_above_it(here, tmp_path):
    """As where the umask is 002."""
    made = library._compiled()
    (tmp_path / "cache" / "ritornello").chmod(0o775)
    assert library._compiled() == made


@pytest.mark.skipif(not hasattr(os, "getuid") or os.getuid() != 0, reason="only root can give files away")
def test_a_file_of_another_is_not_loaded(here):
    made = library._compiled()
    os.chown(made, 12345, 12345)
    assert library._compiled().stat().st_uid == os.getuid()
    os.chown(made.parent, 12345, 12345)
    with pytest.raises(InputError, match="belongs to"):
        library._compiled()


def test_a_prebuilt_library_is_taken_first(here, tmp_path, monkeypatch):
    library.build(library.compiler(), "base", here / "ritornello-base.so")
    assert library.active() in ("prebuilt for base", "prebuilt for neon")
    assert not kept(tmp_path)
    library.library.cache_clear()
    (here / "ritornello-base.so").chmod(0o777)  # anyone may have written it
    assert library.active().startswith("compiled for")


def test_a_prebuilt_library_for_another_system_is_passed_over(here):
    (here / f"ritornello-{library.instruction_set()}.so").write_bytes(b"\x7fELF of another machine")
    assert library.active().startswith("compiled for")


def test_a_compiler_without_openmp_builds_for_one_thread(here, wrapped):
    wrapped("-fopenmp")
    assert library.active() == f"compiled for {library.instruction_set()}, one thread: the compiler has no OpenMP"


@pytest.mark.skipif(library.instruction_set() == "base", reason="this processor has no wider instructions")
def test_a_compiler_that_knows_fewer_instructions_builds_for_those(here, wrapped):
    wrapped("-mavx512f")
    assert library.active() == "compiled for avx2"


def test_a_compiler_that_fails_is_one_line(here):
    (here / "small.cpp").write_text("int x = ;\n", encoding="utf-8")
    said = library.active()
    assert said.startswith(f"not built: {library.compiler()} failed: ")
    assert "error" in said
    assert "\n" not in said


def test_no_compiler_is_one_line(here, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert library.active() == "not built: no C++ compiler found (c++, g++ or clang++)"


@pytest.mark.parametrize("folder", ["relative", "/proc/nowhere"])
def test_a_cache_that_cannot_be_is_one_line(folder, here, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", folder)
    assert library.active().startswith("not built: ")


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="only Linux tells what is loaded")
def test_torch_and_the_kernels_share_one_pool_of_threads():
    """torch's own, also when the kernels are asked for first; the real ones, with two threads."""
    first = "from ritornello._native.library import library; library()\n"
    work = (
        "from ritornello.ops import native; torch.set_num_threads(2)\n"
        "x = torch.randn(2, 64, 2, 32); x.flatten(2) @ x.flatten(2).mT\n"
        "native.outer(x, x, x, -x.abs(), None, torch.zeros(2, 2, 32, 32), None)\n"
    )
    said = set()
    for before, after in (("", ""), (first, work)):
        code = f"{before}import torch\n{after}from ritornello.experiments.doctor import pools; print(*pools())"
        said.add(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)
    assert len(said) == 1, said
    assert len(said.pop().split()) == 1
