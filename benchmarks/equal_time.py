"""HGRN2, LSTM and a LLaMA-type transformer on one text for the same wall time, as one table.

    python -m benchmarks.equal_time [CORPUS] --minutes 10 [--pairs FOLDER] [--documents blank] [--tokenizer bpe] [--mixers hgrn2 lstm]

Each model gets the time one after another, sizes chosen by the plan for it. Every result is a line of docs/results/equal_time.jsonl.
"""

import argparse
import json
from pathlib import Path

import ritornello
from ritornello.config import to_dict
from ritornello.experiments.summary import summary_data
from ritornello.provenance import collect

RESULTS = Path(__file__).resolve().parents[1] / "docs" / "results" / "equal_time.jsonl"
MIXERS = ("hgrn2", "lstm", "attention")


def main() -> None:
    parser = argparse.ArgumentParser(description="Three models on one text at equal wall time.")
    parser.add_argument("corpus", nargs="?")
    parser.add_argument("--minutes", type=float, default=3.0)
    parser.add_argument("--pairs", action="append", default=[])
    parser.add_argument("--documents", default="auto")
    parser.add_argument("--mixers", nargs="+", default=MIXERS)
    parser.add_argument("--tokenizer")
    parser.add_argument("--out", type=Path, default=Path("runs"))
    options = parser.parse_args()
    made_by = to_dict(collect())
    found = []
    for mixer in options.mixers:
        path = ritornello.run(
            options.corpus,
            minutes=options.minutes,
            mixer=mixer,
            documents=options.documents,
            tokenizer=options.tokenizer,
            pairs=tuple(options.pairs),
            out=str(options.out / f"equal-{mixer}"),
        )
        found.append(line(path) | {"made_by": made_by})
        RESULTS.parent.mkdir(parents=True, exist_ok=True)
        with open(RESULTS, "a", encoding="utf-8") as file:
            file.write(json.dumps(found[-1]) + "\n")
    print(table(found))


def line(path: Path) -> dict:
    """What a finished run came to, as one flat record."""
    data = summary_data(path)
    config, results = data["config"], data["results"]
    means = [row for row in results["rows"] if row["task"] == "all" and row["metric"].startswith("accuracy")]
    return {
        "corpus": config["corpus"]["name"],
        "sources": config["corpus"]["sources"],
        "minutes": config["minutes"],
        "model": config["model"],
        "train": config["train"],
        "tokenizer": config["tokenizer"],
        "parameters": results["cost"]["parameters"],
        "train_tokens_per_second": results["cost"]["train_tokens_per_second"],
        "seconds": results["cost"]["seconds"],
        "words_seen": results["words_seen"],
        "headline": results["headline"],
        "pairs": {f"{row['suite']} {row['metric']}": [row["value"], row["stderr"], row["n"]] for row in means},
    }


def table(lines: list[dict]) -> str:
    """The records as a Markdown table."""
    names = ("model", "parameters", "tokens/s", "words seen", "bits per byte", "baseline", "pairs", "minutes")
    rows = [names, ("---", *("---:",) * (len(names) - 1))]
    for one in lines:
        head, model, cost = one["headline"], one["model"], one["seconds"]
        pairs = [f"{100 * value:.1f}" for name, (value, *_) in one["pairs"].items() if "half" in name]
        rows.append(
            (
                f"{model['layers'][0]} {model['dim']} x {len(model['layers'])}",
                f"{one['parameters']:,}",
                f"{one['train_tokens_per_second']:,.0f}",
                f"{one['words_seen']:,}",
                f"{head['bits_per_byte']:.3f} ± {head['stderr']:.3f}",
                f"{head['baseline_bits_per_byte']:.3f} ({head['baseline']})",
                ", ".join(pairs) or "-",
                f"{cost['total'] / 60:.2f}",
            )
        )
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


if __name__ == "__main__":
    main()
