"""Models of other programs in, and ours out. Importing this makes ours known to transformers 5, if that is installed.

AutoModelForCausalLM.from_pretrained(FOLDER) then opens a folder written by `ritornello export RUN --to hf`.
"""

from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version

with suppress(PackageNotFoundError):
    if int(version("transformers").partition(".")[0]) >= 5:
        import ritornello.hf.modeling  # noqa: F401 (it registers its classes)
