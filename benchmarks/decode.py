"""A token at a time: the native step of a whole model against torch's, ONNX Runtime's, and a transformer with its cache: S11-S14.

    python -m benchmarks.decode [--rounds 15] [--keep] [--only step] [--tokens 1000000] [--text FILE] [--run FOLDER]

    step      10M parameters (HGRN2, 256 wide, 10 layers, vocabulary 8192), one row and 32, in float32, bfloat16 and int8
    large     100M parameters (768 wide, 12 layers, vocabulary 16384), one row: the share of the speed at which memory is read
    text      what `generate` takes for a token in all, its draw and Python included, beside a step without them
    onnx      the same steps in ONNX Runtime (benchmarks/onnx_step.py), if it is installed, and those of 100M parameters
    llama     transformers' Llama of about the same size with a cache of so many tokens, if it is installed
    position  the step after so many tokens (up to --tokens) beside the first one
    loss      bits per byte that bfloat16 and int8 cost on held-out text, for a model trained for two minutes on nine tenths of --text
              (default: Python's language reference), or for a run on a text it has not seen

Before anything is timed, logits and states are compared with the model's.
"""

import argparse
import importlib.util
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
from benchmarks.onnx_step import OnnxStep
from ritornello.evals.perplexity import difference, held_out
from ritornello.folder import load
from ritornello.model import LM, LMConfig
from ritornello.serve.native import NativeEngine
from ritornello.serve.plan import WEIGHTS
from ritornello.serve.session import AHEAD, start, stream, tokens
from ritornello.state import State, named_leaves

SMALL = LMConfig(vocab=8192, dim=256, layers=("hgrn2",) * 10)
ONE = torch.tensor([[5]])
CONTEXTS = (256, 1000, 4000, 8000, 16000)  # tokens in the transformer's cache; targets speak of two of them
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


def text_rows(options: argparse.Namespace) -> list[Row]:
    """A token of a text, drawn in each of the usual ways, over a step whose token is given."""
    model, lines = made(SMALL, options.quick), []
    ways = {"greedy": (0.0, None, None), "temperature 0.8": (0.8, None, None), "top-k 40": (0.8, 40, None), "top-p 0.9": (0.8, None, 0.9)}
    for name, engine in checked(model, 1).items():
        session = start(engine, 0, 1)
        work: dict[str, Callable[[], Any]] = {
            "step": lambda engine=engine, session=session: [engine(ONE, session.state) for _ in range(AHEAD)]
        }
        for way, (temperature, top_k, top_p) in ways.items():
            keywords: dict[str, Any] = {"temperature": temperature, "top_k": top_k, "top_p": top_p}
            one_by_one = [token for token, _ in stream(session, **keywords, max_tokens=2 * AHEAD, stop=None)]
            assert list(tokens(session, **keywords, max_tokens=2 * AHEAD, stop=None)) == one_by_one
            work[way] = lambda session=session, keywords=keywords: list(tokens(session, **keywords, max_tokens=AHEAD, stop=None))
        times = {each: seconds / AHEAD for each, seconds in medians(work, options.rounds, 2).items()}
        lines += [line("S11 text", f"decode, HGRN2 10M, {way}", name, "step", {**times, name: times[way]}) for way in ways]
    return lines


def onnx_rows(options: argparse.Namespace) -> list[Row]:
    """S12. Both feed the likeliest token; ONNX Runtime keeps its state to itself, ours gives a new one each step."""
    if importlib.util.find_spec("onnxruntime") is None or importlib.util.find_spec("onnx") is None:
        print("onnx: onnx and onnxruntime are not installed; left out")
        return []
    lines = []
    for size, config in (("10M", SMALL), ("100M", LARGE)):
        model = made(config, options.quick)
        engines = checked(model, 1)
        for name in ("float32", "int8"):
            other, state = OnnxStep(model, name), model.init_state(1)
            for _ in range(10):
                logits, state = engines[name](other.token, state)
                found = other()
            error = float((found - logits[0, 0]).norm() / logits.norm())
            assert error < (1e-5 if name == "float32" else 0.2), error
            against = f"onnxruntime {name}"
            times = medians({against: other, name: Stepper(engines[name], model.init_state(1), 1)}, options.rounds, 5)
            row = line("S12", f"decode, HGRN2 {size}", name, against, times)
            lines.append(row | {"size": size, "setting": {"threads": 1, "quantisation": "dynamic" if name == "int8" else None}})
    return lines


def llama_rows(options: argparse.Namespace) -> list[Row]:
    """S13. The transformer with the faster of its two caches: one that grows, cut back after each step, or one of a fixed size."""
    try:
        from transformers import DynamicCache, LlamaConfig, LlamaForCausalLM, StaticCache
    except ImportError:
        print("llama: transformers is not installed; left out")
        return []
    torch.manual_seed(0)
    shape = {"vocab_size": SMALL.vocab, "hidden_size": 256, "intermediate_size": 704, "num_hidden_layers": 10, "num_attention_heads": 4}
    config = LlamaConfig(**shape, max_position_embeddings=32768, tie_word_embeddings=True)
    llama, model, lines = LlamaForCausalLM(config).eval(), made(SMALL, options.quick), []
    ours = {name: Stepper(each, model.init_state(1), 1) for name, each in checked(model, 1).items()}
    steps = 5
    for length in (50, 100) if options.quick else CONTEXTS:
        caches = {"dynamic": DynamicCache(), "static": StaticCache(config=config, max_cache_len=length + steps * (options.rounds + 1))}
        work: dict[str, Callable[[], Any]] = {}
        for name, cache in caches.items():
            for piece in torch.randint(SMALL.vocab, (1, length)).split(500, 1):
                llama(piece, past_key_values=cache, use_cache=True, logits_to_keep=1)

            def step(cache: Any = cache) -> None:
                llama(ONE, past_key_values=cache, use_cache=True).logits.argmax(-1)
                if isinstance(cache, DynamicCache) and not isinstance(cache, StaticCache):
                    cache.crop(-1)  # the last one

            work[name] = step
        times = medians(work | ours, options.rounds, steps)
        best = min(caches, key=times.__getitem__)
        shared = {"context": length, "setting": {"attention": "sdpa", "cache": best, "precision": "float32"}}
        lines += [line("S13", "decode, HGRN2 10M", name, "Llama", times | {"Llama": times[best]}) | shared for name in WEIGHTS]
        lines.append({"row": "S13 context", "what": "decode, 10M", "who": "Llama", "tokens_per_second": round(1 / times[best], 1)} | shared)
    return lines


def position_rows(options: argparse.Namespace) -> list[Row]:
    """S13. Time at a position over time at the beginning; the text goes there in int8."""
    model, lines = made(SMALL, options.quick), []
    engines = checked(model, 1)
    engine, near, far, at = engines["int8"], model.init_state(1), model.init_state(1), 0
    logits, end = engine(ONE, far)[0][0, 0], 100 if options.quick else options.tokens
    for position in (0, *(each for each in (1000, 10_000, 100_000) if each < end), end):
        while at < position:
            count = min(1000, position - at)
            _, logits, far = engine.write(logits, far, [0.5] * count, temperature=1.0, top_k=None, top_p=None, stop=None)
            at += count
        for name in ("float32", "int8"):
            work = {key: lambda name=name, state=state: engines[name](ONE, state) for key, state in (("near", near), ("far", far))}
            times = medians(work, 3 * options.rounds)
            speed = round(1 / times["far"], 1)
            lines.append({"row": "S13 context", "what": "decode, 10M", "who": name, "context": position, "tokens_per_second": speed})
            if position == end:
                what, over = f"decode, HGRN2 10M, batch 1, at position {end:,}", round(times["far"] / times["near"], 3)
                lines.append(
                    {"row": "S13 position", "what": what, "against": "position 0", "weights": name, "position": end, "ratio": over}
                )
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


PARTS = {
    "step": step_rows, "large": large_rows, "text": text_rows, "onnx": onnx_rows, "llama": llama_rows, "position": position_rows,
}  # fmt: skip
PARTS = {name: without_gradients(part) for name, part in PARTS.items()} | {"loss": loss_rows}

main(__name__, __doc__, PARTS, rounds=15, more=arguments)
