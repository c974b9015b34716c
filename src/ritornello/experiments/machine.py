"""Settings of the process that make training faster and change no result beyond rounding."""

import ctypes
import functools
import math
import platform
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch

from ritornello.errors import InputError

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD = -1, -2, -3  # names and numbers of glibc's malloc.h
WORST_ERROR = 1e-5  # relative, of a float32 product; float32 itself gives about 3e-7, products rounded to bfloat16 3e-3
LEAST_GAIN = 1.2  # times faster, more than a noisy machine shows by chance

Gemm = Literal["torch", "onednn"]


def keep_freed_memory() -> bool:
    """Let malloc keep large blocks that were freed, and use them again. True if this system's malloc can be told.

    glibc gives each large tensor back to the kernel, and the end of its heap once enough of it is free; the next tensors then get
    fresh pages, which must all be touched anew. The price is memory that stays with the process until it ends.
    """
    if platform.system() != "Linux" or platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return all(mallopt(name, value) for name, value in ((M_MMAP_THRESHOLD, 1 << 30), (M_TRIM_THRESHOLD, -1), (M_TOP_PAD, 1 << 26)))


def pick_device(asked: str) -> str:
    """Where to compute, as torch calls it; "auto": on a GPU if torch can use one. InputError for a device that is not here."""
    if asked == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(asked)
        count = 1 if device.type == "cpu" else torch.get_device_module(device.type).device_count()
    except (RuntimeError, AttributeError):
        raise InputError(f"device: torch knows no {asked!r} to compute on; use auto, cpu or cuda") from None
    if (device.index or 0) >= count:
        found = f"torch {torch.__version__} finds {count} of them" if count else f"torch {torch.__version__} finds none here"
        raise InputError(f"device: {asked}, and {found}; use cpu, or auto for whatever there is")
    return asked


@contextmanager
def matrix_products(by: Gemm) -> Iterator[Gemm]:
    """float32 matrix products by `by`: "torch", as torch chooses, or "onednn". Yields whose they are in fact.

    torch sends them to oneDNN only when told that it may round them to bfloat16. On processors without units for that, oneDNN
    keeps float32 all the same, and is twice as fast as MKL on some of them. Where it does round (AMX), torch's own are used instead.
    What was set before is put back at the end.
    """
    if by == "torch" or onednn_error() > WORST_ERROR:
        yield "torch"
        return
    with _onednn():
        yield "onednn"


def fastest_gemm(threads: int) -> Gemm:
    """Who multiplies float32 matrices fastest on so many threads, measured in a fraction of a second; "torch" in doubt."""
    if onednn_error() > WORST_ERROR:
        return "torch"
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    took: dict[Gemm, list[float]] = {"torch": [], "onednn": []}
    a, b, c = torch.ones(1024, 256), torch.ones(256, 1024), torch.ones(1024, 1024)
    for _ in range(12):
        for by, times in took.items():
            with matrix_products(by):
                began = time.perf_counter()
                c @ a, a @ b, a.mT @ c
                times.append(time.perf_counter() - began)
    torch.set_num_threads(before)
    own, other = (statistics.median(times[2:]) for times in took.values())
    return "onednn" if own > LEAST_GAIN * other else "torch"


@contextmanager
def fast_reading() -> Iterator[Gemm]:
    """For work that reads much text with trained models: freed memory is kept, and who multiplies fastest here does. Yields who."""
    keep_freed_memory()
    with matrix_products(fastest_gemm(torch.get_num_threads())) as gemm:
        yield gemm


@functools.cache
def onednn_error() -> float:
    """The relative error of float32 products by oneDNN on this processor, in the layouts of training; infinite where torch lacks oneDNN."""
    if not torch.backends.mkldnn.is_available():
        return math.inf
    generator = torch.Generator().manual_seed(0)
    a, b, c = (torch.randn(*shape, generator=generator) for shape in ((256, 320), (320, 192), (8, 128, 128)))
    pairs = [(a, b), (a, b.mT.contiguous().mT), (a.mT.contiguous().mT, b), (c, c.mT)]
    with _onednn():
        found = [left @ right for left, right in pairs]
    wanted = [left.double() @ right.double() for left, right in pairs]
    return max(float((x - y).norm() / y.norm()) for x, y in zip(found, wanted, strict=True))


@contextmanager
def _onednn() -> Iterator[None]:
    """torch has an old and a new way to say this, and torch.compile refuses where they differ: both are set, a GPU's part is kept."""
    new = (torch.backends.mkldnn.matmul, torch.backends.cuda.matmul)  # type: ignore[attr-defined]
    before = [setting.fp32_precision for setting in new]
    try:
        word = torch.get_float32_matmul_precision()
    except RuntimeError:  # they differ already, so the old one was never set
        word = "highest"
    try:
        torch.set_float32_matmul_precision("medium")
        new[1].fp32_precision = before[1]
        yield
    finally:
        torch.set_float32_matmul_precision(word)
        for setting, value in zip(new, before, strict=True):
            setting.fp32_precision = value
