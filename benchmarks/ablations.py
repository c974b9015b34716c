"""What each switch of learning buys from a million words: one switch at a time against one base, several seeds.

    python -m benchmarks.ablations --data FOLDER --out FOLDER [--only NAME ...] [--seeds 3] [--jobs 2] [--most N] [--passes 1]

`--data` holds babymix; OUT/babymix-1m is built from recipes/data/babymix.toml. A run is a folder OUT/runs/NAME-seedN, and a line of
docs/results/runs.jsonl (study "switches") once it is trained and scored on BLiMP-fast. Called again it goes on where it was, in the
middle of a run too. Every switch's first seed comes before any second one. At the end, or with --table alone, it says what the lines so
far allow to say. The base is no recommendation: it is small and quick, so that there can be many runs.
"""

import argparse
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from benchmarks import quality
from ritornello import folder
from ritornello.config import from_dict, read_file, to_dict
from ritornello.errors import InputError
from ritornello.experiments import corpora, statistics
from ritornello.experiments.cells import Job, worker
from ritornello.experiments.console import Console, clock
from ritornello.experiments.record import append, read, record, scores
from ritornello.experiments.run import begin, prepare, request
from ritornello.experiments.settings import RunConfig
from ritornello.jobs import spread

ROOT = Path(__file__).resolve().parents[1]
LINES = ROOT / "docs" / "results" / "runs.jsonl"
STUDY, SUITE, CORPUS = "switches", "blimp-fast", "babymix-1m"
PASS = 810  # steps of the base over the text once
BASE: dict[str, Any] = {
    "mixer": "hgrn2",
    "dim": 128,
    "layers": 4,
    "vocab": 4096,
    "batch": 16,
    "length": 128,
    "threads": 1,
    "model": {"dropout": 0.1},
    "train": {"precision": "bfloat16", "gemm": "onednn"},
    "evaluate": {"sample_tokens": 20},
}
SWITCHES: dict[str, dict[str, Any]] = {
    "base": {},
    "rate halved": {"lr": 0.004},
    "rate doubled": {"lr": 0.016},
    "adamw": {"lr": 0.003, "train": {"optimizer": "adamw"}},
    "linear schedule": {"train": {"schedule": "linear"}},
    "cosine schedule": {"train": {"schedule": "cosine"}},
    "no weight decay": {"train": {"weight_decay": 0.0}},
    "no dropout": {"model": {"dropout": 0.0}},
    "dropout 0.2": {"model": {"dropout": 0.2}},
    "locked dropout": {"model": {"locked_dropout": True}},
    "word dropout": {"model": {"word_dropout": 0.1}},
    "output dropout": {"model": {"output_dropout": 0.2}},
    "ar and tar": {"train": {"objective": {"ar": 2.0, "tar": 1.0}}},
    "z-loss": {"train": {"objective": {"z": 1e-4}}},
    "smoothing": {"train": {"objective": {"smoothing": 0.1}}},
    "focal": {"train": {"objective": {"focal": 1.0}}},
    "masked rows": {"train": {"objective": {"masked": {"share": 0.25}}}},
    "masked rows at first": {"train": {"objective": {"masked": {"share": 0.5, "share_end": 0.0}}}},
    "ema": {"train": {"average": {"decay": 0.995}}},
    "ema, constant rate": {"train": {"schedule": "constant", "average": {"decay": 0.995}}},
    "nt-asgd, constant rate": {"train": {"schedule": "constant", "average": {"kind": "nt-asgd"}}},
    "no carried state": {"train": {"carry": False}},
    "state through documents": {"train": {"pieces": {"documents": False}}},
    "varied lengths": {"train": {"pieces": {"spread": 0.07, "halved": 0.05}}},
    "short rows first": {"train": {"pieces": {"short": 16}}},
    "length 64": {"length": 64, "batch": 32},
    "length 64, no carried state": {"length": 64, "batch": 32, "train": {"carry": False}},
    "length 32, no carried state": {"length": 32, "batch": 64, "train": {"carry": False}},
    "length 256": {"length": 256, "batch": 8},
    "short documents first": {"train": {"order": "length"}},
    "foreseeable documents first": {"train": {"order": "surprisal"}},
    "short convolution": {"model": {"mixers": {"hgrn2": {"conv": 4}}}},
    "window on top": {"mixer": "hgrn2*3 window"},
    "attention on top": {"mixer": "hgrn2*3 attention"},
    "vocabulary of 2,048": {"vocab": 2048},
    "vocabulary of 8,192": {"vocab": 8192},
    "head of its own": {"model": {"tied": False}},
}


def settings(name: str, seed: int, passes: float) -> dict[str, Any]:
    """The settings of `ritornello run` for a switch: the base's, with its own over them. Other tokens get as many words, not steps."""
    asked = _over(BASE, SWITCHES[name]) | {"seed": seed}
    return asked | ({"steps": round(passes * PASS)} if asked["vocab"] == BASE["vocab"] else {"epochs": passes})


def _over(base: dict[str, Any], own: dict[str, Any]) -> dict[str, Any]:
    return base | {key: _over(base[key], value) if isinstance(base.get(key), dict) else value for key, value in own.items()}


def place(out: Path, name: str, seed: int) -> Path:
    return out / "runs" / f"{name.replace(',', '').replace(' ', '-')}-seed{seed}"


def settle(path: Path, corpus: str, name: str, seed: int, passes: float, console: Console) -> RunConfig:
    """The config of a run, its folder begun if it was not. InputError if it was begun with other steps."""
    asked = request(corpus=corpus, **settings(name, seed, passes))
    if (path / "config.json").exists():
        config = from_dict(RunConfig, folder.read_config(path))
        if asked.steps not in (None, config.train.steps):
            raise InputError(
                f"{path}: was begun with {config.train.steps} steps, not {asked.steps}; choose another --out or the same --passes"
            )
        return config
    config, material, _ = prepare(asked, console, time.monotonic())
    begin(path, config, material)
    return config


def spend(jobs: Sequence[tuple[str, int]], options: argparse.Namespace, console: Console) -> None:
    """Runs as far as they still have to go, so many at a time, and their lines."""
    corpus, began, about = str(options.out / CORPUS), time.monotonic(), dict[Path, tuple[str, RunConfig]]()

    def settled() -> Iterator[Job]:
        for name, seed in jobs:
            path = place(options.out, name, seed)
            about[path] = name, settle(place(options.out, "base", seed), corpus, "base", seed, options.passes, console)
            settle(path, corpus, name, seed, options.passes, console)
            yield Job(path, suites=(SUITE,), data=str(options.data))

    with closing(spread(worker(options.jobs, console), settled(), options.jobs)) as results:
        for number, (job, _) in enumerate(results, 1):
            failure = job.path / "failed.json"
            reason = str(read_file(failure)["reason"]) if failure.exists() else None
            name, base = about[job.path]
            append(record(job.path, study(options.passes), name, base=to_dict(base), failed=reason), options.lines)
            if options.lines == LINES:
                quality.render()
            left = (time.monotonic() - began) / number * (len(jobs) - number)
            console.say(f"{number} of {len(jobs)}: {job.path.name}{f'; about {clock(left)} left' if left else ''}")


def study(passes: float) -> str:
    """What its lines are filed under."""
    return STUDY if passes == 1 else f"{STUDY} over {passes:g} passes"


def done(out: Path, name: str, seed: int) -> bool:
    path = place(out, name, seed)
    return (path / "failed.json").exists() or (path / "evaluation" / "results.json").exists()


def table(lines: list[dict[str, Any]]) -> str:
    """What each switch changed, as far as the lines tell: held-out bits per byte and BLiMP-fast beside the base's."""
    told = []
    for suite, metric in (("bits_per_byte", "bits per byte"), (SUITE, "accuracy")):
        found = scores(lines, suite)
        base = found.pop("base", None)
        if base is None:
            continue
        told.append(f"{suite}: the base has {statistics.estimate(base).value:.4f}, {len(base)} seeds")
        told += [
            f"  {statistics.conclude(name, 'the base', statistics.difference(own, base), suite, metric)}" for name, own in found.items()
        ]
        told.append(statistics.by_chance(len(found)))
    return "\n".join(told) or "There are no runs yet."


def main() -> None:
    parser = argparse.ArgumentParser(description="One switch of learning at a time against one base.")
    parser.add_argument("--data", type=Path, help="the folder that holds babymix and babylm_eval")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--only", nargs="+", choices=sorted(SWITCHES), metavar="NAME", help=", ".join(SWITCHES))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--passes", type=float, default=1, help="over the text (default 1)")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time, each on a thread")
    parser.add_argument("--most", type=int, metavar="N", help="runs in this call, at most")
    parser.add_argument("--lines", type=Path, default=LINES, help="the file of lines (default docs/results/runs.jsonl)")
    parser.add_argument("--table", action="store_true", help="only say what the lines tell")
    options = parser.parse_args()
    if not options.table:
        if options.data is None or options.out is None:
            parser.error("--data and --out are needed to run anything")
        console = Console(quiet=False)
        options.out.mkdir(parents=True, exist_ok=True)
        if not (options.out / CORPUS).exists():
            corpora.build(ROOT / "recipes" / "data" / "babymix.toml", out=options.out / CORPUS, data=options.data, console=console)
        names = options.only or list(SWITCHES)
        left = [(name, seed) for seed in range(options.seeds) for name in names if not done(options.out, name, seed)]
        spend(left[: options.most], options, console)
    print(table([line for line in read(options.lines) if line["study"] == study(options.passes)]))


if __name__ == "__main__":
    main()
