"""A corpus written by a teacher: what a student reads is what the teacher would say.

Source: Kim and Rush 2016, arXiv:1606.07947 (sequence-level distillation), with texts drawn from the teacher instead of its likeliest ones.

Rows write side by side, each text after text, and a file is finished when each row has drawn so many tokens; a text that is not at its
end by then ends there. What is in a file is a function of (teacher, seed, number of the file).
"""

import json
from pathlib import Path

import torch

from ritornello import folder
from ritornello.config import read_file
from ritornello.errors import InputError
from ritornello.evals.subject import CausalSubject
from ritornello.experiments.console import Console
from ritornello.serve.sampling import sample

ROWS = 64
TOKENS = 512  # of a row in one file


def write_corpus(subject: CausalSubject, path: Path, words: int, *, seed: int, console: Console) -> int:
    """At least so many words as JSON lines in a folder; files that are there are kept. Returns the tokens drawn.

    InputError if the folder was written otherwise, or if the teacher writes nothing.
    """
    path.mkdir(parents=True, exist_ok=True)
    about = {"teacher": subject.sha256, "seed": seed, "rows": ROWS, "tokens": TOKENS}
    if (path / ".written.json").exists():
        if read_file(path / ".written.json") != about:
            raise InputError(f"{path}: written by another teacher or from another seed; choose another --out")
    else:
        folder.write_json(path / ".written.json", about)
    number = found = 0
    while found < words:
        file = path / f"{number:05d}.jsonl"
        if not file.exists():
            console.progress(f"the teacher writes: {found:,} of {words:,} words")
            texts = write_texts(subject, ROWS, TOKENS, torch.Generator().manual_seed((seed << 32) + number))
            lines = "".join(json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in texts)
            folder.write_bytes(file, lines.encode())
        new = sum(len(json.loads(line)["text"].split()) for line in file.read_text(encoding="utf-8").splitlines())
        if not new:
            raise InputError(f"{subject.name}: {ROWS * TOKENS:,} tokens hold no word; give a teacher that writes words")
        number, found = number + 1, found + new
    for beyond in path.glob("*.jsonl"):
        if int(beyond.stem) >= number:
            beyond.unlink()  # of a longer corpus that was asked for before
    console.say(f"the teacher has written {found:,} words in {path}")
    return number * ROWS * TOKENS


@torch.inference_mode()
def write_texts(subject: CausalSubject, rows: int, tokens: int, generator: torch.Generator) -> list[str]:
    """Texts drawn from the teacher as it is (temperature 1), `tokens` ids in each of `rows`; those without a word are left out."""
    model, tokenizer = subject.model, subject.tokenizer
    token = torch.full((rows, 1), tokenizer.bos)
    state, reset = model.init_state(rows), None
    texts: list[list[int]] = []
    open_texts: list[list[int]] = [[] for _ in range(rows)]
    for _ in range(tokens):
        logits, state = model(token, state, reset)
        drawn = sample(logits[:, -1, : tokenizer.size].float(), temperature=1.0, top_k=None, top_p=None, generator=generator)
        ended = drawn == tokenizer.eos
        for row, (index, end) in enumerate(zip(drawn.tolist(), ended.tolist(), strict=True)):
            if end:
                texts.append(open_texts[row])
                open_texts[row] = []
            else:
                open_texts[row].append(index)
        token = drawn.where(~ended, tokenizer.bos)[:, None]
        reset = ended[:, None] if ended.any() else None
    found = [tokenizer.decode(text) for text in [*texts, *open_texts]]
    return [text for text in found if text.strip()]
