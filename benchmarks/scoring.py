"""Filtered BLiMP by us and by lm-evaluation-harness, the same 10M-parameter model and kernels on both sides: row S17.

    python -m benchmarks.scoring --data FOLDER [--keep]

The model is an HGRN2 of 256 channels and 10 layers with weights at random, as speed does not depend on them; its tokenizer, 8,192 tokens,
is trained on babymix. Both go from files to a number a sentence, protocol official-2024, the harness at the fastest of its batch sizes.
Whole subtasks, evenly spaced among the 67, are timed; "seconds" is scaled from them to all 59,875 pairs by their number. The time is that
of the processor, all threads together.
"""

import argparse
import lzma
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from importlib import metadata
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks import common
from benchmarks.harness import log_probs, write_tasks
from ritornello.config import to_dict
from ritornello.data.tokenizers import Tokenizer, train_bpe
from ritornello.evals.pairs import read_pairs
from ritornello.evals.subject import CausalSubject, Request
from ritornello.evals.suite import suite
from ritornello.experiments.machine import fastest_gemm, matrix_products
from ritornello.model import LM, LMConfig

BATCHES = (16, 64, 256)
EVERY = 24  # th subtask is timed
PAIRS = 59_875
CLOSE = 1e-3  # nats


def blimp(options: argparse.Namespace) -> Iterator[common.Row]:
    if options.data is None:
        raise SystemExit("where do BLiMP and babymix lie? give --data FOLDER, or set RITORNELLO_DATA")
    words = tokenizer(options.data / "babymix" / "train_10M")
    torch.manual_seed(0)
    model = LM(LMConfig(vocab=words.size, dim=256, layers=("hgrn2",) * 10)).eval()
    subject = CausalSubject(model, words, "10M", "", "official-2024")
    files = options.data / suite("blimp").path
    tasks = dict(islice(read_pairs(files).items(), 0, None, EVERY))
    if options.quick:
        tasks = {name: pairs[:20] for name, pairs in islice(tasks.items(), 2)}
    few = {name: pairs[:100] for name, pairs in islice(tasks.items(), 0, None, 3)}
    with tempfile.TemporaryDirectory() as scratch, matrix_products(fastest_gemm(options.threads)) as gemm:
        harness, whole, part = Harness(model, words, Path(scratch)), Path(scratch, "whole"), Path(scratch, "part")
        write_tasks(tasks, whole)
        write_tasks(few, part)
        by_size = {size: _timed(lambda size=size: harness(part, size))[0] for size in BATCHES}  # type: ignore[misc]
        best = min(by_size, key=by_size.__getitem__)
        times: dict[str, list[float]] = {"ours": [], "harness": []}
        for _ in range(options.rounds):
            took, found = _timed(lambda: ours(subject, whole))
            times["ours"].append(took)
            took, wanted = _timed(lambda: harness(whole, best))
            times["harness"].append(took)
    error = float((found - wanted).abs().max())
    if error > CLOSE:
        raise SystemExit(f"a sentence differs by {error:.2g} nats, so there is nothing to compare")
    seconds, theirs = (statistics.median(times[who]) for who in ("ours", "harness"))
    pairs = len(found) // 2
    yield {
        "row": "S17",
        "what": "filtered BLiMP, 10M parameters",
        "against": f"lm-evaluation-harness {metadata.version('lm_eval')}",
        "ratio": round(theirs / seconds, 3),
        "seconds": round(seconds * PAIRS / pairs, 1),
        "pairs": pairs,
        "error": error,
        "setting": {"batch_size": best, "gemm": gemm},
    }


def tokenizer(folder: Path) -> Tokenizer:
    """8,192 tokens learned from the texts of a folder."""
    texts: list[str] = []
    for file in sorted(folder.glob("*.xz")):
        with lzma.open(file, "rt", encoding="utf-8") as lines:
            texts += lines.read().split("\n\n")
    return train_bpe(texts, 8192)


def ours(subject: CausalSubject, folder: Path) -> Tensor:
    """log p of every sentence, good and bad in turn, a subtask at a time as an evaluation goes."""
    parts = [[Request(side) for pair in pairs for side in (pair.good, pair.bad)] for pairs in read_pairs(folder).values()]
    return torch.cat([subject.log_probs(requests) for requests in parts])


class Harness:
    """lm-evaluation-harness with our model as a class of transformers."""

    def __init__(self, model: LM, words: Tokenizer, scratch: Path):
        from transformers import AutoTokenizer

        from ritornello.hf.modeling import RitornelloConfig, RitornelloForCausalLM
        from ritornello.hf.tokenizer import write_tokenizer

        special = write_tokenizer(words, scratch)
        self.net = RitornelloForCausalLM(RitornelloConfig(lm=to_dict(model.config), **special)).eval()
        self.net.model.lm.load_state_dict(model.state_dict())
        self.words = AutoTokenizer.from_pretrained(scratch)
        self.words.padding_side = "right"

    def __call__(self, folder: Path, size: int) -> Tensor:
        """As `ours`."""
        return torch.cat(list(log_probs(self.net, self.words, folder, size).values())).flatten()


def _timed(work: Any) -> tuple[float, Tensor]:
    before = time.process_time()
    found = work()
    return time.process_time() - before, found


def _options(parser: argparse.ArgumentParser) -> None:
    default = os.environ.get("RITORNELLO_DATA")
    parser.add_argument("--data", type=Path, default=default and Path(default), metavar="FOLDER", help="default: RITORNELLO_DATA")


if __name__ == "__main__":
    os.environ |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
common.main(__name__, __doc__, {"blimp": blimp}, rounds=1, more=_options)
