"""A wheel carries the kernels, compiled for each instruction set of this machine's kind; without a C++ compiler it is pure Python.

A source or editable installation compiles at first use. See src/ritornello/_native/library.py.
"""

import platform
import re
import shutil
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class Kernels(BuildHookInterface):
    """Hatchling's build hook."""

    scratch: Path | None = None

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile, and tell hatchling to take the libraries along."""
        if version == "editable":
            return
        sys.path.insert(0, str(Path(self.root, "src")))
        from ritornello._native.library import ISAS, build, compiler
        from ritornello.errors import InputError

        used = compiler()
        if used is None:
            self.app.display_warning(
                "no C++ compiler found: this wheel has no prebuilt kernels; they are compiled at first use or done without"
            )
            return
        self.scratch = Path(tempfile.mkdtemp())
        x86 = platform.machine().lower() in ("x86_64", "amd64")
        try:
            for isa in ISAS if x86 else ("base",):
                made = self.scratch / isa / f"ritornello-{isa}.so"
                made.parent.mkdir()
                build(used, isa, made)
                build_data["force_include"][str(made)] = f"ritornello/_native/{made.name}"
        except InputError as error:
            self.app.display_warning(f"this wheel has no prebuilt kernels: {error}")
            build_data["force_include"].clear()
            return
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-{re.sub('[-.]', '_', sysconfig.get_platform())}"
        self.app.display_info(f"compiled by {used} for {', '.join(ISAS if x86 else ('base',))}")

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Clean up."""
        if self.scratch is not None:
            shutil.rmtree(self.scratch)
