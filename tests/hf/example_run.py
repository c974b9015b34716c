"""The folder of a finished run, without the running."""

import json
from pathlib import Path

from ritornello import folder
from ritornello.config import to_dict
from ritornello.data.tokenizers import ByteTokenizer, train_bpe
from ritornello.model import LM, LMConfig

WORDS = {"bytes": ByteTokenizer(), "bpe": train_bpe(["the cat and the dog, the cat and the hat"] * 9, 280)}


def make_run(path: Path, words=WORDS["bpe"], steps: int = 4, **options) -> Path:
    """`layers` are the model's; other options go into config.json."""
    path.mkdir(parents=True)
    model = LM(LMConfig(vocab=words.size, dim=32, layers=options.pop("layers", ("hgrn2",) * 2)))
    words.save(path / "tokenizer.json")
    folder.write_tensors(path / "model.safetensors", folder.weights(model), {})
    corpus = {"name": "a tale", "words": 4321, "nbytes": 23456, "sources": {"tale.txt": "ab" * 32}}
    tables = {"model": to_dict(model.config), "corpus": corpus, "train": {"steps": 4, "length": 8}, "tokenizer": {}, "evaluate": {}}
    folder.write_json(path / "config.json", {"format": 1, "plan": "A small model.", "licence": None} | tables | options)
    made = {"ritornello": "0.1.0", "commit": "abc", "cpu": "a cpu", "cores": 2, "gpu": None}
    folder.write_json(path / "provenance.json", made)
    line = {"step": steps, "tokens": 5120, "seconds": 90.0}
    (path / "log.jsonl").write_text("\n".join(json.dumps(each) for each in ({"step": 1}, line)) + "\n")
    return path
