"""The C++ kernels as a loaded library: prebuilt beside this file, as in a wheel, else compiled at first use and kept in the cache.

What is compiled is a function of the sources, the flags, the compiler and the machine: the hash of these begins its name, so that an update
builds anew. The hash of the file itself ends it: a damaged file is built again, not loaded, and of two processes that build at once neither
replaces what the other has loaded. Nothing is loaded from a place that others can write to.
"""

import ctypes
import functools
import hashlib
import os
import platform
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

from ritornello.errors import InputError

HERE = Path(__file__).parent
FLAGS = ("-std=c++17", "-O3", "-fno-math-errno", "-fPIC")
OPENMP = "-fopenmp"
ISAS = {  # widest first: what the processor must have, and the compiler may use; base is what it uses by itself (SSE2, NEON)
    "avx512": ("avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl", "avx2", "fma", "bmi2"),
    "avx2": ("avx2", "fma", "bmi2"),
    "base": (),
}


@functools.cache
def library() -> ctypes.CDLL | str:
    """The kernels, or why there are none, in a few words. torch is loaded before, so that its OpenMP threads are the ones they use."""
    import torch  # noqa: F401

    found = prebuilt()
    if found is not None:
        with suppress(OSError):  # made for another system: compile
            return ctypes.CDLL(str(found))
    try:
        return ctypes.CDLL(str(_compiled()))
    except (InputError, OSError, subprocess.TimeoutExpired) as error:
        return f"not built: {error}"


def active() -> str:
    """One line: the instruction set that the kernels were built for, or why there are none."""
    found = library()
    if isinstance(found, str):
        return found
    found.ritornello_about.restype = ctypes.c_char_p
    how = "prebuilt" if Path(found._name).parent == HERE else "compiled"
    return f"{how} for {found.ritornello_about().decode()}"


@functools.cache
def instruction_set() -> str:
    """The widest that both we and this processor know."""
    try:
        words = set(Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").split())
    except OSError:  # macOS, Windows
        import torch

        return {"AVX512": "avx512", "AVX2": "avx2"}.get(torch.backends.cpu.get_cpu_capability(), "base")
    return next(name for name, needed in ISAS.items() if words.issuperset(needed))


def compiler() -> str | None:
    """The path of the C++ compiler that would be used."""
    if sys.platform == "darwin" and subprocess.run(["xcode-select", "-p"], capture_output=True, check=False).returncode:  # noqa: S607
        return None  # macOS has a c++ that only offers to install one
    return next((found for name in ("c++", "g++", "clang++") if (found := shutil.which(name))), None)


def version(compiler: str) -> str:
    """What a compiler calls itself."""
    return (_say(compiler, "--version").stdout.splitlines() or ["no version"])[0]


def prebuilt() -> Path | None:
    """The widest library of the wheel that this processor can run."""
    names = list(ISAS)
    paths = [HERE / f"ritornello-{name}.so" for name in names[names.index(instruction_set()) :]]
    return next((path for path in paths if path.is_file() and not (path.stat().st_mode | HERE.stat().st_mode) & stat.S_IWOTH), None)


def build(compiler: str, isa: str, target: Path) -> None:
    """Compile all sources into a library. What this compiler does not know is left out: OpenMP, the widest instruction sets.

    InputError: what it said. Other files are written beside `target`.
    """
    failure = _compile(compiler, (OPENMP, *_options(isa)), _sources(), target)
    if failure is None:
        return
    probe = target.with_suffix(".cpp")
    probe.write_text("int ritornello_probe() { return 0; }\n", encoding="utf-8")
    names = list(ISAS)
    openmp = () if _compile(compiler, (OPENMP,), [probe], target) else (OPENMP,)
    known = next((name for name in names[names.index(isa) :] if not _compile(compiler, _options(name), [probe], target)), None)
    if known is None or (openmp and known == isa):
        raise InputError(f"{compiler} failed: {failure}")
    failure = _compile(compiler, (*openmp, *_options(known)), _sources(), target)
    if failure is not None:
        raise InputError(f"{compiler} failed: {failure}")


def _sources() -> list[Path]:
    return sorted(HERE.glob("*.cpp"))


def _options(isa: str) -> tuple[str, ...]:
    return tuple(f"-m{name}" for name in ISAS[isa])


def _compile(compiler: str, options: tuple[str, ...], sources: list[Path], target: Path) -> str | None:
    """None if all went well, else the first thing that the compiler complained of."""

    def run(*words: str) -> str | None:
        done = _say(compiler, *FLAGS, *options, *words)
        said = [line.strip() for line in done.stderr.splitlines() if line.strip()] or [f"exit code {done.returncode}"]
        return next((line for line in said if "error" in line), said[0])[:300] if done.returncode else None

    objects = [str(target.with_name(f"{source.stem}.o")) for source in sources]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        failures = list(pool.map(lambda source, made: run("-c", str(source), "-o", made), sources, objects))
    failure = next((each for each in failures if each is not None), None)
    static = ("-static",) if os.name == "nt" else ()
    return failure or run("-shared", *static, *objects, "-o", str(target))


def _say(*words: str) -> subprocess.CompletedProcess[str]:
    """Run a command, its words in English."""
    spoken = os.environ | {"LC_ALL": "C"}
    return subprocess.run(words, env=spoken, capture_output=True, text=True, errors="replace", check=False, timeout=600)  # noqa: S603


def _compiled() -> Path:
    """The cached library, compiled if it is not there yet. InputError says why there can be none."""
    used = compiler()
    if used is None:
        raise InputError("no C++ compiler found (c++, g++ or clang++)")
    isa, folder = instruction_set(), _own_folder(_cache())
    texts = [path.name + path.read_text(encoding="utf-8") for path in sorted([*_sources(), *HERE.glob("*.h")])]
    words = (platform.system(), platform.machine(), used, version(used), *FLAGS, OPENMP, *_options(isa), *texts)
    key = f"{isa}-{hashlib.sha256(chr(0).join(words).encode()).hexdigest()[:16]}"
    found = _intact(folder, key)
    if found is not None:
        return found
    with _alone(folder):
        found = _intact(folder, key)
        if found is None:
            with tempfile.TemporaryDirectory(prefix=".tmp-", dir=folder) as scratch:
                made = Path(scratch, "ritornello.so")
                build(used, isa, made)
                found = folder / f"{key}-{_hash(made)}.so"
                os.replace(made, found)
    return found


def _intact(folder: Path, key: str) -> Path | None:
    """The library of this name, whole and ours; one that is not is removed."""
    for path in folder.glob(f"{key}-*.so"):
        if _hash(path) == path.stem.rpartition("-")[2] and (not hasattr(os, "getuid") or path.stat().st_uid == os.getuid()):
            return path
        path.unlink(missing_ok=True)
    return None


def _hash(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:32]


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """One process at a time, which clears away what a killed one left. Without file locks several may build, which only takes longer."""
    with open(folder / "lock", "w", encoding="utf-8") as file:
        with suppress(ImportError, OSError):
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX)
            for left in folder.glob(".tmp-*"):
                shutil.rmtree(left, ignore_errors=True)
        yield


def _cache() -> Path:
    folder = Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"))
    if not folder.is_absolute():
        raise InputError(f"the cache {folder} is no full path; set XDG_CACHE_HOME to the full path of a folder of yours")
    return folder / "ritornello" / "native"


def _own_folder(folder: Path) -> Path:
    """The folder, made if need be, free of links. InputError unless it is ours and no one else can change what lies in it."""
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise InputError(f"{folder} cannot be made: {error.strerror}; set XDG_CACHE_HOME to a folder of yours") from error
    folder = folder.resolve()
    if not hasattr(os, "getuid"):
        return folder  # Windows: a user's own folders are their own
    found = folder.stat()
    if found.st_uid != os.getuid() or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise InputError(f"{folder} belongs to or may be written by others; chmod go-w it, or set XDG_CACHE_HOME to a folder of yours")
    for each in folder.parents:
        mode = each.stat().st_mode
        if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
            raise InputError(f"{each} may be written by anyone; chmod o-w it, or set XDG_CACHE_HOME to a folder elsewhere")
    return folder
