"""What the command line must know of training without importing torch."""

from typing import Any

PRESETS: dict[str, dict[str, Any]] = {  # of distillation, see distill.py
    "babyhgrn": {"alpha": (0.25, 0.5, 0.75), "temperature": 1.0, "average": "probabilities"},
    "babyllama": {"alpha": (0.5,), "temperature": 2.0, "average": "logits"},
}
