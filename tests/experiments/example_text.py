"""A text of few words, and the settings of a run that is over in seconds."""

import torch

WORDS = ("the", "cat", "sat", "on", "a", "mat", "and", "saw", "that", "dog", "run", "far", "from", "its", "old", "home", "by", "sea")
SMALL = {"steps": 12, "batch": 4, "length": 32, "dim": 32, "layers": 2, "evaluate": {"validations": 3, "sample_tokens": 10}}


def prose(documents: int, words: int = 120) -> str:
    """Documents of words drawn at random, always the same ones."""
    picks = torch.randint(len(WORDS), (documents, words), generator=torch.Generator().manual_seed(3)).tolist()
    return "\n\n".join(" ".join(WORDS[pick] for pick in row) + "." for row in picks)
