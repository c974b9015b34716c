"""The training stage of a run: steps, a log, held-out checks, checkpoints, and a clean stop at any moment.

A run stopped by Ctrl-C, SIGTERM or kill -9 goes on from its newest checkpoint to the very weights it would have had.
"""

import json
import math
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

import torch

from ritornello import folder
from ritornello.analysis.numerals import nbytes
from ritornello.errors import InputError
from ritornello.experiments.console import Console, clock
from ritornello.experiments.evaluation import score_sample
from ritornello.experiments.machine import keep_freed_memory, matrix_products
from ritornello.experiments.material import Material
from ritornello.experiments.settings import RunConfig
from ritornello.model import LM, parameters
from ritornello.train.loop import Diverged, Trainer

EVERY_SECONDS = 30.0  # between checkpoints


class Stopped(Exception):
    """The user or the system asked to stop; the run is saved."""

    def __init__(self, path: Path, step: int, signum: int):
        super().__init__(f"stopped and saved at step {step:,}; go on with: ritornello resume {path}")
        self.step, self.signum = step, signum


@dataclass
class _Stop:
    """Set by the first signal and read between steps; a second one ends the process at once."""

    signum: int = 0
    before: dict[int, Any] = field(default_factory=dict)

    def __call__(self, signum: int, frame: FrameType | None) -> None:
        if self.signum:
            raise KeyboardInterrupt
        self.signum = signum


@contextmanager
def stop_between_steps() -> Iterator[_Stop]:
    """Ctrl-C and SIGTERM only leave a note, to be read at the end of a step. Outside the main thread signals are left alone."""
    stop = _Stop()
    try:
        for each in (signal.SIGINT, signal.SIGTERM):
            stop.before[each] = signal.signal(each, stop)
    except ValueError:  # not in the main thread
        pass
    try:
        yield stop
    finally:
        for signum, handler in stop.before.items():
            signal.signal(signum, handler)


def announce_words(config: RunConfig, material: Material, console: Console) -> None:
    """Say which of the asked-for counts of words the run reaches, and what keeping weights there takes. InputError if it reaches none."""
    asked, train = config.checkpoint_words, config.train
    sees = round(train.steps * train.batch * train.length * material.words_per_target)
    reached = [words for words in asked if words <= sees]
    if asked and not reached:
        first = folder.words_name(asked[0])
        raise InputError(
            f"--checkpoint-words: the run sees {sees:,} words, and the first checkpoint is at {first}; run longer or name fewer"
        )
    if reached:
        size = nbytes(4 * parameters(config.model) * len(reached))
        beyond = f"; {len(asked) - len(reached)} of those asked for lie beyond its end" if len(reached) < len(asked) else ""
        console.say(f"keeps its weights at {', '.join(map(folder.words_name, reached))} words, {size} on the disk{beyond}")


class Trained(NamedTuple):
    model: LM
    seconds: float  # that its steps took
    weights: str  # whose they are: the last step's, or which average


def train(path: Path, config: RunConfig, material: Material, console: Console) -> Trained:
    """The trained model, on its run's device; begins at the newest checkpoint, if there is one."""
    if config.train.keep_memory:
        keep_freed_memory()
    torch.set_num_threads(config.train.threads)
    torch.manual_seed(config.train.seed)
    model = LM(config.model, config.train.impl)
    trainer = Trainer(material.loss(model, config.train), material.batches(config.train), config.train)
    book = _Book(path, config, material, model, trainer)
    if folder.checkpoints(path):
        book.reopen()
        console.say(f"going on from step {trainer.step:,} of {config.train.steps:,}")
    else:
        if config.start_from is not None:
            folder.put_weights(model, folder.weights(folder.load(config.start_from).model), config.start_from)
        book.save()
    with matrix_products(config.train.gemm) as gemm, stop_between_steps() as stop, book:
        if gemm != config.train.gemm:
            console.say(f"on this processor oneDNN rounds float32 products; they are {gemm}'s own instead")
        try:
            for record in trainer.steps():
                book.write(record, console)
                if book.is_due() or stop.signum:
                    book.save()
                if stop.signum:
                    raise Stopped(path, trainer.step, stop.signum)
        except Diverged as error:
            raise InputError(f"{error}; the last good checkpoint is {folder.checkpoints(path)[-1]}") from error
    if trainer.step > book.saved:
        book.save()
    return Trained(model, book.seconds, trainer.finish())


class _Book:
    """The log and the checkpoints of a run."""

    def __init__(self, path: Path, config: RunConfig, material: Material, model: LM, trainer: Trainer):
        self.path, self.config, self.material, self.model, self.trainer = path, config, material, model, trainer
        self.seconds, self.tokens = 0.0, 0  # of training so far
        self.saved, self.saved_at = -1, 0.0
        self.best: dict[str, float] | None = None  # {"step", "held_out_bits_per_byte"}
        self.since = time.monotonic()
        self.validate_every = max(1, config.train.steps // max(1, config.evaluate.validations))

    def __enter__(self) -> None:
        self.since = time.monotonic() - self.seconds
        self.saved_at = time.monotonic()
        self.file = open(self.path / "log.jsonl", "a", encoding="utf-8")

    def __exit__(self, *error: object) -> None:
        self.file.close()

    def write(self, record: dict[str, Any], console: Console) -> None:
        """One step into the log, with a held-out check where one is due, and onto the progress line."""
        step, steps = self.trainer.step, self.config.train.steps
        seen = self.words
        self.tokens += record.pop("targets")
        self.keep_words(seen)
        if step % self.validate_every == 0 or step == steps:
            record["held_out_bits_per_byte"] = bits = self.validate()
            self.trainer.hear(bits)
            if self.best is None or bits < self.best["held_out_bits_per_byte"]:
                self.best = {"step": step, "held_out_bits_per_byte": bits}
        before, self.seconds = self.seconds, time.monotonic() - self.since
        record |= {
            "bits_per_byte": record.get("cross_entropy", record["loss"]) / math.log(2) / self.material.bytes_per_target,
            "tokens": self.tokens,
            "words": self.words,
            "seconds": round(self.seconds, 3),
            "tokens_per_second": round(self.config.train.batch * self.config.train.length / max(1e-9, self.seconds - before), 1),
        }
        self.file.write(json.dumps(record) + "\n")
        self.file.flush()
        left = self.seconds / step * (steps - step)
        speed = self.tokens / max(1e-9, self.seconds)
        line = f"step {step:,}/{steps:,} · {record['bits_per_byte']:.3f} bits a byte · {speed:,.0f} tokens/s · {clock(left)} left"
        if "held_out_bits_per_byte" in record:
            console.say(f"{line} · held-out {record['held_out_bits_per_byte']:.3f}")
        else:
            console.progress(line)

    @property
    def words(self) -> int:
        """Words of training text seen so far: targets times the corpus's own words for a target, each epoch anew."""
        return round(self.tokens * self.material.words_per_target)

    def keep_words(self, before: int) -> None:
        """The weights, for each asked-for count of words that the last step has reached."""
        for words in self.config.checkpoint_words:
            if before < words <= self.words:
                (self.path / "words").mkdir(exist_ok=True)
                meta = {"words": words, "seen": self.words, "step": self.trainer.step}
                with self.trainer.shown():
                    folder.write_tensors(folder.word_checkpoint(self.path, words), folder.weights(self.model), meta)

    def validate(self) -> float:
        """Bits a byte of a fixed sample of the held-out text."""
        sample = self.material.sample(self.config.evaluate.validation_tokens)
        with self.trainer.shown():
            scored, _ = score_sample(self.model, self.config, self.material, sample)
        return float(scored.nats.double().sum() / math.log(2) / self.material.nbytes(scored.targets).sum())

    def is_due(self) -> bool:
        every = self.config.checkpoint_every
        if self.best is not None and self.best["step"] == self.trainer.step:
            return True
        return self.trainer.step % every == 0 if every else time.monotonic() - self.saved_at >= EVERY_SECONDS

    def save(self) -> None:
        """A checkpoint; then all but the newest two and the best go."""
        step = self.trainer.step
        if step == self.saved:
            return
        meta = {"step": step, "seconds": self.seconds, "tokens": self.tokens, "best": self.best}
        (self.path / "checkpoints").mkdir(exist_ok=True)
        folder.write_tensors(self.path / "checkpoints" / f"step-{step:08d}.safetensors", self.trainer.snapshot(), meta)
        self.saved, self.saved_at = step, time.monotonic()
        keep = {f"step-{int(self.best['step']):08d}" if self.best else ""}
        for old in folder.checkpoints(self.path)[:-2]:
            if old.stem not in keep:
                old.unlink()

    def reopen(self) -> None:
        """Go on from the newest checkpoint, and cut the log to what came before it."""
        newest = folder.checkpoints(self.path)[-1]
        try:
            tensors, meta = folder.read_tensors(newest)
        except InputError as error:
            older = folder.checkpoints(self.path)[:-1]
            raise InputError(
                f"{error}; {f'delete it to go on from {older[-1].name}' if older else 'there is no older one, start anew'}"
            ) from error
        self.trainer.restore(tensors, meta["step"])
        self.seconds, self.tokens, self.best, self.saved = meta["seconds"], meta["tokens"], meta["best"], meta["step"]
        log = self.path / "log.jsonl"
        lines = log.read_text(encoding="utf-8").splitlines(keepends=True) if log.exists() else []
        folder.write_bytes(log, "".join(lines[: self.saved]).encode())
