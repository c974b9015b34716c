"""The page of a comparison: one table, differences with their intervals, learning curves, rates, cost, and what was equal.

`render` reads results.json of the folder alone, so a page can be made again at any time.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from ritornello.analysis import numerals, page, plots, scores
from ritornello.analysis.dynamics import by_words, colour
from ritornello.config import read_file
from ritornello.errors import InputError

Table = Mapping[str, Any]


def render(folder: Path) -> str:
    """The page as one HTML text. Raises InputError if the folder has no results.json."""
    file = Path(folder) / "results.json"
    if not file.exists():
        raise InputError(f"{file}: no such file; give the folder that `ritornello compare` wrote")
    results = read_file(file)
    corpora = [_corpus(corpus) for corpus in results["corpora"]]
    systems = [row["system"] for row in results["corpora"][0]["systems"]]
    view = {
        "title": f"Which learns most from {_and([corpus['name'] for corpus in results['corpora']])}?",
        "leads": [corpus["conclusions"][0] for corpus in corpora if corpus["conclusions"]],
        "budget": _budget(results["study"], [row for corpus in results["corpora"] for row in corpus["systems"]]),
        "key": [(system, colour(systems, system)) for system in systems],
        "corpora": corpora,
        "several": len(corpora) > 1,
        "gaps": [(gap["run"], gap["reason"]) for gap in results["gaps"]],
        "cost": _cost(results["cost"]),
        "provenance": page.flatten(results["provenance"]),
        "command": results["command"],
    }
    return page.environment().get_template("comparison.html.j2").render(view)


def _budget(study: Table, rows: Sequence[Table]) -> str:
    """What everybody had, in one sentence."""
    kind, _, amount = study["budget"].partition("=")
    each = {"words": f"{amount} words to read", "flop": f"{amount} FLOP to train on", "minutes": f"{amount} minutes to train"}[kind]
    size = f"as many parameters ({study['parameters']})" if study["parameters"] else "as many parameters as the first"
    size += ", to 2 %" + ("" if study["embedding"] else ", embedding and head not counted")
    return f"Every run had {each}; all systems have {size}, one tokenizer, and {_seeds(study['seeds'], rows)}."


def _seeds(asked: int, rows: Sequence[Table]) -> str:
    """How many runs of each there are, of those that were asked for."""
    done = sorted({len(row["seeds"]) + len(row["failed"]) for row in rows})
    seeds = f"{asked} seed{'s' * (asked > 1)}"
    return seeds if done == [asked] else f"{' to '.join(map(str, dict.fromkeys((done[0], done[-1]))))} of {seeds} so far"


def _corpus(corpus: Table) -> dict[str, Any]:
    rows, metrics = corpus["systems"], corpus["metrics"]
    systems = [row["system"] for row in rows]
    return {
        "name": corpus["name"],
        "words": f"{corpus['words']:,}",
        "conclusions": corpus["conclusions"],
        "metrics": [(_title(metric), _note(metric, corpus["baseline"])) for metric in metrics],
        "rows": [_row(row, metrics) | {"colour": colour(systems, row["system"])} for row in rows],
        "forests": [forest for metric in metrics if (forest := _forest(metric, corpus["differences"]))],
        "curve": _curve(rows, corpus["baseline"]),
        "rates": [_rates(each) for each in corpus["rates"] if each.get("tried")],
        "systems": systems,
        "differ": [
            (name, [page.flatten({name: value})[0][1] for value in values.values()])
            for name, values in corpus["settings"]["differ"].items()
        ],
        "own": [(system, page.flatten(own)) for system, own in corpus["settings"]["own"].items() if own],
        "same": page.flatten(corpus["settings"]["same"]),
        "sources": list(corpus["sources"].items()),
    }


def _title(metric: Table) -> str:
    return scores.title(metric["suite"])


def _note(metric: Table, baseline: float | None) -> str:
    """The metric's name, and what it is compared with."""
    beside = f"chance {numerals.score(metric['metric'], metric['chance'])}" if metric["chance"] is not None else ""
    if metric["suite"] == "held-out text" and baseline is not None:
        beside = f"n-gram {numerals.number(baseline)}"
    return ", ".join(filter(None, [metric["metric"], beside]))


def _row(row: Table, metrics: Sequence[Table]) -> dict[str, Any]:
    """A system in the table: its scores, then its size and the cost of a run."""
    return {
        "system": row["system"],
        "about": f"{row['layers']}, {row['dim']} wide",
        "seeds": len(row["seeds"]),
        "failed": len(row["failed"]),
        "scores": [_score(metric["metric"], row["scores"][metric["name"]]) for metric in metrics],
        "rate": _missing(row["rate"], lambda rate: f"{rate:.2g}"),
        "parameters": _missing(row["parameters"], lambda count: f"{count:,}"),
        "rest": _missing(row["parameters_without_embedding"], lambda count: f"{count:,}"),
        "words": _missing(row["words"], numerals.short),
        "flop": _missing(row["flop"], numerals.power),
        "steps": _missing(row["steps"], lambda steps: f"{steps:,.0f}"),
        "seconds": _missing(row["seconds"], numerals.duration),
    }


def _missing(value: Any, write: Any) -> str:
    return "–" if value is None else write(value)


def _score(metric: str, found: Table) -> dict[str, Any]:
    """{"mean", "spread", "interval", "seeds"}, or what is missing."""
    if found["value"] is None:
        return {"mean": "–", "spread": "", "interval": found["reason"], "seeds": ""}
    return {
        "mean": numerals.score(metric, found["value"]) if numerals.is_fraction(metric) else f"{found['value']:.3f}",
        "spread": "" if found["sd"] is None else f"sd {_plain(metric, found['sd'])}",
        "interval": "one seed: no interval" if found["low"] is None else _interval(metric, found),
        "seeds": ", ".join(_plain(metric, value) for value in found["seeds"].values()),
    }


def _plain(metric: str, value: float, sign: str = "") -> str:
    """A value without its unit: one place for shares in per cent, else three."""
    text = f"{100 * value:{sign}.1f}" if numerals.is_fraction(metric) else f"{value:{sign}.3f}"
    return text.replace("-", "−")


def _interval(metric: str, found: Table, sign: str = "") -> str:
    return f"[{_plain(metric, found['low'], sign)}, {_plain(metric, found['high'], sign)}]"


def _forest(metric: Table, differences: Sequence[Table]) -> dict[str, Any] | None:
    """The differences on one metric, each drawn with its interval about the dashed line of no difference."""
    own = [each for each in differences if each["metric"] == metric["name"]]
    if not own:
        return None
    ends = [abs(end) for each in own for end in (each["value"], each["low"], each["high"]) if end is not None]
    wide = max(ends) * 1.1 or 1.0
    unit = "points" if numerals.is_fraction(metric["metric"]) else metric["metric"]
    rows = [
        {
            "pair": f"{each['first']} − {each['second']}",
            "value": _plain(metric["metric"], each["value"], "+"),
            "interval": "unknown" if each["low"] is None else _interval(metric["metric"], each, "+"),
            "plot": plots.between(each["value"], each["low"], each["high"], -wide, wide, level=0.0),
            "sentence": each["sentence"],
        }
        for each in own
    ]
    ends = [f"{_plain(metric['metric'], -wide, '+')}", f"{_plain(metric['metric'], wide, '+')} {unit}"]
    better = "lower is better" if metric["metric"].startswith(scores.LOWER) else "higher is better"
    return {"title": _title(metric), "better": better, "rows": rows, "ends": ends}


def _curve(rows: Sequence[Table], baseline: float | None) -> Markup | None:
    """Held-out bits per byte by words seen: the mean of the seeds, and a band from the lowest to the highest."""
    systems = [row["system"] for row in rows]
    drawn: list[tuple[str, Sequence[plots.Point]]] = []
    told = []
    for row in rows:
        if lines := plots.averaged([curve["points"] for curve in row["curves"]], colour(systems, row["system"])):
            words, bits = lines[-1][1][-1]
            told.append(f"{row['system']} {bits:.3f} after {numerals.short(words)} words")
            drawn += lines
    if not drawn:
        return None
    drawn.sort(key=lambda line: line[0].startswith("line"))
    ends = [value for _, line in drawn for _, value in line] + ([] if baseline is None else [baseline])
    level = None if baseline is None else (f"n-gram {numerals.number(baseline)}", baseline)
    return by_words(drawn, "bits per byte", level, (min(ends), max(ends)), f"Held-out bits per byte by words seen: {'; '.join(told)}.")


def _rates(choice: Table) -> dict[str, Any]:
    """The rates of a system: what each came to, which each rule would take, and whether there may be a better one beyond."""
    rows = []
    for each in choice["tried"]:
        marks = [rule for rule, key in (("held-out text", "held_out"), ("benchmarks", "benchmark")) if choice[key] == each["rate"]]
        rows.append(
            {
                "rate": f"{each['rate']:.2g}",
                "bits": each["failed"] or _missing(each["bits_per_byte"], lambda bits: f"{bits:.3f}"),
                "benchmark": _missing(each["benchmark"], lambda mean: f"{100 * mean:.1f}"),
                "best": _and(marks),
                "used": choice["used"] == each["rate"],
            }
        )
    edge = choice["edge"] and f"The rate in use is the {choice['edge']} that was tried: there may be a better one beyond."
    return {"system": choice["system"], "rows": rows, "edge": edge, "marked": any(each["benchmark"] != "–" for each in rows)}


def _cost(cost: Table) -> str:
    tuning = f", {numerals.duration(cost['tuning'])} of it on rates that were not taken" if cost["tuning"] else ""
    runs = f"{cost['runs']} run{'s' * (cost['runs'] != 1)}"
    return f"{runs}, {numerals.duration(cost['seconds'])} of training in all{tuning}; {numerals.power(cost['flop'])} FLOP."


def _and(names: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]])) if names else ""
