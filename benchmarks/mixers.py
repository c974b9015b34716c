"""Every mixer in the same small model for the same seconds, and how near it is to outside implementations: docs/mixers.md.

    python -m benchmarks.mixers CORPUS [--seconds 60] [--mixers hgrn2 lstm]      trains; a line each in docs/results/mixers.jsonl
    python -m benchmarks.mixers --parity                                         runs tests/parity; a line each in docs/results/parity.jsonl
    python -m benchmarks.mixers --render                                         writes docs/mixers.md from both

The model: bytes, 96 wide, two blocks with SwiGLU (Mamba's alone, as in its paper), 16 rows of 128 tokens, Muon and AdamW at 4e-3 falling
over the whole time, state carried, float32, one thread. Nothing is tuned for anyone. The number of steps is what 60 seconds hold, found by
a probe; evaluation is not counted.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace

import torch

from ritornello.config import to_dict
from ritornello.evals.perplexity import held_out
from ritornello.experiments.catalogue import catalogue
from ritornello.experiments.console import Console
from ritornello.experiments.evaluation import score_sample
from ritornello.experiments.material import Material, gather
from ritornello.experiments.plan import time_steps
from ritornello.experiments.scaling import model_config
from ritornello.experiments.settings import Request
from ritornello.mixers import CHANNEL, MIXERS, mixer
from ritornello.model import LM, parameters, state_nbytes
from ritornello.provenance import collect
from ritornello.train.loop import Diverged, TrainConfig, Trainer
from ritornello.train.losses import NextToken

ROOT = Path(__file__).resolve().parents[1]
RESULTS, PARITY = ROOT / "docs" / "results" / "mixers.jsonl", ROOT / "docs" / "results" / "parity.jsonl"
DIM, LAYERS, HELD_OUT = 96, 2, 32_768
AGAINST = {  # what each is compared with in tests/parity
    "aaren": "NumPy transcription of the paper",
    "attention": "transformers 5.23.0, Llama",
    "bidirectional": "torch.nn.LSTM, bidirectional (tests/test_bidirectional.py)",
    "block": "NumPy transcription of the paper",
    "deltanet": "flash-linear-attention 0.6.0, plain delta rule",
    "gated_deltanet": "flash-linear-attention 0.6.0, plain gated delta rule; transformers 5.23.0, Qwen3-Next",
    "geglu": "transformers 5.23.0, RecurrentGemma",
    "gelu": "torch",
    "gla": "flash-linear-attention 0.6.0, plain gated linear attention",
    "gru": "torch.nn.GRU",
    "hgrn": "flash-linear-attention 0.6.0, plain HGRN; NumPy transcription for the complex form",
    "hgrn2": "flash-linear-attention 0.6.0, plain gated linear attention",
    "lru": "NumPy transcription of the paper",
    "lstm": "torch.nn.LSTM; NumPy transcription for the variants",
    "mamba": "transformers 5.23.0, Mamba; mambapy 1.2.0",
    "mamba2": "transformers 5.23.0, Mamba-2",
    "mingru": "NumPy transcription of the paper",
    "minlstm": "NumPy transcription of the paper",
    "mlstm": "xlstm 2.0.6",
    "retnet": "flash-linear-attention 0.6.0, plain retention",
    "rglru": "transformers 5.23.0, RecurrentGemma",
    "rnn": "torch.nn.RNN",
    "rwkv4": "transformers 5.23.0, RWKV",
    "rwkv6": "flash-linear-attention 0.6.0, plain RWKV-6; NumPy transcription for RWKV-5",
    "rwkv7": "NumPy transcription of the paper",
    "rwkv_channel": "transformers 5.23.0, RWKV",
    "slstm": "xlstm 2.0.6",
    "swiglu": "transformers 5.23.0, Llama",
    "unitary": "NumPy transcription of the paper",
    "window": "transformers 5.23.0, RecurrentGemma",
}
AGAINST_FILE = {"attention": "llama", "swiglu": "llama", "window": "griffin_window", "rwkv_channel": "rwkv4"}  # tests named otherwise
TORCH = {"lstm": "torch's kernel, loop", "gru": "torch's kernel, loop", "rnn": "torch's kernel, loop", "attention": "torch's attention"}
ALONE = {"mamba", "mamba2"}  # blocks that are their own feed-forward layer


def train(name: str, material: Material, seconds: float) -> dict:
    """One mixer's record: sizes, speed, bits per byte before and after."""
    layers, channel = ((name,) * 2 * LAYERS, None) if name in ALONE else ((name,) * LAYERS, "swiglu")
    config = model_config(material.tokenizer.size, DIM, layers, channel=channel)
    plan = TrainConfig(steps=1, batch=16, length=128, lr=4e-3, schedule="linear", carry=not mixer(name).grows, threads=1)
    step = time_steps(config, plan, material, 0.05 * seconds)
    plan = TrainConfig(**(asdict(plan) | {"steps": max(10, int(seconds / step))}))
    torch.manual_seed(0)
    model, losses, diverged = LM(config), [], None
    trainer = Trainer(NextToken(model), material.batches(plan), plan)
    before = bits(model, plan, material)[0]
    began = time.perf_counter()
    try:
        for record in trainer.steps():
            losses.append(record["loss"])
    except Diverged as error:
        diverged = str(error)
    took = time.perf_counter() - began
    after, stderr = (None, None) if diverged else bits(model, plan, material)
    return {
        "mixer": name,
        "corpus": material.corpus.name,
        "sources": material.corpus.sources,
        "model": to_dict(config),
        "train": to_dict(plan),
        "parameters": parameters(config),
        "state_bytes": state_nbytes(config, 1),
        "seconds": round(took, 1),
        "tokens_per_second": round(len(losses) * plan.batch * plan.length / took),
        "largest_loss_after_100_steps": max(losses[100:], default=None),
        "diverged": diverged,
        "bits_per_byte_before": before,
        "bits_per_byte": after,
        "stderr": stderr,
    }


def bits(model: LM, plan: TrainConfig, material: Material) -> tuple[float, float]:
    """Held-out bits per byte and their standard error."""
    scored, _ = score_sample(model, SimpleNamespace(train=plan), material, material.sample(HELD_OUT))
    row = held_out(scored.nats, scored.documents, material.nbytes(scored.targets))[0]
    return round(row.value, 4), round(row.stderr, 4)


def parity() -> list[dict]:
    """The largest relative error of each file of parity tests, all forms, cuts and gradients included."""
    with tempfile.TemporaryDirectory() as scratch:
        kept = Path(scratch, "errors.jsonl")
        words = [sys.executable, "-m", "pytest", "-q", str(ROOT / "tests" / "parity"), "--errors", str(kept)]
        subprocess.run(words, cwd=ROOT, check=True)
        lines = [json.loads(line) for line in kept.read_text(encoding="utf-8").splitlines()]
    files = defaultdict(list)
    for line in lines:
        files[line["file"]].append(line)
    return [
        {"file": file, "comparisons": sum(line["comparisons"] for line in found), "error": max(line["error"] for line in found)}
        for file, found in sorted(files.items())
        if file != "test_golden.py"
    ]


def render() -> str:
    """docs/mixers.md: sizes counted now, errors and training results from the newest line of each."""
    trained = {line["mixer"]: line for line in _lines(RESULTS)}
    errors = {line["file"]: line for line in _lines(PARITY)}
    entries = {entry.name: entry for entry in catalogue(256)}
    one = next(iter(trained.values()))
    text = [
        "# Mixers",
        "",
        "Made by `python -m benchmarks.mixers --render`; sizes are those of one mixer in a model 256 wide (`ritornello mixers`).",
        "An error is the largest relative one (norm of the difference over norm of the wanted) among outputs, end states and gradients of",
        "all forms, on copied weights, in the precision the other side computes in.",
        "",
        "| mixer | what it is | parameters | state | computed by | compared with | error |",
        "| --- | --- | ---: | ---: | --- | --- | ---: |",
    ]
    for name, entry in entries.items():
        file = f"test_{AGAINST_FILE.get(name, name)}.py"
        error = f"[{errors[file]['error']:.0e}](../tests/parity/{file})" if file in errors else ""
        state = f"{entry.state_bytes:,} B" + (" a token" if entry.grows else "") if entry.state_bytes else "none"
        ways = "; ".join(entry.computes) or TORCH.get(name, "plain torch")
        text.append(f"| `{name}` | {entry.what} | {entry.parameters:,} | {state} | {ways} | {AGAINST[name]} | {error} |")
    text += [
        "",
        f"## The same {one['seconds']:.0f} seconds for each",
        "",
        f"Bytes of {one['corpus']}, {DIM} wide, {LAYERS} blocks with SwiGLU ({2 * LAYERS} without it for those that need no feed-forward",
        "layer), 16 rows of 128 tokens, one rate for all, float32, one thread, two models trained at a time. One seed, nothing tuned:",
        "what a minute of this machine bought at that commit (00df956: plain torch; later: kernels in C++), not a ranking.",
        "",
        "| mixer | parameters | state | tokens/s | bits per byte at first | after | ± | commit |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | --- |",
    ]
    for line in sorted(trained.values(), key=lambda line: line["bits_per_byte"] or 99):
        grows = " a token" if mixer(line["mixer"]).grows else ""
        after = ("diverged", "") if line["diverged"] else (f"{line['bits_per_byte']:.3f}", f"{line['stderr']:.3f}")
        columns = (f"{line['parameters']:,}", f"{line['state_bytes']:,} B{grows}", f"{line['tokens_per_second']:,}")
        columns += (format(line["bits_per_byte_before"], ".2f"), *after, line["made_by"]["commit"][:7])
        text.append(f"| `{line['mixer']}` | {' | '.join(columns)} |")
    return "\n".join(text) + "\n"


def _lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def main() -> None:
    parser = argparse.ArgumentParser(description="Every mixer in the same small model for the same seconds.")
    parser.add_argument("corpus", nargs="?")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--mixers", nargs="+", default=sorted(set(MIXERS) - CHANNEL))
    parser.add_argument("--parity", action="store_true")
    parser.add_argument("--render", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    made_by = to_dict(collect())
    if options.parity:
        found = [line | {"made_by": made_by} for line in parity()]
        PARITY.write_text("".join(json.dumps(line) + "\n" for line in found), encoding="utf-8")
    elif not options.render:
        material = gather(Request(corpus=options.corpus, tokenizer="bytes"), Console(quiet=True))
        for name in options.mixers:
            if not mixer(name).laws >= {"causal"}:
                continue
            line = train(name, material, options.seconds)
            print(
                {key: line[key] for key in ("mixer", "tokens_per_second", "bits_per_byte_before", "bits_per_byte", "diverged")}, flush=True
            )
            with RESULTS.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line | {"made_by": made_by}) + "\n")
    if options.render:
        (ROOT / "docs" / "mixers.md").write_text(render(), encoding="utf-8")


if __name__ == "__main__":
    main()
