"""report.html: one file that shows a run. It loads nothing; a part that is missing says why.

`render` reads what a run left in its folder as plain JSON, so a page can be made again at any time.
"""

import json
import math
import shlex
import unicodedata
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from ritornello.analysis import learning, numerals, plots, scores
from ritornello.analysis.passage import SPECIAL
from ritornello.config import read_file
from ritornello.errors import InputError

NAMES = {"hgrn2": "HGRN2", "lstm": "LSTM", "attention": "transformer"}  # what people call a stack of these layers
TOPS = (4.0, 8.0, 12.0, 16.0)  # bits at which the colour scale may end
LEVELS = 9  # colours of the scale
FAINT = 0.001  # less likely guesses are left out
MELODY = 64  # notes in the head of the page


def render(run: Path) -> str:
    """The page of a run folder as one HTML text. Raises InputError if the folder has no config.json."""
    run = Path(run)
    if not (run / "config.json").exists():
        raise InputError(f"{run}: no config.json there; give the folder that `ritornello run` wrote")
    config, results, provenance = (_table(run / f"{name}.json") for name in ("config", "results", "provenance"))
    log = learning.read_log(run / "log.jsonl")
    passage = _passage(results.get("passage"))
    curve = learning.charts(log, _baseline(results))
    view = {
        "name": config.get("corpus", {}).get("name") or run.name,
        "model": _model(config),
        "sentence": _sentence(config, results, log),
        "tiles": _tiles(results),
        "curve": curve,
        "passage": passage,
        "samples": [_sample(sample) for sample in results.get("samples") or []],
        "suites": scores.suites(results.get("rows") or []),
        "cost": _cost(results.get("cost") or {}),
        "plan": config.get("plan"),
        "settings": _settings(config),
        "provenance": flatten(provenance),
        "command": provenance.get("command"),
        "generate": f'ritornello generate {shlex.quote(run.name)} --prompt "Once upon a time" --temperature 0.8',
        "data": _script({"curve": curve.get("data"), "passage": passage.get("data")}),
    }
    return environment().get_template("page.html.j2").render(view)


def environment() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )


def _table(path: Path) -> dict[str, Any]:
    return read_file(path) if path.exists() else {}


def _script(data: Any) -> Markup:
    r"""JSON that may stand inside a script element: `<` is written \u003c, so no text can end it."""
    return Markup(json.dumps(data, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c").replace("\u2028", "\\u2028"))  # noqa: S704


def _model(config: dict[str, Any]) -> str:
    """What the stack is called: "HGRN2", "transformer", "HGRN2 + transformer"."""
    layers = config.get("model", {}).get("layers") or []
    return " + ".join(dict.fromkeys(NAMES.get(layer, layer) for layer in layers)) or "model"


def _baseline(results: dict[str, Any]) -> tuple[str, float] | None:
    """(short name, bits per byte) of what the model is compared with."""
    headline = results.get("headline") or {}
    value = headline.get("baseline_bits_per_byte")
    return None if value is None else (str(headline.get("baseline") or "baseline").partition(" (")[0], float(value))


def _sentence(config: dict[str, Any], results: dict[str, Any], log: Sequence[dict[str, Any]]) -> str:
    """What came out, in one plain sentence made of whatever is known."""
    cost, headline, baseline = results.get("cost") or {}, results.get("headline") or {}, _baseline(results)
    words = results.get("words_seen") or (log[-1].get("words") if log else None)
    seconds = (cost.get("seconds") or {}).get("train") or (log[-1].get("seconds") if log else None)
    text = f"This {_model(config)}" + (f" of {numerals.short(cost['parameters'])} parameters" if cost.get("parameters") else "")
    if words:
        text += f" read {numerals.short(words)} words of {config.get('corpus', {}).get('name', 'its corpus')}"
        text += f" in {numerals.duration(seconds)}" if seconds else ""
    value = headline.get("bits_per_byte")
    if value is None:
        return text + ("; it has not been evaluated." if words else " has not been trained yet.")
    text += (" and now" if words else "") + f" needs {numerals.number(value)} bits per byte of unseen text"
    return text + (f"; a {baseline[0]} needs {numerals.number(baseline[1])}." if baseline else ".")


def _tiles(results: dict[str, Any]) -> list[tuple[str, str, str]]:
    """The key numbers as (value, label, note). One that is not there is left to its section, which says why."""
    cost, headline, baseline = results.get("cost") or {}, results.get("headline") or {}, _baseline(results)
    tiles = []
    if headline.get("bits_per_byte") is not None:
        value = numerals.score("bits per byte", headline["bits_per_byte"], headline.get("stderr"))
        tiles.append((value, "bits per byte, unseen text", f"{baseline[0]}: {numerals.number(baseline[1])}" if baseline else ""))
    right = [
        row
        for row in results.get("rows") or []
        if row["task"] == "all" and row["metric"].startswith("accuracy") and row.get("value") is not None
    ]
    for suite in list(dict.fromkeys(row["suite"] for row in right))[:2]:
        row = next(row for row in right if row["suite"] == suite)
        note = "" if row.get("chance") is None else f"chance: {numerals.score(row['metric'], row['chance'])}"
        tiles.append((numerals.score(row["metric"], row["value"], row.get("stderr")), f"accuracy, {suite.replace('_', ' ')}", note))
    if results.get("words_seen"):
        seconds = (cost.get("seconds") or {}).get("train")
        tiles.append((numerals.short(results["words_seen"]), "words read", f"in {numerals.duration(seconds)}" if seconds else ""))
    if cost.get("parameters"):
        tiles.append((numerals.short(cost["parameters"]), "parameters", ""))
    for key, label in (
        ("train_tokens_per_second", "tokens a second, training"),
        ("generate_tokens_per_second", "tokens a second, writing"),
    ):
        if cost.get(key):
            tiles.append((numerals.short(cost[key]), label, ""))
    state = cost.get("state_bytes") or {}
    if state:
        longest = max(state, key=int)
        tiles.append((numerals.nbytes(state[longest]), f"of state after {numerals.short(int(longest))} tokens", ""))
    return tiles


def _passage(passage: dict[str, Any] | None) -> dict[str, Any]:
    """Lines of (CSS classes, text) parts, the scale, the figures, and what the read-out needs. Class c: a piece goes on; n: a line ends."""
    if not passage or not passage.get("pieces"):
        return {"reason": "No passage was scored."}
    pieces = passage["pieces"]
    ranked = sorted(piece[2] for piece in pieces)
    top = next((top for top in TOPS if ranked[int(0.95 * (len(ranked) - 1))] <= top), TOPS[-1])
    lines: list[list[tuple[str, str]]] = [[]]
    for text, _, bits, _ in pieces:
        level = min(LEVELS - 1, max(0, int(bits / top * (LEVELS - 1) + 0.5)))
        parts = (text or SPECIAL).split("\n")
        for index, part in enumerate(parts):
            last = index + 1 == len(parts)
            if part or not last:
                lines[-1].append((f"s{level}" + " c" * (index > 0) + " n" * (not last), _shown(part)))
            if not last:
                lines.append([])
    total = math.fsum(piece[2] for piece in pieces)
    pool = {guess: index for index, guess in enumerate(dict.fromkeys(guess for piece in pieces for guess, p in piece[3] if p >= FAINT))}
    return {
        "name": passage.get("name"),
        "lines": [(line, _auto("".join(part for _, part in line))) for line in lines],
        "direction": _direction("".join(piece[0] for piece in pieces)) or "ltr",
        "top": numerals.number(top),
        "half": numerals.number(top / 2),
        "levels": range(LEVELS),
        "tokens": numerals.number(passage["tokens"]),
        "bits_per_token": numerals.number(total / passage["tokens"]),
        "bits_per_byte": numerals.number(total / passage["nbytes"]) if passage["nbytes"] else None,
        "melody": plots.staff(
            [piece[2] for piece in pieces[:MELODY]],
            "The beginning of the held-out passage, a note a token: the higher, the more surprising.",
        ),
        "data": {
            "millibits": [round(piece[2] * 1000) for piece in pieces],
            "several": {index: piece[1] for index, piece in enumerate(pieces) if piece[1] != 1},
            "guesses": list(pool),
            "likely": [[value for guess, p in piece[3] if p >= FAINT for value in (pool[guess], round(p * 1000))] for piece in pieces],
        },
    }


def _direction(text: str) -> str | None:
    """The direction of the first letter that has one."""
    kinds = (unicodedata.bidirectional(char) for char in text)
    return next(("ltr" if kind == "L" else "rtl" for kind in kinds if kind in ("L", "R", "AL")), None)


def _auto(line: str) -> Markup:
    """A line finds its own direction, unless it has no letters: then it takes that of the whole text."""
    return Markup(' dir="auto"') if _direction(line) else Markup("")


def _shown(text: str) -> str:
    """Control characters as pictures; everything else as it is."""
    return "".join(chr(0x2400 + ord(char)) if ord(char) < 32 and char != "\t" else char for char in text)


def _sample(sample: dict[str, Any]) -> dict[str, Any]:
    """Lines of (prompt part, written part)."""
    prompt, text = sample.get("prompt") or "", sample.get("text") or ""
    lines, left = [], len(prompt)
    for line in (prompt + text).split("\n"):
        cut = max(0, min(left, len(line)))
        lines.append((_shown(line[:cut]), _shown(line[cut:]), _auto(line)))
        left -= len(line) + 1
    rate = sample.get("tokens_per_second")
    facts = [f"seed {sample['seed']}"] if sample.get("seed") is not None else []
    facts += [f"{numerals.number(sample['tokens'])} tokens"] if sample.get("tokens") else []
    facts += [f"{numerals.number(round(rate))} tokens/s"] if rate else []
    return {
        "temperature": sample["temperature"],
        "lines": lines,
        "direction": _direction(prompt + text) or "ltr",
        "facts": " · ".join(facts),
    }


def _cost(cost: dict[str, Any]) -> dict[str, Any]:
    """Figures, stages and the bytes a sequence holds."""
    figures = [
        ("parameters", cost.get("parameters"), "{:,}".format),
        ("without the embedding", cost.get("parameters_without_embedding"), "{:,}".format),
        ("tokens a second, training", cost.get("train_tokens_per_second"), numerals.number),
        ("tokens a second, writing", cost.get("generate_tokens_per_second"), numerals.number),
        ("memory at the peak", cost.get("peak_memory_bytes"), numerals.nbytes),
    ]
    seconds = {name: value for name, value in (cost.get("seconds") or {}).items() if value is not None}
    whole = seconds.pop("total", None) or sum(seconds.values())
    state = cost.get("state_bytes") or {}
    return {
        "constant": numerals.nbytes(min(state.values())) if len(state) > 1 and len(set(state.values())) == 1 else None,
        "figures": [(label, "not measured" if value is None else write(value)) for label, value, write in figures],
        "total": numerals.duration(whole) if whole else None,
        "stages": [(name, numerals.duration(value), f"{value / whole * 100:.2f}") for name, value in seconds.items()] if whole else [],
        "memory": _memory(state, cost.get("kv_bytes") or {}),
    }


def _memory(state: dict[str, int], kv: dict[str, int]) -> dict[str, Any] | None:
    """Bars on one logarithmic scale, a pair for each length, and how many times as much the transformer holds at the longest."""
    lengths = sorted(set(state) & set(kv), key=int)
    values = [table[length] for length in lengths for table in (state, kv)]
    if not values or min(values) <= 0:
        return None
    low, high = 10 ** math.floor(math.log10(min(values) / 4)), max(values) * 1.3
    groups = []
    for length in lengths:
        pairs = (("this model", "own", state[length]), ("transformer", "other", kv[length]))
        bars = [
            (who, numerals.nbytes(size), plots.log_bar(size, low, high, kind, f"{who}: {numerals.nbytes(size)}"))
            for who, kind, size in pairs
        ]
        groups.append((numerals.number(int(length)) if int(length) < 1e6 else numerals.short(int(length)), bars))
    longest = lengths[-1]
    times = numerals.number(kv[longest] / state[longest]) if kv[longest] > state[longest] else None
    return {"groups": groups, "axis": plots.log_axis(low, high), "tokens": groups[-1][0], "times": times}


def _settings(config: dict[str, Any]) -> list[tuple[str, list[tuple[str, str]]]]:
    """(table, its settings) pairs; what stands outside a table comes last."""
    tables = {name: table for name, table in config.items() if isinstance(table, dict)}
    rest = {name: value for name, value in config.items() if name not in tables and name not in ("format", "plan")}
    return [(name, flatten(table)) for name, table in (*tables.items(), ("run", rest)) if table]


def flatten(table: dict[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Nested values as (dotted name, text) pairs."""
    pairs = []
    for name, value in table.items():
        if isinstance(value, dict) and value:
            pairs += flatten(value, f"{prefix}{name}.")
        else:
            pairs.append((prefix + name, _setting(name, value)))
    return pairs


def _setting(name: str, value: Any) -> str:
    if value is None or value in ("", {}, []):
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        runs = [(item, len(list(group))) for item, group in groupby(str(item) for item in value)]
        return ", ".join(f"{item} × {count}" if count > 1 else item for item, count in runs)
    if isinstance(value, int) and name.endswith("bytes"):
        return numerals.nbytes(value)
    return f"{value:,}" if isinstance(value, int) and value >= 10_000 and name != "seed" else str(value)
