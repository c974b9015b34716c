"""A token at a time: the native step of a whole model against torch's, and against a transformer with its cache: S11, S13, S14.

    python -m benchmarks.decode [--rounds 15] [--keep] [--only step] [--tokens 1000000] [--text FILE] [--run FOLDER]

    step      10M parameters (HGRN2, 256 wide, 10 layers, vocabulary 8192), one row and 32, in float32, bfloat16 and int8
    large     100M parameters (768 wide, 12 layers, vocabulary 16384), one row: the share of the speed at which memory is read
    llama     transformers' Llama of about the same size with a cache of 1,000 and 8,000 tokens, if it is installed
    position  the step after so many tokens (--tokens) beside the first one
    loss      bits per byte that bfloat16 and int8 cost on held-out text, for a model trained for two minutes on nine tenths of --text
              (default: Python's language reference), or for a run on a text it has not seen

Before anything is timed, logits and states are compared with the model's.
"""

import argparse
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

import torch
from torch import Tensor

import ritornello
from benchmarks.common import Row, main, medians
from ritornello.evals.perplexity import difference, held_out
from ritornello.folder import load
from ritornello.model import LM, LMConfig
from ritornello.serve.native import NativeEngine
from ritornello.serve.plan import WEIGHTS
from ritornello.state import State, named_leaves

SMALL = LMConfig(vocab=8192, dim=256, layers=("hgrn2",) * 10)
LARGE = LMConfig(vocab=16384, dim=768, layers=("hgrn2",) * 12)


class Stepper:
    """A text that goes on: each call feeds the likeliest tokens of the step before."""

    def __init__(self, engine: Callable[..., tuple[Tensor, State]], state: State, rows: int):
        self.engine, self.state, self.tokens = engine, state, torch.zeros(rows, 1, dtype=torch.int64)

    def __call__(self) -> None:
        logits, self.state = self.engine(self.tokens, self.state)
        self.tokens = logits[:, -1:].argmax(-1)


def checked(model: LM, rows: int) -> dict[str, NativeEngine]:
    """An engine for each kind of weights, once its logits and states after 20 tokens are found near the model's; the errors are printed."""
    engines = {name: NativeEngine(model, name) for name in WEIGHTS}
    text, found = torch.randint(model.config.vocab, (rows, 20)), {}
    wanted, end = model(text, model.init_state(rows))
    for name, engine in engines.items():
        state = engine.init_state(rows)
        for token in text.split(1, 1):
            logits, state = engine(token, state)
        pairs = [(logits[:, 0], wanted[:, -1]), *((a, b) for (_, a), (_, b) in zip(named_leaves(state), named_leaves(end), strict=True))]
        found[name] = max(float((a - b).norm() / b.norm()) for a, b in pairs)
    print({"greatest relative error": found})
    assert found["float32"] < 1e-5, found
    assert found["bfloat16"] < 0.02, found
    assert found["int8"] < 0.1, found
    return engines


def made(config: LMConfig, quick: bool) -> LM:
    torch.manual_seed(0)
    return LM(replace(config, dim=128, layers=config.layers[:2]) if quick else config).eval()


def step_rows(options: argparse.Namespace) -> list[Row]:
    """S11."""
    model, lines = made(SMALL, options.quick), []
    for rows in (1, 32):
        work = {name: Stepper(each, model.init_state(rows), rows) for name, each in {"eager": model, **checked(model, rows)}.items()}
        times = medians(work, options.rounds, 10 if rows == 1 else 3)
        lines += [line("S11", "decode, HGRN2 10M", name, "eager", times, rows) for name in WEIGHTS]
    return lines


def large_rows(options: argparse.Namespace) -> list[Row]:
    """S14. Bytes of the weights that a step must read, over its time, beside a sum over as many bytes."""
    model = made(LARGE, options.quick)
    weights = sum(weight.numel() for weight in model.parameters())
    much = torch.ones(weights)
    work: dict[str, Callable[[], Any]] = {
        name: Stepper(each, model.init_state(1), 1) for name, each in {"eager": model, **checked(model, 1)}.items()
    }
    times = medians({**work, "read": much.sum}, options.rounds, 3)
    lines = [line("S14", "decode, HGRN2 100M", name, "eager", times) for name in WEIGHTS]
    for each, part in zip(lines, (1, 2, 4), strict=True):
        each["share"] = round(times["read"] / part / times[each["weights"]], 3)
    return lines


def llama_rows(options: argparse.Namespace) -> list[Row]:
    """S13. The cache is cut back after each step, so that the context stays as long as it is said to be."""
    try:
        from transformers import DynamicCache, LlamaConfig, LlamaForCausalLM
    except ImportError:
        print("llama: transformers is not installed; left out")
        return []
    torch.manual_seed(0)
    shape = {"vocab_size": SMALL.vocab, "hidden_size": 256, "intermediate_size": 704, "num_hidden_layers": 10, "num_attention_heads": 4}
    llama = LlamaForCausalLM(LlamaConfig(**shape, max_position_embeddings=16384, tie_word_embeddings=True)).eval()
    model, work = made(SMALL, options.quick), {}
    contexts = {f"Llama, context {length:,}": length for length in ((50, 100) if options.quick else (1000, 8000))}
    for name, length in contexts.items():
        cache = DynamicCache()
        for piece in torch.randint(SMALL.vocab, (1, length)).split(500, 1):
            llama(piece, past_key_values=cache, use_cache=True, logits_to_keep=1)

        def step(cache: Any = cache) -> None:
            llama(torch.tensor([[5]]), past_key_values=cache, use_cache=True).logits.argmax(-1)
            cache.crop(-1)  # the last one

        work[name] = step
    work |= {name: Stepper(each, model.init_state(1), 1) for name, each in checked(model, 1).items()}
    times = medians(work, options.rounds, 5)
    return [
        line("S13", "decode, HGRN2 10M", name, other, times) | {"context": length} for other, length in contexts.items() for name in WEIGHTS
    ]


def position_rows(options: argparse.Namespace) -> list[Row]:
    """S13. Time at a position over time at the beginning; the text goes there in int8."""
    model = made(SMALL, options.quick)
    engines = checked(model, 1)
    far = Stepper(engines["int8"], model.init_state(1), 1)
    tokens = 100 if options.quick else options.tokens
    for _ in range(tokens):
        far()
    lines = []
    for name in ("float32", "int8"):
        near, work = model.init_state(1), {}
        for at, state in (("near", near), ("far", far.state)):
            work[at] = lambda engine=engines[name], state=state: engine(far.tokens, state)
        times = medians(work, 3 * options.rounds)
        what, ratio = f"decode, HGRN2 10M, batch 1, at position {tokens:,}", round(times["far"] / times["near"], 3)
        lines.append({"row": "S13 position", "what": what, "against": "position 0", "weights": name, "position": tokens, "ratio": ratio})
    return lines


def loss_rows(options: argparse.Namespace) -> list[Row]:
    """Bits per byte of the same held-out tokens, a token at a time: 16 rows of 512."""
    text = options.text.read_text(encoding="utf-8") if options.text else "\n\n".join(topics.values())
    with tempfile.TemporaryDirectory() as folder:
        path, cut = options.run, 0
        if path is None:
            cut = len(text) * 9 // 10
            Path(folder, "text.txt").write_text(text[:cut], encoding="utf-8")
            budget: dict[str, Any] = {"steps": 5} if options.quick else {"minutes": 2}
            path = ritornello.run(Path(folder, "text.txt"), out=str(Path(folder, "run")), quiet=True, **budget)
        loaded = load(path)
    ids = loaded.tokenizer.encode(text[cut : cut + 100_000])
    length = min(512, (len(ids) - 1) // 16)
    text_ids = torch.tensor(ids[: 16 * length + 1])
    inputs, targets = text_ids[:-1].view(16, -1), text_ids[1:].view(16, -1)
    nats = {}
    for name in WEIGHTS:
        engine, state = NativeEngine(loaded.model, name), loaded.model.init_state(16)
        steps = []
        for token, target in zip(inputs.split(1, 1), targets.split(1, 1), strict=True):
            logits, state = engine(token, state)
            steps.append(-logits[:, 0].double().log_softmax(-1).gather(1, target))
        nats[name] = torch.cat(steps, 1).flatten()
    blocks, nbytes = torch.arange(len(text_ids) - 1) // 256, loaded.tokenizer.nbytes(targets).flatten()
    base = held_out(nats["float32"], blocks, nbytes)[0]
    lines = [
        {
            "row": "loss",
            "what": "loss of decoding",
            "weights": "float32",
            "bits_per_byte": base.value,
            "stderr": base.stderr,
            "tokens": base.n,
        }
    ]
    for name in WEIGHTS[1:]:
        more = difference(nats[name], nats["float32"], blocks, nbytes, than="float32")
        perplexity = float((nats[name] - nats["float32"]).mean().expm1())
        lines.append(
            {
                "row": "loss",
                "what": "loss of decoding",
                "weights": name,
                "bits_per_byte_more": more.value,
                "stderr": more.stderr,
                "perplexity_more": perplexity,
            }
        )
    return lines


def line(row: str, what: str, name: str, other: str, times: dict[str, float], rows: int = 1) -> Row:
    ratio, speed = times[other] / times[name], rows / times[name]
    figures = {"ratio": round(ratio, 2), "tokens_per_second": round(speed, 1)}
    return {"row": row, "what": f"{what}, batch {rows}", "weights": name, "B": rows, "against": other} | figures


def without_gradients(part: Callable[[argparse.Namespace], list[Row]]) -> Callable[[argparse.Namespace], list[Row]]:
    def run(options: argparse.Namespace) -> list[Row]:
        with torch.no_grad():
            return part(options)

    return run


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--tokens", type=int, default=1_000_000, help="how far `position` goes")
    parser.add_argument("--text", type=Path, help="for `loss`")
    parser.add_argument("--run", type=Path, help="for `loss`: a trained model; --text is then all held out")


PARTS = {"step": step_rows, "large": large_rows, "llama": llama_rows, "position": position_rows}
PARTS = {name: without_gradients(part) for name, part in PARTS.items()} | {"loss": loss_rows}

main(__name__, __doc__, PARTS, rounds=15, more=arguments)
