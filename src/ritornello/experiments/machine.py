"""Settings of the process that make training faster and change no result."""

import ctypes
import platform

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD = -1, -2, -3  # names and numbers of glibc's malloc.h


def keep_freed_memory() -> bool:
    """Let malloc keep large blocks that were freed, and use them again. True if this system's malloc can be told.

    glibc gives each large tensor back to the kernel and gets fresh pages for the next, which must all be touched anew. The
    price is memory that stays with the process until it ends.
    """
    if platform.system() != "Linux" or platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return all(mallopt(name, value) for name, value in ((M_MMAP_THRESHOLD, 1 << 30), (M_TRIM_THRESHOLD, 1 << 30), (M_TOP_PAD, 1 << 26)))
