"""Run folders as a finished run leaves them, made from seeded arithmetic: `python example_runs.py FOLDER` writes some, with pages."""

import json
import math
import random
import re
import sys
from collections import Counter, defaultdict
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

from ritornello.analysis.page import render
from ritornello.analysis.passage import passage

ENGLISH = "\n\n".join(topics[name] for name in sorted(topics))
HEBREW = (
    "בְּרֵאשִׁית בָּרָא אֱלֹהִים אֵת הַשָּׁמַיִם וְאֵת הָאָרֶץ׃ וְהָאָרֶץ הָיְתָה תֹהוּ וָבֹהוּ וְחֹשֶׁךְ עַל־פְּנֵי תְהוֹם וְרוּחַ אֱלֹהִים מְרַחֶפֶת עַל־פְּנֵי הַמָּיִם׃\n"
    "וַיֹּאמֶר אֱלֹהִים יְהִי אוֹר וַיְהִי־אוֹר׃ וַיַּרְא אֱלֹהִים אֶת־הָאוֹר כִּי־טוֹב וַיַּבְדֵּל אֱלֹהִים בֵּין הָאוֹר וּבֵין הַחֹשֶׁךְ׃\n"
    "בשנת 1923 נוסדה החברה (Hebrew Society) בעיר חיפה; היא מנתה 41 חברים.\n\n"
) * 8
HOSTILE = "x</script><script>alert(1)</script> <b onclick='a()'>&amp; \u202egnihton\x00\n{{ 7*7 }} \u2028 <!-- \"quoted\"\n"
TOPICS = ("agreement", "binding", "control", "ellipsis", "filler_gap", "irregular_forms", "island_effects", "npi_licensing", "quantifiers")


def scored(text: str, unit: str, count: int) -> dict[str, Any]:
    """A passage as a bigram model over the text's own pieces would score it; `unit` is a pattern, or "" for single bytes."""
    pieces = [bytes([byte]) for byte in text.encode()] if not unit else [piece.encode() for piece in re.findall(unit, text, re.DOTALL)]
    names = list(dict.fromkeys(pieces))
    ids = [names.index(piece) for piece in pieces]
    train, held = ids[count:] or ids, ids[:count]
    single, double = Counter(train), defaultdict(Counter)
    for first, second in pairwise(train):
        double[first][second] += 1
    nats, guesses = [], []
    for before, token in zip([0, *held], held, strict=False):
        follow = double[before]
        total = follow.total()

        def probability(target: int, follow: Counter = follow, total: int = total) -> float:
            base = (single[target] + 0.1) / (single.total() + 0.1 * len(names))
            return (follow[target] + 2 * base) / (total + 2)

        nats.append(-math.log(probability(token)))
        likely = [target for target, _ in (follow or single).most_common(5)]
        guesses.append([(target, probability(target)) for target in likely])
    return passage(nats, held, names, guesses, name="document 17")


def log_lines(steps: int, rng: random.Random, end: float = 2.0) -> list[dict[str, Any]]:
    """A loss that falls from 8 bits per byte like a power of the step."""
    lines = []
    for step in range(1, steps + 1):
        bits = end + (8 - end) / step**0.45 + rng.gauss(0, 0.06)
        line = {"step": step, "loss": bits * 2.9, "bits_per_byte": bits, "lr": 0.003, "tokens": step * 4096, "words": step * 2900}
        line |= {"seconds": 3 + step * 140 / steps, "tokens_per_second": 31_000.0}
        if step % max(1, steps // 12) == 0:
            line["held_out_bits_per_byte"] = end + 0.05 + (8 - end) / step**0.44
        lines.append(line)
    return lines


def pairs(suite: str, tasks: Sequence[str], rng: random.Random) -> list[dict[str, Any]]:
    """Minimal pairs: three metrics a subtask and over all."""
    rows = []
    scores = {task: min(0.99, max(0.1, rng.gauss(0.68, 0.17))) for task in tasks}
    scores["all"] = scores["all pairs"] = sum(scores.values()) / len(scores)
    for task, value in scores.items():
        n = 880 * len(tasks) if task.startswith("all") else 880
        for metric, shift in (("accuracy (official)", 0.0), ("accuracy (half credit)", -0.004)):
            stderr = math.sqrt(value * (1 - value) / n)
            rows.append(row(suite, task, metric, value + shift, stderr, n, chance=0.5))
        rows.append(row(suite, task, "ties", 0.008, 0.0003, n))
    return rows


def row(suite: str, task: str, metric: str, value: float | None, stderr: float | None = None, n: int = 0, **more: Any) -> dict[str, Any]:
    fields = {"suite": suite, "task": task, "metric": metric, "value": value, "stderr": stderr, "n": n}
    return fields | {"chance": None, "by": "model", "reason": None} | more


def results(shown: dict[str, Any], samples: Sequence[str], prompt: str, rng: random.Random, subtasks: int) -> dict[str, Any]:
    rows = [row("held-out", "all", "bits per byte", 2.0123, 0.012, 31_744), row("held-out", "all", "perplexity", 61.8, 1.1, 31_744)]
    grams = {"by": "5-gram (modified Kneser-Ney)"}
    rows += [
        row("held-out", "all", "bits per byte", 2.448, 0.013, 31_744, **grams),
        row("held-out", "all", "perplexity", 141.3, 2.6, 31_744, **grams),
    ]
    if subtasks:
        rows += pairs("blimp_filtered", [f"{TOPICS[i % len(TOPICS)]}_with_some_longer_name_{i}" for i in range(subtasks)], rng)
    rows += pairs("agreement", ["across_a_relative_clause", "simple", "with_a_noun_between"], rng)
    rows.append(row("held-out", "all", "bits per byte minus 5-gram (modified Kneser-Ney)", -0.436, 0.005, 31_744))
    rows.append(row("entity_tracking", "all", "accuracy (official)", None, reason="no folder was given: --pairs FOLDER"))
    stages = {"read": 1.9, "tokenizer": 6.1, "probe": 9.4, "train": 143.2, "evaluate": 17.3, "total": 181.0}
    return {
        "rows": rows,
        "cost": {
            "parameters": 1_213_440,
            "parameters_without_embedding": 689_152,
            "train_tokens_per_second": 31_240.5,
            "generate_tokens_per_second": 1_412.2,
            "peak_memory_bytes": 1_204_000_000,
            "seconds": stages,
            "state_bytes": {"1000": 262_144, "1000000": 262_144},
            "kv_bytes": {"1000": 4_096_000, "1000000": 4_096_000_000},
        },
        "passage": shown,
        "samples": [
            {"temperature": t, "seed": 1, "prompt": prompt, "text": text, "tokens": 200, "tokens_per_second": 1_400.7}
            for t, text in zip((0.5, 0.8, 1.1), samples, strict=True)
        ],
        "words_seen": 3_100_000,
        "headline": {"bits_per_byte": 2.0123, "stderr": 0.012, "baseline_bits_per_byte": 2.448, "baseline": "5-gram (modified Kneser-Ney)"},
    }


def write(
    folder: Path, name: str, shown: dict[str, Any], samples: Sequence[str], prompt: str = "", steps: int = 1100, subtasks: int = 0
) -> Path:
    """A whole run folder."""
    rng = random.Random(7)
    run = folder / name
    run.mkdir(parents=True)
    config = {
        "format": 1,
        "minutes": 3.0,
        "corpus": {"spec": f"texts/{name}.txt", "name": name, "documents": 812, "words": 203_000, "nbytes": 1_115_394},
        "tokenizer": {"kind": "bpe", "size": 4096},
        "model": {
            "vocab": 4096,
            "dim": 128,
            "layers": ["hgrn2"] * 5,
            "channel": "swiglu",
            "mixers": {"hgrn2": {"head_dim": 64}},
            "tied": True,
        },
        "train": {
            "steps": steps,
            "batch": 16,
            "length": 256,
            "lr": 0.003,
            "seed": 1,
            "epochs": 8.4,
            "optimizer": "muon",
            "schedule": "wsd",
            "dropout": 0.1,
        }
        | {"carry": False, "precision": "float32", "impl": "auto", "threads": 2},
        "plan": "In 3 minutes this machine can read 3.1M words, 8.4 epochs: 5 layers of width 128, 1,100 steps.",
    }
    made_by = {
        "ritornello": "0.1.0",
        "commit": "cb49841aa001",
        "python": "3.11.9",
        "versions": {"torch": "2.13.0", "numpy": "2.2.1", "tokenizers": "0.22.0"},
        "system": "Linux 6.1 x86_64",
        "cpu": "A processor at 2.6 GHz",
        "cores": 2,
        "memory_bytes": 16_000_000_000,
        "threads": 2,
        "gpu": None,
        "started": "2026-11-20T10:00:00+00:00",
        "command": f"ritornello run texts/{name}.txt --minutes 3",
        "data": {f"texts/{name}.txt": "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed"},
        "licence": "public domain; see https://example.org/terms",
    }
    tables = {"config": config, "provenance": made_by, "results": results(shown, samples, prompt, rng, subtasks)}
    for file, table in tables.items():
        (run / f"{file}.json").write_text(json.dumps(table, ensure_ascii=False), encoding="utf-8")
    (run / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in log_lines(steps, rng)), encoding="utf-8")
    return run


def english(folder: Path) -> Path:
    shown = scored(ENGLISH[20_000:200_000], r" ?\w{1,6}|\s|[^\w\s]+", 2500)
    samples = [ENGLISH[at : at + 620] for at in (30_000, 61_000, 92_000)]
    return write(folder, "documentation", shown, samples, prompt="Once upon a time", steps=3000, subtasks=67)


def hebrew(folder: Path) -> Path:
    return write(folder, "עברית", scored(HEBREW, r" ?\w{1,3}|.", 1200), [HEBREW[:400], HEBREW[100:500], HEBREW[60:380]], prompt="בראשית")


def by_bytes(folder: Path) -> Path:
    return write(folder, "poème", scored("Où est l’été? 你好, नमस्ते 👩‍👩‍👧 🇫🇷\n" * 60, "", 1600), ["Où?", "est", "é"], steps=12)


def hostile(folder: Path) -> Path:
    return write(folder, "<img src=x onerror=alert(1)>", scored(HOSTILE * 20, r"</?\w+>|\w+|.", 400), [HOSTILE] * 3, prompt="<i>", steps=3)


def minimal(folder: Path) -> Path:
    run = folder / "minimal"
    run.mkdir(parents=True)
    (run / "config.json").write_text('{"format": 1}')
    return run


if __name__ == "__main__":
    for build in (english, hebrew, by_bytes, hostile, minimal):
        made = build(Path(sys.argv[1]))
        text = render(made)
        (made / "report.html").write_text(text, encoding="utf-8")
        print(f"{made.name}: {len(text.encode()):,} bytes")
