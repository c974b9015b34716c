"""What `ritornello doctor` tells: what this machine has, what is in use, and what would make it faster."""

import ctypes
import importlib
import importlib.util
import pkgutil
import platform
import shutil
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ritornello import __version__, ops
from ritornello._native import library
from ritornello.analysis.numerals import nbytes
from ritornello.experiments.machine import WORST_ERROR, fastest_gemm, keep_freed_memory, onednn_error
from ritornello.ops.op import Op
from ritornello.provenance import collect, cores

SIZES = {"B": 4, "T": 64, "D": 64, "H": 2, "K": 8, "V": 8, "N": 4, "2": 2}
INPUTS: dict[str, tuple[str | None, ...]] = {  # of each op, an axis a letter
    "block": ("BTHKK", "BTHK", None),
    "conv": ("BTD", "DN", None),
    "delta": ("BTHK", "BTHK", "BTHV", "BTHK", "BTHK", "BTHK"),
    "outer": ("BTHK", "BTHK", "BTHV", "BTHK", None),
    "scan": ("BTD", "BTD"),
    "scan_complex": ("BTD2", "BTD2"),
    "selective": ("BTD", "BTD", "DN", "BTN", "BTN"),
    "softmax_scan": ("BTD", "BTD", None, None),
    "window": ("BTHK", "BTHK", "BTHV"),
}
UNTESTED = ("ARM (NEON)", "macOS", "Windows", "compilers other than GCC")  # none was at hand


def examine() -> dict[str, Any]:
    """Everything, as JSON values: what the machine has, what is in use, each op's choice, advice."""
    facts = collect()
    return {
        "ritornello": __version__,
        "machine": {
            "processor": f"{facts.cpu}, {facts.cores} {'core' if facts.cores == 1 else 'cores'}, {nbytes(facts.memory_bytes)} of memory",
            "instructions": f"{library.instruction_set()}{_extras()}",
            "system": f"{facts.system}, Python {facts.python}",
            "torch": f"{facts.versions['torch']}, {_libraries()}",
            "compiler": _compiler(),
            "GPU": _gpu(),
        },
        "active": {
            "kernels": library.active(),
            "in C++": _kernels(),
            "threads": f"{torch.get_num_threads()}; {_pools()}",
            "products": _gemm(),
            "allocator": "keeps freed memory while training" if keep_freed_memory() else "the system's, as it is",
        },
        "ops": {name: op.explain(*example(name)) for name, op in all_ops().items()},
        "faster": advice(),
        "untested": list(UNTESTED),
    }


def page(found: dict[str, Any]) -> str:
    """The findings of `examine`, for a terminal."""
    chosen: dict[str, list[str]] = {}
    for name, text in found["ops"].items():
        chosen.setdefault(text.partition(";")[0], []).append(name)
    ways = {f"ops by {way}": ", ".join(names) for way, names in chosen.items()}
    lines = []
    for heading, rows in (("this machine", found["machine"]), ("in use (float32, on the processor)", found["active"] | ways)):
        lines += [heading, *(f"  {name:<16}{text}" for name, text in rows.items())]
    lines += ["what would make it faster", *(f"  {text}" for text in found["faster"] or ["nothing that we know of"])]
    return "\n".join([*lines, f"untested: {', '.join(found['untested'])}"])


def advice() -> list[str]:
    """What to change, a line each; what matters most first."""
    said, kernels = [], library.library()
    if isinstance(kernels, str) and library.compiler() is None:
        way = "xcode-select --install" if platform.system() == "Darwin" else "on Debian: apt install g++"
        said.append(f"install a C++ compiler ({way}): the kernels are then built at first use")
    elif isinstance(kernels, str):
        said.append(f"mend what keeps the kernels from being built: {kernels}")
    elif "no OpenMP" in library.active():
        said.append("use a compiler with OpenMP, such as g++: the kernels run on one thread now")
    if torch.get_num_threads() < cores():
        said.append(f"let torch use all {cores()} cores (it uses {torch.get_num_threads()}): --threads, or unset OMP_NUM_THREADS")
    if len(pools()) > 1:
        said.append(f"load one OpenMP library only; there are {', '.join(sorted(pools()))}")
    if torch.cuda.is_available() and importlib.util.find_spec("fla") is None:
        said.append("pip install flash-linear-attention: its kernels for GPUs")
    if not torch.cuda.is_available() and shutil.which("nvidia-smi"):
        said.append("install a torch that is built for CUDA: there is a GPU that this one cannot use")
    return said


def all_ops() -> dict[str, Op]:
    """Every op there is, by its name."""
    modules = [importlib.import_module(f"{ops.__name__}.{each.name}") for each in pkgutil.iter_modules(ops.__path__)]
    found = {each.name: each for module in modules for each in vars(module).values() if isinstance(each, Op)}
    return dict(sorted(found.items()))


def example(name: str) -> tuple[Tensor | None, ...]:
    """Small inputs for the op of this name."""
    return tuple(None if axes is None else torch.zeros([SIZES[axis] for axis in axes]) for axes in INPUTS[name])


def pools() -> set[str]:
    """The OpenMP libraries in this process; Linux tells."""
    try:
        lines = Path("/proc/self/maps").read_text(encoding="utf-8").splitlines()
    except OSError:
        return set()
    return {line.split(maxsplit=5)[5] for line in lines if "libgomp" in line or "libomp" in line or "libiomp" in line}


def _kernels() -> str:
    built = isinstance(library.library(), ctypes.CDLL)
    return ", ".join(sorted(path.stem for path in library.HERE.glob("*.cpp") if path.stem != "about")) if built else "nothing"


def _pools() -> str:
    if not isinstance(library.library(), ctypes.CDLL):
        return "torch's own"
    return {0: "OpenMP not looked at", 1: "one OpenMP pool for torch and the kernels"}.get(len(pools()), f"{len(pools())} OpenMP libraries")


def _extras() -> str:
    """What else the processor has that some kernels, or torch, use."""
    try:
        words = set(Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").split())
    except OSError:
        return ""
    return "".join(f", {name}" for word, name in (("avx512_vnni", "VNNI"), ("avx512_bf16", "BF16"), ("amx_tile", "AMX")) if word in words)


def _gemm() -> str:
    """Who multiplies float32 matrices when training has a time to keep; measured here as it is there."""
    error = onednn_error()
    if error > WORST_ERROR:
        return f"as torch chooses; oneDNN would round, to an error of {error:.0e}"
    if fastest_gemm(torch.get_num_threads()) == "torch":
        return "as torch chooses; oneDNN is no faster"
    return f"by oneDNN, which is faster here and as exact (error {error:.0e}), in runs with --minutes or train.gemm=onednn"


def _libraries() -> str:
    """What torch has to multiply matrices with."""
    found = {"MKL": torch.backends.mkl.is_available(), "oneDNN": torch.backends.mkldnn.is_available()}
    return (
        f"{' and '.join(name for name, there in found.items() if there) or 'no MKL or oneDNN'}, {torch.backends.cpu.get_cpu_capability()}"
    )


def _compiler() -> str:
    used = library.compiler()
    if used is None:
        return "none (c++, g++ or clang++)"
    return f"{used}, {library.version(used)}"


def _gpu() -> str:
    fla = "flash-linear-attention " + (metadata.version("flash-linear-attention") if importlib.util.find_spec("fla") else "not installed")
    fla += "" if importlib.util.find_spec("triton") else ", no triton"
    return f"{torch.cuda.get_device_name() if torch.cuda.is_available() else 'none that torch can use'}; {fla}"
