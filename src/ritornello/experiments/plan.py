"""From what was asked, the text and this machine to a complete RunConfig.

With `--minutes` a probe times real training steps; with `--steps` nothing is measured and the plan is a function of
its inputs alone. Either way everything is settled here, before step 1.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch

from ritornello.config import from_dict, to_dict
from ritornello.errors import InputError
from ritornello.experiments import scaling
from ritornello.experiments.curriculum import settled
from ritornello.experiments.machine import WORST_ERROR, fastest_gemm, keep_freed_memory, matrix_products, onednn_error, pick_device
from ritornello.experiments.material import Material
from ritornello.experiments.settings import CorpusConfig, EvaluateConfig, Request, RunConfig, TokenizerConfig
from ritornello.mixers.layers import describe
from ritornello.model import DROPOUTS, LM, LMConfig, parameters
from ritornello.provenance import cores
from ritornello.train.loop import TrainConfig, Trainer

THREADS = 2  # of a run whose steps were given: a constant, so that the machine has no say
FIRST_GUESS = 1.5e10  # FLOP/s a thread, before the probe
FIRST_GUESS_GPU = 2e13
SPARE = 0.92  # of the time left is planned; the rest is for what no probe foresees
NGRAM_SECONDS_PER_TOKEN = 4e-6  # to fit the baseline, all orders; 29 s for 16.3M subwords, 229 s for 52.4M bytes on one thread
PAGE_SECONDS = 2.0


@dataclass(frozen=True)
class Speed:
    """What the probe found."""

    seconds_per_step: float
    seconds_per_scored_token: float
    seconds_per_sampled_token: float


def plan(request: Request, material: Material, evaluate: EvaluateConfig, pair_tokens: int, left: Callable[[], float]) -> RunConfig:
    """The run's config. `left` tells how many seconds of the user's minutes remain; not called when steps were given."""
    steps = request.steps or request.train.get("steps")
    if steps is not None:
        model, train = _fixed(request, material, steps)
        trial = LM(model, train.impl)  # what cannot work, such as an unknown implementation, is said before anything is written
        trial(torch.zeros(1, 1, dtype=torch.int64), trial.init_state(1))
        material.loss(trial, train)
    else:
        model, train = _probed(request, material, evaluate, pair_tokens, left)
    if train.gemm == "onednn" and onednn_error() > WORST_ERROR:
        raise InputError(
            f"train.gemm: on this processor oneDNN rounds float32 products (by {onednn_error():.0e} of them); use train.gemm=torch"
        )
    corpus = material.corpus
    return RunConfig(
        plan=_sentence(model, train, material, request, steps is None),
        minutes=None if steps is not None else (request.minutes or 3.0),
        corpus=CorpusConfig(
            spec=request.corpus,
            documents=request.documents,
            encoding=request.encoding,
            column=request.column,
            name=corpus.name,
            cut=corpus.documents,
            key=corpus.key,
            words=corpus.words,
            nbytes=corpus.nbytes,
            sources=corpus.sources,
        ),
        tokenizer=TokenizerConfig(kind=material.kind, size=material.tokenizer.size, sha256=material.tokenizer.sha256),
        model=model,
        train=train,
        evaluate=evaluate,
        teach=material.school.config if material.school else None,
        start_from=request.start_from,
        checkpoint_every=request.checkpoint_every,
        checkpoint_words=request.word_counts,
        licence=request.licence,
    )


def in_steps(request: Request, material: Material) -> Request:
    """The request with its passes over the text as steps, and with the batch they are made of."""
    if request.epochs is None:
        return request
    tokens = request.epochs * material.unique
    batch, length = (request.train.get(name, getattr(request, name)) for name in ("batch", "length"))
    batch, length = scaling.batch_shape(tokens, material.unique, batch, length)
    return replace(request, epochs=None, steps=max(1, round(tokens / (batch * length))), batch=batch, length=length)


def _fixed(request: Request, material: Material, steps: int) -> tuple[LMConfig, TrainConfig]:
    """Sizes from the number of steps: each step is taken for 4,096 tokens and 20 tokens for each weight, as Hoffmann et al. found best."""
    unique = material.unique
    batch, length = scaling.batch_shape(steps * 4096, unique, request.batch, request.length)
    tokens = steps * batch * length
    shape = _shape(request, material, 6.0 * tokens * max(tokens / 20, 1.0), batch, length)
    shape = replace(shape, tokens=tokens, batch=batch, length=length, dropout=scaling.dropout(tokens / unique))
    return _configs(request, material, shape, steps=steps, threads=request.threads or THREADS, precision="float32")


def _probed(
    request: Request, material: Material, evaluate: EvaluateConfig, pair_tokens: int, left: Callable[[], float]
) -> tuple[LMConfig, TrainConfig]:
    """Sizes and steps that fill the time: who multiplies fastest, guess a shape, time it, correct the shape once, time precisions and
    threads, count steps."""
    if request.train.get("keep_memory", True):
        keep_freed_memory()
    threads, gpu = request.threads or cores(), pick_device(request.device) != "cpu"
    if "gemm" not in request.train and not gpu:
        request = replace(request, train={"gemm": fastest_gemm(threads)} | request.train)
    model, train = _for_time(request, material, FIRST_GUESS_GPU if gpu else FIRST_GUESS * threads, left(), threads)
    probe = min(2.0, 0.01 * left())
    flop = _flop_per_step(model, train) / time_steps(model, train, material, probe)
    model, train = _for_time(request, material, flop, left(), threads)
    trials = [train]
    if "precision" not in request.train and _fast_bfloat16(train.device):
        trials.append(replace(train, precision="bfloat16"))
    if request.threads is None and threads > 1 and not gpu:
        trials.append(replace(trials[-1], threads=1))
    seconds = [time_steps(model, trial, material, probe) for trial in trials]
    train = trials[seconds.index(min(seconds))]
    if min(seconds) < 0.7 * _flop_per_step(model, train) / flop:  # faster than thought by more than noise: a larger model fits
        precision, threads = train.precision, train.threads
        model, train = _for_time(request, material, _flop_per_step(model, train) / min(seconds), left(), threads)
        train = replace(train, precision=precision)
    speed = measure(model, train, material, 3 * probe)
    scoring = _scored_tokens(material, evaluate, pair_tokens) * speed.seconds_per_scored_token
    ngram = min(len(material.train.ids), evaluate.ngram_tokens) * NGRAM_SECONDS_PER_TOKEN
    seconds_left = SPARE * left() - scoring - ngram - 3 * evaluate.sample_tokens * speed.seconds_per_sampled_token - PAGE_SECONDS
    steps = int(seconds_left / speed.seconds_per_step)
    if steps < 1:
        raise InputError(
            f"{request.minutes or 3:g} minutes are too short: evaluation alone takes {scoring + ngram:.0f} s here; give more --minutes"
        )
    return model, replace(train, steps=min(steps, _most_steps(material, train)))


def _for_time(request: Request, material: Material, flop_per_second: float, seconds: float, threads: int) -> tuple[LMConfig, TrainConfig]:
    shape = _shape(request, material, 0.8 * flop_per_second * max(seconds, 1.0), request.batch, request.length)
    return _configs(request, material, shape, steps=shape.steps, threads=threads, precision=request.train.get("precision", "float32"))


def _shape(request: Request, material: Material, flop: float, batch: int | None, length: int | None) -> scaling.Shape:
    parent = material.parent
    return scaling.choose(
        flop,
        material.unique,
        material.tokenizer.size,
        pattern=request.mixer or "hgrn2",
        channel=request.channel_name,
        dim=parent.dim if parent else request.model.get("dim", request.dim),
        layers=len(parent.layers) if parent else len(request.model["layers"]) if "layers" in request.model else request.layers,
        batch=request.train.get("batch", batch),
        length=request.train.get("length", length),
    )


def _configs(
    request: Request, material: Material, shape: scaling.Shape, *, steps: int, threads: int, precision: Literal["float32", "bfloat16"]
) -> tuple[LMConfig, TrainConfig]:
    """The plan's values, with everything the user fixed put over them."""
    if material.parent is not None:
        if foreign := sorted(set(request.model) - set(DROPOUTS)):
            raise InputError(f"model.{foreign[0]} cannot go with --from: {request.start_from} brings its model; only dropout may change")
        model = from_dict(LMConfig, to_dict(material.parent) | {"dropout": shape.dropout} | request.model, "model")
    else:
        layers = tuple(request.model.get("layers", shape.layers))
        planned = scaling.model_config(material.tokenizer.size, shape.dim, layers, shape.dropout, request.channel_name)
        model = from_dict(LMConfig, _merged(to_dict(planned), request.model), "model")
    if model.vocab < material.tokenizer.size:
        raise InputError(f"model.vocab: {model.vocab} is less than the tokenizer's {material.tokenizer.size} ids")
    train: dict[str, Any] = {
        "steps": steps,
        "batch": shape.batch,
        "length": shape.length,
        "lr": request.lr or rate_for(shape.dim),
        "seed": request.seed,
        "threads": threads,
        "device": pick_device(request.device),
        "precision": precision,
        "carry": not any(scaling.mixer(kind).grows for kind in model.layers),
    }
    config = from_dict(TrainConfig, train | request.train, "train")
    config = replace(config, order=settled(config.order))
    if config.carry and any(scaling.mixer(kind).grows for kind in model.layers):
        raise InputError("train.carry: this model's state grows with the text, so it cannot be carried through training; leave carry out")
    return model, config


def rate_for(dim: int) -> float:
    """The peak rate: 8e-3 up to a width of 128, then falling with the square root of the width: 4e-3 at 512."""
    return 8e-3 * min(1.0, (128 / dim) ** 0.5)


def time_steps(model: LMConfig, train: TrainConfig, material: Material, seconds: float) -> float:
    """Seconds a training step takes: the mean of at least three, the first not counted."""
    torch.set_num_threads(train.threads)
    lm = LM(model, train.impl)
    trainer = Trainer(material.loss(lm, train), material.batches(train), replace(train, steps=10**9))
    took: list[float] = []
    before = time.perf_counter()
    with matrix_products(train.gemm):
        for _ in trainer.steps():
            now = time.perf_counter()
            took.append(now - before)
            before = now
            if len(took) >= 4 and sum(took) > seconds:
                return sum(took[1:]) / len(took[1:])
    raise AssertionError("the probe's steps do not end")


def measure(model: LMConfig, train: TrainConfig, material: Material, seconds: float) -> Speed:
    """Training, scoring and sampling speed of the very model that will be trained."""
    step = time_steps(model, train, material, seconds)
    lm = LM(model, train.impl).eval().to(train.device)
    batch = material.batches(train)(0, 0)
    tokens = batch.tokens.to(train.device)
    with torch.inference_mode(), matrix_products(train.gemm):
        scored = _best_of(3, lambda: lm(tokens, lm.init_state(len(tokens)))[0].float().log_softmax(-1)[0, 0, 0].item())
        one, state = batch.tokens[:1, :1], lm.cpu().init_state(1)  # texts are written on the processor
        sampled = _best_of(5, lambda: lm(one, state))
    return Speed(step, scored / batch.tokens.numel(), sampled)


def _best_of(times: int, function: Callable[[], Any]) -> float:
    took = []
    for _ in range(times):
        before = time.perf_counter()
        function()
        took.append(time.perf_counter() - before)
    return sorted(took)[times // 2]


def _scored_tokens(material: Material, evaluate: EvaluateConfig, pair_tokens: int) -> int:
    held_out = len(material.held_out.ids)
    return min(held_out, evaluate.held_out_tokens) + evaluate.validations * min(held_out, evaluate.validation_tokens) + pair_tokens


def _flop_per_step(model: LMConfig, train: TrainConfig) -> float:
    weights = parameters(model, embedding=False) + model.vocab * model.dim
    return scaling.flop_per_token(weights) * train.batch * train.length


def _most_steps(material: Material, train: TrainConfig) -> int:
    return max(1, scaling.MOST_PASSES * material.unique // (train.batch * train.length))


def _fast_bfloat16(device: str) -> bool:
    """Whether this processor or GPU multiplies bfloat16 by itself; elsewhere the trial would only cost time."""
    if torch.device(device).type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()


def _merged(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    return base | {
        key: _merged(base[key], value) if isinstance(value, dict) and isinstance(base.get(key), dict) else value
        for key, value in over.items()
    }


def _sentence(model: LMConfig, train: TrainConfig, material: Material, request: Request, probed: bool) -> str:
    """The plan in one sentence."""
    passes = train.steps * train.batch * train.length / material.unique
    start = f" that goes on from {request.start_from}" if request.start_from else ""
    if material.school:
        start += f", taught by {' and '.join(material.school.config.teachers)},"
    where = f"{train.threads} thread{'s' * (train.threads > 1)}" if train.device == "cpu" else train.device
    machine = f"{where}, {train.precision}"
    machine += ", products by oneDNN" * (train.gemm == "onednn")
    why = f"fits {request.minutes or 3.0:g} minutes on this machine ({machine})" if probed else "was asked for"
    layers = describe(model.layers)
    return (
        f"A model of {parameters(model) / 1e6:.2f}M parameters ({layers}, {model.dim} wide){start} trains for {train.steps:,} steps "
        f"of {train.batch} x {train.length} tokens, {passes:.1f} passes over the {material.corpus.words:,} words of "
        f"{material.corpus.name}: that {why}."
    )
