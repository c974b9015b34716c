"""The card of an exported model: what it was made of, for how much, how well it does, and what it is not good for.

Every figure is read from the run's files; what they do not say is said to be missing.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ritornello.config import read_file
from ritornello.folder import Loaded
from ritornello.mixers.layers import describe

HEAD = """---
library_name: transformers
pipeline_tag: text-generation
tags:
- ritornello
- recurrent
---
"""
LOAD = """```python
import ritornello.hf  # pip install "ritornello[hf]"
from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained("{name}")
tokenizer = AutoTokenizer.from_pretrained("{name}")
prompt = tokenizer("Once upon a time", return_tensors="pt")
print(tokenizer.decode(model.generate(**prompt, max_new_tokens=50)[0], skip_special_tokens=True))
```

It needs transformers 5.5 or newer. Without the first line, `trust_remote_code=True` in both calls does the same: the code in this
folder only imports the package. `AutoModel` and `AutoModelForSequenceClassification` open it too. The tokenizer puts BOS before a text
unless `add_special_tokens=False`. Batches may be padded on either side; an attention mask has to say where."""
NOT_FOR = """- It goes on with a text as its training text would. It was not taught to answer, to follow instructions or to tell the truth.
- What is wrong, biased, private or hurtful in the training text can come back. Nothing was filtered but by whoever made that text.
- It knows the languages and subjects of that text only. Do not let it decide anything about people."""


def card(loaded: Loaded, name: str) -> str:
    """README.md for the folder of a run's model, which others will load by `name`."""
    sections = {
        "How to load it": LOAD.format(name=name),
        "Data": _bullets(_data(loaded.config)),
        "Budget": _bullets(_budget(loaded)),
        "Scores": _scores(loaded.path),
        "What it is not good for": NOT_FOR,
    }
    parts = [f"{HEAD}\n# {name}", _line(loaded.config["plan"]), *(f"## {title}\n\n{text}" for title, text in sections.items())]
    return "\n\n".join(parts) + "\n"


def _data(config: dict[str, Any]) -> list[str]:
    corpus = config["corpus"]
    words = f", {corpus['words']:,} words, {corpus['nbytes']:,} bytes" if "words" in corpus else ""
    licence = config.get("licence") or "not given by whoever trained the model; ask before you use it"
    sources = [f"`{_line(source)}`: SHA-256 `{sha256}`" for source, sha256 in sorted(corpus.get("sources", {}).items())]
    return [f"Text: {_line(corpus['name'])}{words}", *sources, f"Licence of the text: {_line(licence)}"]


def _budget(loaded: Loaded) -> list[str]:
    model, made = loaded.config["model"], read_file(loaded.path / "provenance.json")
    found = [f"Parameters: {sum(weight.numel() for weight in loaded.model.parameters()):,}"]
    found += [f"Layers: {describe(tuple(model['layers']))}, {model['dim']} wide; vocabulary of {loaded.tokenizer.size:,}"]
    log = loaded.path / "log.jsonl"
    lines = log.read_text(encoding="utf-8").splitlines() if log.exists() else []
    if lines:
        last, steps = json.loads(lines[-1]), loaded.config["train"]["steps"]
        state = f"{last['step']:,} steps" if last["step"] == steps else f"{last['step']:,} of {steps:,} steps, not finished"
        found += [f"Training: {state}, {last['tokens']:,} tokens, {last['seconds'] / 60:.1f} minutes on {_machine(made)}"]
    elif loaded.config.get("imported"):
        found += [f"Training: none here; imported from {_line(loaded.config['imported'])}"]
    return [*found, f"Made with Ritornello {made['ritornello']}, commit {made['commit'] or 'not known'}"]


def _machine(made: dict[str, Any]) -> str:
    return made["gpu"] or f"{made['cores']} cores of {_line(made['cpu'])}"


def _scores(path: Path) -> str:
    """The means of every suite in the run's results and in its evaluation."""
    files = [file for file in (path / "results.json", path / "evaluation" / "results.json") if file.exists()]
    rows = [row for file in files for row in read_file(file)["rows"] if row["task"].startswith("all") and row["by"] == "model"]
    if not rows:
        return "None: the model has not been evaluated."
    table = ["| suite | task | metric | value | standard error | n | chance |", "| --- | --- | --- | --- | --- | --- | --- |"]
    for row in rows:
        value = f"none: {row['reason']}" if row["value"] is None else _figure(row["value"], 4)
        cells = [row["suite"], row["task"], row["metric"], value, _figure(row["stderr"], 2), f"{row['n']:,}", _figure(row["chance"], 4)]
        table.append(f"| {' | '.join(_line(cell).replace('|', '/') for cell in cells)} |")
    return "\n".join(table)


def _figure(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}g}"


def _bullets(lines: Sequence[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def _line(text: str) -> str:
    """What someone wrote, on one line and without code in it."""
    return " ".join(text.split()).replace("<", "&lt;").replace("`", "'")
