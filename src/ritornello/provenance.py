"""What every result carries: machine, versions, commit, checksums, time. Enough to make it again."""

import dataclasses
import hashlib
import os
import platform
import re
import subprocess
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path


@dataclass(frozen=True)
class Provenance:
    """Where a number comes from. Every field is a plain value, so it goes into JSON as it is."""

    ritornello: str
    commit: str | None  # of the checkout the code ran from, "+" appended if it had uncommitted changes
    python: str
    versions: dict[str, str]
    system: str
    cpu: str
    cores: int
    memory_bytes: int
    threads: int | None = None
    gpu: str | None = None
    started: str = ""  # UTC, ISO 8601
    command: str = ""
    data: dict[str, str] = dataclasses.field(default_factory=dict)  # source name -> sha256
    licence: str | None = None  # the user's note on the data, passed on as given


def collect(data: dict[str, str] | None = None, licence: str | None = None, threads: int | None = None) -> Provenance:
    """The provenance of this process. `threads`: those it is going to use; without, torch's, told like the GPU only once it is imported."""
    torch = sys.modules.get("torch")
    packages = ("torch", "numpy", "tokenizers", "safetensors")
    return Provenance(
        ritornello=metadata.version("ritornello"),
        commit=_commit(),
        python=platform.python_version(),
        versions={name: metadata.version(name) for name in packages},
        system=f"{platform.system()} {platform.release()} {platform.machine()}",
        cpu=_cpu(),
        cores=cores(),
        memory_bytes=_memory(),
        threads=threads or (torch.get_num_threads() if torch else None),
        gpu=torch.cuda.get_device_name() if torch and torch.cuda.is_available() else None,
        started=datetime.now(UTC).isoformat(timespec="seconds"),
        command=" ".join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        data=data or {},
        licence=licence,
    )


def cores() -> int:
    """Processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def peak_memory() -> int | None:
    """The most memory this process has held, in bytes; None where the system does not tell.

    Linux tells it in /proc: what getrusage says there is never less than what the parent held when it started this process.
    """
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        status = ""
    if found := re.search(r"^VmHWM:\s+(\d+) kB$", status, re.MULTILINE):
        return int(found[1]) * 1024
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def sha256(path: Path) -> str:
    """The file's SHA-256, read in pieces."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _commit() -> str | None:
    """The commit of the checkout this package is imported from; None for an installed copy."""
    package = Path(__file__).resolve().parent

    def git(*words: str) -> str | None:
        try:
            done = subprocess.run(["git", "-C", str(package), *words], capture_output=True, text=True, timeout=10, check=False)  # noqa: S603, S607
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    if git("ls-files", "--error-unmatch", "provenance.py") is None:
        return None  # the folder is inside some other checkout, or none
    commit = git("rev-parse", "--short=12", "HEAD")
    return f"{commit}+" if commit and git("status", "--porcelain", "--", str(package)) else commit


def _cpu() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _memory() -> int:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return 0
