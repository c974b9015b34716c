"""What lets transformers open a folder of ours: the names of our classes in its config.json, and a file of code that imports them.

Nothing here needs transformers, so a folder can be written without it.
"""

from pathlib import Path

from ritornello.folder import write_bytes

MODEL_TYPE = "ritornello"
FILE = "modeling_ritornello"
CLASSES = {
    "AutoConfig": "RitornelloConfig",
    "AutoModel": "RitornelloModel",
    "AutoModelForCausalLM": "RitornelloForCausalLM",
    "AutoModelForSequenceClassification": "RitornelloForSequenceClassification",
}
AUTO_MAP = {auto: f"{FILE}.{name}" for auto, name in CLASSES.items()}
CODE = f'''"""This model needs the package ritornello, which holds its code."""

from ritornello.hf.modeling import {", ".join(CLASSES.values())}

__all__ = {sorted(CLASSES.values())}
'''


def write_code(path: Path) -> None:
    """Put the file that AUTO_MAP names into a folder."""
    write_bytes(path / f"{FILE}.py", CODE.encode())
