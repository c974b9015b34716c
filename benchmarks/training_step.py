"""A whole training step: S8, S9, S10, where its time goes, and what data and log cost.

    python -m benchmarks.training_step [--only S8] [--rounds 7] [--quick] [--compile] [--threads 2] [--keep]

Each candidate is a process of its own, so that settings of one (malloc's, matrix products') cannot help or harm another; the processes take
one step each in turn, and medians of their processor time count (wall time with more than one thread). Before anything is timed, HGRN2's
loss and gradients are compared with the loop's, and the plain transformer's with those of our attention model, on the same weights.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks import common, step_parts
from benchmarks.document import ROOT
from ritornello.data.batches import Batch, Batches
from ritornello.data.tokens import Tokens
from ritornello.experiments.machine import fastest_gemm, keep_freed_memory, matrix_products
from ritornello.experiments.scaling import flop_per_token
from ritornello.mixers import mixer
from ritornello.model import LM, LMConfig, parameters
from ritornello.provenance import peak_memory
from ritornello.train.loop import TrainConfig, Trainer
from ritornello.train.losses import NextToken

WARM = 3  # steps before those that count
SIZES = {"10M": {"vocab": 8192, "dim": 256, "layers": 10}, "100M": {"vocab": 16384, "dim": 768, "layers": 12}}
TUNED = {"gemm": "auto", "keep_memory": True, "precision": "bfloat16"}
TIMED = {"gemm": "auto", "keep_memory": True, "optimizer": "adamw"}


class Plain(nn.Module):
    """A Llama-like model as a user of plain torch writes it; its weights have the names and shapes of our attention model's."""

    def __init__(self, vocab: int, dim: int, layers: int, hidden: int, head_dim: int = 64):
        super().__init__()
        self.head_dim = head_dim
        self.embedding = nn.Embedding(vocab, dim)
        self.blocks = nn.ModuleList()
        for _ in range(layers):
            time_mixer = nn.ModuleDict({name: nn.Linear(dim, dim, bias=False) for name in ("q", "k", "v", "out")})
            channel = nn.ModuleDict({name: nn.Linear(dim, hidden, bias=False) for name in ("gate", "up")})
            channel["down"] = nn.Linear(hidden, dim, bias=False)
            norms = {name: nn.RMSNorm(dim, eps=1e-6) for name in ("time_norm", "channel_norm")}
            self.blocks.append(nn.ModuleDict({"time": time_mixer, "channel": channel} | norms))
        self.norm = nn.RMSNorm(dim, eps=1e-6)
        self.head = nn.Linear(dim, vocab, bias=False)
        self.head.weight = self.embedding.weight
        nn.init.normal_(self.embedding.weight, std=0.02)

    def forward(self, tokens: Tensor) -> Tensor:
        x, half = self.embedding(tokens), self.head_dim // 2
        angle = torch.arange(tokens.shape[1])[:, None] * 10000.0 ** (-torch.arange(half) / half)
        cos, sin = angle.cos(), angle.sin()

        def turn(x: Tensor) -> Tensor:
            a, b = x.chunk(2, -1)
            return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)

        for block in self.blocks:
            h, maps = block["time_norm"](x), block["time"]
            q, k, v = (maps[name](h).unflatten(-1, (-1, self.head_dim)).transpose(1, 2) for name in ("q", "k", "v"))
            y = F.scaled_dot_product_attention(turn(q), turn(k), v, is_causal=True)
            x = x + maps["out"](y.transpose(1, 2).flatten(-2))
            h, maps = block["channel_norm"](x), block["channel"]
            x = x + maps["down"](F.silu(maps["gate"](h)) * maps["up"](h))
        return self.head(self.norm(x))


def model_config(kind: str, size: dict[str, int]) -> LMConfig:
    return LMConfig(vocab=size["vocab"], dim=size["dim"], layers=(kind,) * size["layers"], channel=mixer(kind).partner)


def batches(vocab: int, batch: int, length: int, pieces: int = 64) -> Batches:
    """Random tokens of one document: a reset in the very first piece only."""
    ids = np.random.default_rng(0).integers(0, vocab, batch * length * pieces + 1).astype(np.uint16)
    return Batches(Tokens(ids, np.array([len(ids)])), bos=0, eos=0, batch=batch, length=length, seed=0)


# ---- a candidate, in a process of its own --------------------------------------------------------------------------------------------


def work(spec: dict[str, Any]) -> None:
    """A step for each line read; answers with its seconds and its loss, at the end with the peak of memory and a step's parts."""
    torch.set_num_threads(spec["threads"])
    clock = time.process_time if spec["threads"] == 1 else time.perf_counter
    if spec.get("keep_memory"):
        keep_freed_memory()
    gemm = spec.get("gemm", "torch")
    torch.manual_seed(0)
    if "profiled" in spec:
        step_parts.name_them()
    steps = (plain_steps if spec["kind"] == "plain" else our_steps)(spec)
    with matrix_products(fastest_gemm(spec["threads"]) if gemm == "auto" else gemm) as by:
        print(json.dumps({"gemm": by}), flush=True)
        for _ in sys.stdin:
            before = clock()
            loss = next(steps)
            print(json.dumps({"seconds": clock() - before, "loss": loss}), flush=True)
        parts = step_parts.seconds(steps, spec["profiled"]) if "profiled" in spec else {}
    print(json.dumps({"peak_memory": peak_memory(), "parts": parts}), flush=True)


def our_steps(spec: dict[str, Any]) -> Iterator[float]:
    train = TrainConfig(
        steps=10**6, batch=spec["batch"], length=spec["length"], threads=spec["threads"], optimizer=spec.get("optimizer", "muon"),
        precision=spec.get("precision", "float32"), carry=not mixer(spec["kind"]).grows, loss_chunk=spec.get("loss_chunk"),
        impl=spec.get("impl", "auto"),
    )  # fmt: skip
    loss: Any = NextToken(LM(model_config(spec["kind"], spec["size"]), train.impl), train.loss_chunk)
    if spec.get("compiled"):
        loss.compile()
    trainer = Trainer(loss, batches(spec["size"]["vocab"], train.batch, train.length), train)
    return (record["loss"] for record in trainer.steps())


def plain_steps(spec: dict[str, Any]) -> Iterator[float]:
    """torch as it comes: nothing fused, nothing routed."""
    size = spec["size"]
    model = Plain(size["vocab"], size["dim"], size["layers"], hidden(size["dim"]))
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-4, weight_decay=0.1)
    pieces = batches(size["vocab"], spec["batch"], spec["length"])
    for step in range(10**6):
        batch = pieces(*divmod(step, pieces.steps))
        with torch.autocast("cpu", torch.bfloat16, enabled=spec.get("precision") == "bfloat16"):
            loss = F.cross_entropy(model(batch.tokens).flatten(0, 1), batch.targets.flatten())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        yield loss.item()


def hidden(dim: int) -> int:
    return -(-8 * dim // (3 * 64)) * 64


class Candidate:
    """A process that takes steps when told."""

    def __init__(self, **spec: Any):
        words = [sys.executable, "-m", "benchmarks.training_step", "--worker", json.dumps(spec)]
        self.process = subprocess.Popen(words, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.gemm = self._read()["gemm"]
        self.took: list[float] = []

    def step(self) -> float:
        assert self.process.stdin is not None
        self.process.stdin.write("step\n")
        self.process.stdin.flush()
        self.took.append(self._read()["seconds"])
        return self.took[-1]

    @property
    def seconds(self) -> float:
        """The median step, those not counted in which the process's memory is still growing."""
        return statistics.median(self.took[WARM:])

    def end(self) -> dict[str, Any]:
        """peak_memory, the bytes held at most; and the seconds of a step's parts if the candidate was to look at them."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        found = self._read()
        self.process.wait()
        return found

    def _read(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"a candidate ended with exit code {self.process.wait()}")
        return json.loads(line)


def race(rounds: int, **specs: dict[str, Any]) -> dict[str, Candidate]:
    """All candidates, a step each in turn; ended."""
    runners = {name: Candidate(**spec) for name, spec in specs.items()}
    for _ in range(WARM + rounds):
        for runner in runners.values():
            runner.step()
    for runner in runners.values():
        runner.end()
    return runners


# ---- correctness ---------------------------------------------------------------------------------------------------------------------


def check() -> dict[str, float]:
    """The largest relative error of a gradient: HGRN2's best form beside its loop, the plain transformer beside ours."""
    small, errors = {"vocab": 512, "dim": 128, "layers": 2}, {}
    batch = batches(512, 2, 96)(0, 1)
    for kind in ("hgrn2", "attention"):
        torch.manual_seed(0)
        config = model_config(kind, small)
        ours = LM(config)
        if kind == "hgrn2":
            other: nn.Module = LM(config, "loop")
        else:
            other = Plain(small["vocab"], small["dim"], small["layers"], hidden(small["dim"]))
        other.load_state_dict(ours.state_dict())
        gradients = []
        for model in (ours, other):
            loss = plain_loss(model, batch) if isinstance(model, Plain) else NextToken(model)(batch, model.init_state(2))[0]
            gradients.append(dict(zip(dict(model.named_parameters()), torch.autograd.grad(loss, list(model.parameters())), strict=True)))
        found, wanted = gradients
        errors[kind] = max(float((found[name] - wanted[name]).norm() / wanted[name].norm().clamp_min(1e-6)) for name in wanted)
        assert errors[kind] < 1e-4, errors
    return errors


def plain_loss(model: Plain, batch: Batch) -> Tensor:
    return F.cross_entropy(model(batch.tokens).flatten(0, 1), batch.targets.flatten(), reduction="sum")


# ---- what is measured ----------------------------------------------------------------------------------------------------------------


def peak(precision: str, gemm: str, threads: int, rounds: int) -> float:
    """FLOP/s of the best large matrix product of this process: the roof of the same run."""
    clock = time.process_time if threads == 1 else time.perf_counter
    torch.set_num_threads(threads)
    best = 0.0
    with matrix_products(gemm):  # type: ignore[arg-type]
        for m, k, n in ((2048, 2048, 2048), (4096, 256, 8192), (4096, 1024, 1024)):
            a, b = torch.ones(m, k, dtype=getattr(torch, precision)), torch.ones(n, k, dtype=getattr(torch, precision))
            for _ in range(rounds + 1):
                before = clock()
                a @ b.mT
                best = max(best, 2 * m * k * n / (clock() - before))
    return best


def s8_s9(options: argparse.Namespace, shape: dict[str, Any]) -> Iterator[dict]:
    """HGRN2 beside attention of the same size, and the share of the best matrix product."""
    size, specs = shape["size"], {}
    for precision in ("float32", "bfloat16"):
        for kind in ("hgrn2", "attention"):
            specs[f"{kind} {precision}"] = shape | TIMED | {"kind": kind, "precision": precision}
        if options.compile:
            specs[f"hgrn2 {precision} compiled"] = specs[f"hgrn2 {precision}"] | {"compiled": True}
    found, tokens = race(options.rounds, **specs), shape["batch"] * shape["length"]
    count = {kind: parameters(model_config(kind, size)) for kind in ("hgrn2", "attention")}
    for precision in ("float32", "bfloat16"):
        ours, other = (found[f"{kind} {precision}"] for kind in ("hgrn2", "attention"))
        yield {
            "row": "S8", "what": f"training step, {precision}, B={shape['batch']} T={shape['length']}", "against": "attention",
            "precision": precision,
            "ratio": round(other.seconds / ours.seconds, 3), "tokens_per_second": round(tokens / ours.seconds), "gemm": ours.gemm,
            "parameters": count,
        }  # fmt: skip
    weights = parameters(model_config("hgrn2", size), embedding=False) + size["vocab"] * size["dim"]
    for name, each in found.items():
        roof = peak(name.split()[1], each.gemm, options.threads, options.rounds)
        share = flop_per_token(weights) * tokens / each.seconds / roof
        if name.startswith("hgrn2"):
            yield {
                "row": "S9",
                "what": f"share of the best matrix product, {name}",
                "precision": name.split()[1],
                "compiled": name.endswith("compiled"),
                "share": round(share, 3),
                "roof_gflops": round(roof / 1e9),
            }


def s10(options: argparse.Namespace, shape: dict[str, Any]) -> Iterator[dict]:
    """Plain torch as it comes beside our tuned default."""
    specs = {
        "plain": shape | {"kind": "plain"},
        "plain, bfloat16": shape | {"kind": "plain", "precision": "bfloat16"},
        "tuned": shape | TUNED | {"kind": "hgrn2"},
        "tuned, AdamW": shape | TUNED | {"kind": "hgrn2", "optimizer": "adamw"},
        "tuned, float32": shape | TUNED | {"kind": "hgrn2", "precision": "float32"},
        "tuned, AdamW, compiled": shape | TUNED | {"kind": "hgrn2", "optimizer": "adamw", "compiled": True},
    }
    if not options.compile:
        specs.popitem()
    found = race(options.rounds, **specs)
    for name, each in found.items():
        if name.startswith("tuned"):
            for other in ("plain", "plain, bfloat16"):
                ratio = round(found[other].seconds / each.seconds, 2)
                yield {"row": "S10", "what": f"{name} HGRN2", "ours": name, "against": other, "ratio": ratio, "gemm": each.gemm}


def profile(options: argparse.Namespace, shape: dict[str, Any]) -> Iterator[dict]:
    """Where a step's time goes: in plain torch with nothing set, and as we train."""
    for precision in ("float32", "bfloat16"):
        for when, settings in (("before", {"impl": "chunk"}), ("after", TUNED)):
            runner = Candidate(**shape | settings | {"kind": "hgrn2", "precision": precision, "profiled": options.rounds})
            for _ in range(WARM):
                runner.step()
            for part, seconds in runner.end()["parts"].items():
                what = f"{part}, a training step of HGRN2, {precision}, {when}"
                yield {"row": "profile", "what": what, "when": when, "precision": precision, "part": part, "ms": round(1000 * seconds, 2)}


def overhead(options: argparse.Namespace, shape: dict[str, Any]) -> Iterator[dict]:
    """What making a batch and writing a line of the log take of a step."""
    step = race(2, ours=shape | TUNED | {"kind": "hgrn2"})["ours"].seconds
    pieces = batches(shape["size"]["vocab"], shape["batch"], shape["length"])
    pieces(0, 0)
    before = time.process_time()
    for index in range(1, 51):
        pieces(0, index)
    data = (time.process_time() - before) / 50
    record = {name: 1.2345678901234567 for name in ("loss", "lr", "grad_norm", "bits_per_byte", "seconds", "tokens_per_second", "tokens")}
    before = time.process_time()
    with tempfile.TemporaryFile("w") as file:
        for _ in range(1000):
            file.write(json.dumps(record) + "\n")
            file.flush()
    log = (time.process_time() - before) / 1000
    yield {"row": "overhead", "what": "share of a step", "data": round(data / step, 6), "log": round(log / step, 6)}


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--compile", action="store_true", help="also compiled: takes a minute each, and a C++ compiler")


def shaped(part: Callable[[argparse.Namespace, dict[str, Any]], Iterator[common.Row]]) -> common.Part:
    """The part on the sizes that the options ask for, once gradients are found equal."""

    def run(options: argparse.Namespace) -> Iterator[common.Row]:
        print("largest relative error of a gradient:", check(), flush=True)
        shape = {"threads": options.threads, "size": SIZES["10M"], "batch": 8, "length": 512}
        if options.quick:
            shape |= {"size": {"vocab": 512, "dim": 128, "layers": 2}, "batch": 2, "length": 64}
        yield from part(options, shape)

    return run


PARTS = {name: shaped(part) for name, part in (("S8", s8_s9), ("S10", s10), ("profile", profile), ("overhead", overhead))}

if sys.argv[1:2] == ["--worker"]:
    work(json.loads(sys.argv[2]))
else:
    common.main(__name__, __doc__, PARTS, more=arguments)
