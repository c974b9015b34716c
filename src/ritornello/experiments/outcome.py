"""What the runs of a comparison come to: a table, differences, rates, curves, cost, and what may be concluded; all as plain values.

A system is told by the mean over its seeds at the rate chosen for it. Where one of those runs failed there is no mean: the seeds that
went well are not the system. What is not finished yet is not failed, so a table can be made at any time; it says of how many seeds.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any, Literal

from ritornello.analysis import numerals
from ritornello.analysis.learning import read_log
from ritornello.analysis.numerals import is_fraction
from ritornello.analysis.scores import LOWER
from ritornello.config import differences, dotted, read_file, to_dict
from ritornello.experiments import statistics
from ritornello.experiments.cells import Cell, Contestant
from ritornello.experiments.overlap import unseen
from ritornello.experiments.record import record
from ritornello.experiments.record import scores as by_system
from ritornello.experiments.study import Study
from ritornello.mixers.layers import describe

Line = dict[str, Any]  # of experiments/record.py, with the rate, and what PAGE names
Metric = dict[str, Any]
Overlaps = Mapping[str, Sequence[dict[str, Any]]]  # by corpus
PAGE = ("curve", "metrics")  # held-out bits per byte by words; what the scores are
ABOUT = (
    "format",
    "plan",
    "minutes",
    "corpus",
    "tokenizer",
    "imported",
    "checkpoint_every",
    "licence",
)  # of a config: not how it is trained
HELD_OUT, BASELINE = "bits_per_byte", "ngram_bits_per_byte"
RATES = {  # what is to be said of how the rates came about
    "held-out": "Rates were chosen by bits per byte of the held-out text that is told here, with the first seed, which counts too.",
    "benchmark": "Rates were chosen by the benchmarks that are told here, with the first seed: new items would give less.",
    None: "Rates were not tuned here: for any of the systems there may be a better one.",
}


@dataclass(frozen=True)
class Choice:
    """The rate of a system on a corpus: what was tried, what each rule would take, and what is used."""

    tried: tuple[dict[str, Any], ...] = ()  # {"rate", "bits_per_byte", "benchmark", "failed"}, lowest rate first
    held_out: float | None = None
    benchmark: float | None = None
    used: float | None = None  # None: every rate failed

    @property
    def edge(self) -> Literal["lowest", "highest"] | None:
        """Whether the rate in use is the lowest or the highest of several, so that there may be a better one beyond."""
        rates = [each["rate"] for each in self.tried]
        if len(rates) < 2 or self.used not in (rates[0], rates[-1]):
            return None
        return "lowest" if self.used == rates[0] else "highest"

    @classmethod
    def of(cls, lines: Sequence[Line], select: str, suites: Sequence[str], given: float | None) -> "Choice":
        """The choice among runs of different rates; without any, the rate that was `given`."""
        if not lines:
            return cls(used=given)
        tried = []
        for line in sorted(lines, key=lambda line: line["rate"]):
            marks = [value for name, value in line["scores"].items() if line["metrics"].get(name, {}).get("suite") in suites]
            benchmark = sum(marks) / len(marks) if marks and None not in marks else None
            tried.append({"rate": line["rate"], HELD_OUT: line["scores"].get(HELD_OUT), "benchmark": benchmark, "failed": line["failed"]})
        held_out = min((each for each in tried if each[HELD_OUT] is not None), key=lambda each: each[HELD_OUT], default={"rate": None})
        best = max((each for each in tried if each["benchmark"] is not None), key=lambda each: each["benchmark"], default={"rate": None})
        used = best["rate"] if select == "benchmark" else held_out["rate"]
        return cls(tuple(tried), held_out["rate"], best["rate"], used)


def line(cell: Cell, study: str) -> Line:
    """A finished run, or one that failed, as a line of results.jsonl; and what the page wants besides, see PAGE."""
    found = record(cell.path, study, cell.system, failed=cell.failed) | {"rate": cell.config.train.lr}
    log = read_log(cell.path / "log.jsonl")
    curve = [[each["words"], each["held_out_bits_per_byte"]] for each in log if each.get("held_out_bits_per_byte") is not None]
    return found | {"curve": curve, "metrics": _metrics(cell.path)}


def _metrics(run: Path) -> dict[str, dict[str, Any]]:
    """By the name of a score its suite, metric and chance."""
    found = {HELD_OUT: {"suite": "held-out text", "metric": "bits per byte", "chance": None}}
    for file in (run / "results.json", run / "evaluation" / "results.json"):
        for row in read_file(file)["rows"] if file.exists() else []:
            if row["task"] == "all" and row["by"] == "model" and row["suite"] != "held-out":
                about = {name: row[name] for name in ("suite", "metric", "chance")}
                name = row["suite"] if is_fraction(row["metric"]) or row["value"] is None else f"{row['suite']} {row['metric']}"
                found.setdefault(name, about)
    return found


def outcome(
    asked: Study, entrants: Sequence[Contestant], lines: Sequence[Line], choices: Mapping[tuple[str, str], Choice], overlaps: Overlaps
) -> dict[str, Any]:
    """All that the page shows. `overlaps`: what each corpus holds of the benchmarks, see experiments/overlap.py."""
    corpora = list(dict.fromkeys(entrant.corpus for entrant in entrants))
    return {
        "study": to_dict(asked),
        "corpora": [_corpus(name, asked, entrants, lines, choices, overlaps.get(name, ())) for name in corpora],
        "cost": {
            "runs": len(lines),
            "seconds": sum(each["seconds"] for each in lines),
            "flop": sum(each["flop"] for each in lines),
            "tuning": sum(each["seconds"] for each in lines if not _counts(each, asked, choices)),
        },
        "gaps": [{"run": each["name"], "reason": each["failed"]} for each in lines if each["failed"]],
    }


def _counts(line: Line, asked: Study, choices: Mapping[tuple[str, str], Choice]) -> bool:
    """Whether the run is one of those that a system is told by, not only one of a rate that was tried."""
    choice = choices.get((line["corpus"], line["system"]))
    return choice is not None and line["rate"] == choice.used and line["seed"] in asked.all_seeds


def _corpus(
    name: str,
    asked: Study,
    entrants: Sequence[Contestant],
    lines: Sequence[Line],
    choices: Mapping[tuple[str, str], Choice],
    overlap: Sequence[dict[str, Any]],
) -> dict[str, Any]:
    own = [entrant for entrant in entrants if entrant.corpus == name]
    told = [line for line in lines if line["corpus"] == name and _counts(line, asked, choices)]
    metrics = _of_all(told, asked.suites)
    rows = [_row(entrant, [line for line in told if line["system"] == entrant.system], choices, metrics) for entrant in own]
    found = [_pair(told, metric, one, two, rows) for metric in metrics for one, two in combinations([row["system"] for row in rows], 2)]
    pairs = [each for each in found if each is not None]
    corpus, tokenizer = own[0].material.corpus, own[0].config.tokenizer
    said, lacking = _conclusions(metrics, rows, pairs, asked), unseen(overlap, corpus.words)
    return {
        "name": name,
        "words": corpus.words,
        "sources": corpus.sources,
        "tokenizer": {"kind": tokenizer.kind, "size": tokenizer.size, "sha256": tokenizer.sha256},
        "baseline": next((line["scores"][BASELINE] for line in told if line["scores"].get(BASELINE) is not None), None),
        "metrics": metrics,
        "systems": rows,
        "differences": pairs,
        "conclusions": said + [lacking] * bool(said and lacking),
        "overlap": list(overlap),
        "rates": [_rates(entrant.system, choices.get((name, entrant.system))) for entrant in own],
        "settings": _settings([_final(entrant, choices) for entrant in own], [entrant.system for entrant in own]),
    }


def _of_all(told: Sequence[Line], suites: Sequence[str]) -> list[Metric]:
    """The scores there are: {"name", "suite", "metric", "chance"}; the benchmarks first that were asked for, then held-out text."""
    found = {name: about for line in told for name, about in line["metrics"].items() if name in line["scores"]}
    order = {True: 0, False: 2}
    ranked = sorted(found.items(), key=lambda pair: 1 if pair[0] == HELD_OUT else order[pair[1]["suite"].partition(" (")[0] in suites])
    return [{"name": name} | about for name, about in ranked]


def _row(entrant: Contestant, told: Sequence[Line], choices: Mapping[tuple[str, str], Choice], metrics: Sequence[Metric]) -> dict[str, Any]:
    """A system: what it is, what it cost a run, and its scores."""
    model, fine = entrant.config.model, [line for line in told if not line["failed"]]
    choice = choices.get((entrant.corpus, entrant.system))
    mean = {name: sum(line[name] for line in fine) / len(fine) if fine else None for name in ("words", "flop", "seconds", "steps")}
    first = told[0] if told else {}
    return {
        "system": entrant.system,
        "layers": describe(model.layers),
        "dim": model.dim,
        "parameters": first.get("parameters"),
        "parameters_without_embedding": first.get("parameters_without_embedding"),
        "rate": choice and choice.used,
        "seeds": sorted(line["seed"] for line in fine),
        "failed": sorted(line["seed"] for line in told if line["failed"]),
        "scores": {each["name"]: _score(told, each["name"], entrant.system, choice) for each in metrics},
        "curves": [{"seed": line["seed"], "points": line["curve"]} for line in fine],
    } | mean


def _score(told: Sequence[Line], metric: str, system: str, choice: Choice | None) -> dict[str, Any]:
    """{"value", "sd", "low", "high", "seeds"}: the mean over seeds, and by seed; or {"value": None, "reason"}."""
    if lost := [line["seed"] for line in told if line["failed"]]:
        return {"value": None, "reason": f"seed {', '.join(map(str, lost))} failed"}
    if lost := [line["seed"] for line in told if line["scores"].get(metric) is None]:
        return {"value": None, "reason": f"seed {', '.join(map(str, lost))} has no value"}
    if not told:
        return {"value": None, "reason": "every rate failed" if choice and choice.tried and choice.used is None else "not finished"}
    found = statistics.estimate(by_system(told, metric)[system])
    seeds = {str(line["seed"]): line["scores"][metric] for line in told}
    return {"value": found.value, "sd": found.sd, "low": found.low, "high": found.high, "seeds": seeds}


def _pair(told: Sequence[Line], metric: Metric, one: str, two: str, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """How far the first lies above the second; None where one of them has no mean."""
    name = metric["name"]
    if any(row["scores"][name]["value"] is None for row in rows if row["system"] in (one, two)):
        return None
    scores = by_system(told, name)
    found = statistics.difference(scores[one], scores[two])
    return {
        "metric": name,
        "first": one,
        "second": two,
        "value": found.value,
        "low": found.low,
        "high": found.high,
        "sentence": statistics.conclude(one, two, found, metric["suite"], metric["metric"]),
    }


def _conclusions(metrics: Sequence[Metric], rows: Sequence[dict[str, Any]], pairs: Sequence[dict[str, Any]], asked: Study) -> list[str]:
    """For each metric who is best, and of whom that can be said; then what bears on all of it."""
    told = []
    for metric in metrics:
        scores = {row["system"]: row["scores"][metric["name"]]["value"] for row in rows}
        known = {system: value for system, value in scores.items() if value is not None}
        ranked = sorted(known, key=lambda system: known[system] * (1 if lower(metric["metric"]) else -1))
        if len(ranked) > 1:
            own = [pair for pair in pairs if pair["metric"] == metric["name"]]
            best = known[ranked[0]]
            value = numerals.score(metric["metric"], best) if is_fraction(metric["metric"]) else f"{best:.3f}"
            told.append(_best(metric, ranked, value, own))
    told += [statistics.by_chance(len(pairs))] if any(pair["low"] is not None for pair in pairs) else []
    lost = [f"{row['system']} has no mean: seed {_and([str(seed) for seed in row['failed']])} failed." for row in rows if row["failed"]]
    return [*told, *lost, RATES[asked.select if asked.grid else None]] if told or lost else []


def _best(metric: Metric, ranked: Sequence[str], value: str, pairs: Sequence[dict[str, Any]]) -> str:
    """Who has the best mean, and whom that lets one call worse."""
    first, groups = ranked[0], dict[str, list[str]](behind=[], near=[], unknown=[])
    for other in ranked[1:]:
        pair = next(pair for pair in pairs if {pair["first"], pair["second"]} == {first, other})
        group = "unknown" if pair["low"] is None else "behind" if pair["low"] > 0 or pair["high"] < 0 else "near"
        groups[group].append(other)
    text = f"On {metric['suite']} {first} has the best mean, {value}"
    if groups["unknown"]:
        return text + "; with one seed this says nothing about which is better."
    text += f", and is better than {_and(groups['behind'])}" if groups["behind"] else ""
    return text + (f"; it cannot be told apart from {_and(groups['near'])}." if groups["near"] else ".")


def _and(names: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


def lower(metric: str) -> bool:
    """Whether less is better."""
    return metric.startswith(LOWER)


def _rates(system: str, choice: Choice | None) -> dict[str, Any]:
    return {"system": system} | ({} if choice is None else to_dict(choice) | {"edge": choice.edge})


def _final(entrant: Contestant, choices: Mapping[tuple[str, str], Choice]) -> dict[str, Any]:
    """What the system's runs have in common, as nested values."""
    table = {name: value for name, value in to_dict(entrant.config).items() if name not in ABOUT}
    choice = choices.get((entrant.corpus, entrant.system))
    table["train"] = {name: value for name, value in table["train"].items() if name != "seed"} | {"lr": choice and choice.used}
    return table | {"model": table["model"] | {"layers": describe(entrant.config.model.layers)}}


def _settings(tables: Sequence[dict[str, Any]], systems: Sequence[str]) -> dict[str, Any]:
    """{"same": dotted settings of all, "differ": {setting: {system: value}}, "own": {system: settings of mixers that others lack}}."""
    differ, flat = differences(*tables), [dotted(table) for table in tables]
    alone = {name for name in differ if name.startswith("model.mixers.") and not all(name in table for table in flat)}
    return {
        "same": {name: value for name, value in flat[0].items() if name not in differ},
        "differ": {name: dict(zip(systems, values, strict=True)) for name, values in differ.items() if name not in alone},
        "own": {
            system: {name.removeprefix("model.mixers."): value for name, value in table.items() if name in alone}
            for system, table in zip(systems, flat, strict=True)
        },
    }
