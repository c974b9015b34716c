"""docs/results/runs.jsonl: a line for every run of the studies, and the pages that are made from it: log.md and babyhgrn.md.

python -m benchmarks.quality --add OUT --study NAME                            the runs of `ritornello compare` or `ritornello distill`
python -m benchmarks.quality --record RUN --study NAME --system NAME           one run folder, with its evaluation/, and --also OUT
python -m benchmarks.quality --overlap FILE.json                               of `ritornello data inspect CORPUS --overlap all --json`
python -m benchmarks.quality --render | --check                               write the pages, or tell where they are not what the lines say
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import babyhgrn, log
from ritornello.config import read_file
from ritornello.errors import InputError
from ritornello.experiments.record import read, record
from ritornello.folder import read_config, write_bytes, write_json

FOLDER = Path(__file__).resolve().parents[1] / "docs" / "results"
KEYS = (
    "study", "name", "system", "seed", "started", "words", "corpus", "data_sha256", "commit", "machine", "parameters",
    "parameters_without_embedding", "steps", "flop", "seconds", "config", "scores", "subtasks", "failed",
)  # fmt: skip


def made() -> dict[str, str]:
    """File name -> text of all that is made from the lines."""
    lines = read(FOLDER / "runs.jsonl")
    return {"log.md": log.render(lines), "babyhgrn.md": babyhgrn.render(lines, overlaps())} | babyhgrn.pictures(lines)


def check() -> list[str]:
    """What does not agree, a line each."""
    return [
        f"{name} is not what runs.jsonl renders to; run python -m benchmarks.quality --render"
        for name, text in made().items()
        if not (FOLDER / name).exists() or (FOLDER / name).read_text(encoding="utf-8") != text
    ]


def render() -> None:
    for name, text in made().items():
        (FOLDER / name).write_text(text, encoding="utf-8")


def keep(lines: Sequence[dict[str, Any]]) -> None:
    """Put lines of runs among those there are, without what only a comparison's page wants. A run that was there is told anew: its study
    may have grown since, or its scores. InputError if runs of one system would then differ in more than the seed: no mean is over them.
    """
    found = [{key: line[key] for key in KEYS} for line in lines]
    new = {_key(line) for line in found}
    kept = [line for line in read(FOLDER / "runs.jsonl") if _key(line) not in new] + found
    first: dict[tuple[str, ...], dict[str, Any]] = {}
    for line in kept:
        if not line["study"].endswith(babyhgrn.TRIED):
            other = first.setdefault((line["study"], line["system"], line["corpus"]), line)
            if unlike := sorted(name for name, value in _settings(line) ^ _settings(other)):
                raise InputError(
                    f"{line['name']}: {line['system']} of {line['study']} with another {unlike[0]} than {other['name']}; "
                    "give it another --study, or another --system"
                )
    write_bytes(FOLDER / "runs.jsonl", "".join(json.dumps(line, ensure_ascii=False, allow_nan=False) + "\n" for line in kept).encode())


def _settings(line: dict[str, Any]) -> set[tuple[str, str]]:
    """What the runs of a system have in common; born-again students have teachers of their own seed."""
    return {(name, repr(value)) for name, value in line["config"].items() if name not in ("train.seed", "teach.teachers")}


def _key(line: dict[str, Any]) -> tuple[str, str]:
    return line["study"].removesuffix(babyhgrn.TRIED), line["name"]


def add(out: Path, study: str) -> None:
    """The runs of a comparison, or of students and their control. Those of rates that were tried and not taken are a study of their own, so
    that no mean is over them.
    """
    lines = read(out / "results.jsonl")
    if not (out / "results.json").exists():  # which a comparison has
        keep([line | {"study": study} for line in lines])
        return
    corpora = read_file(out / "results.json")["corpora"]
    taken = {(corpus["name"], row["system"]): row["rate"] for corpus in corpora for row in corpus["systems"]}
    tried = [babyhgrn.TRIED * (line["rate"] != taken[line["corpus"], line["system"]]) for line in lines]
    keep([line | {"study": study + rest} for line, rest in zip(lines, tried, strict=True)])
    keep_overlap(corpora)


def keep_overlap(corpora: Sequence[dict[str, Any]]) -> None:
    """What corpora hold of the benchmarks: counts alone, the texts that an inspection shows stay where they are."""
    kept = overlaps() | {each["name"]: {key: each[key] for key in ("words", "overlap")} for each in corpora if each.get("overlap")}
    write_json(FOLDER / "overlap.json", kept)


def overlaps() -> dict[str, Any]:
    """By the name of a corpus."""
    file = FOLDER / "overlap.json"
    return read_file(file) if file.exists() else {}


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.quality", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--add", type=Path, metavar="OUT")
    parser.add_argument("--record", type=Path, metavar="RUN")
    parser.add_argument("--study")
    parser.add_argument("--system")
    parser.add_argument("--also", action="append", default=[], type=Path, metavar="OUT", help="an evaluation of it by another protocol")
    parser.add_argument("--base", type=Path, metavar="RUN", help="the run whose config differences are told from")
    parser.add_argument("--flop", type=float, help="of training, where teachers computed too")
    parser.add_argument("--failed", metavar="WHY")
    parser.add_argument("--overlap", type=Path, metavar="FILE.json")
    parser.add_argument("--render", action="store_true")
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    try:
        if (options.add or options.record) and not options.study:
            parser.error("--add and --record need a --study")
        if options.add:
            add(options.add, options.study)
        if options.record:
            if not options.system:
                parser.error("--record needs a --system")
            base = read_config(options.base) if options.base else None
            line = record(options.record, options.study, options.system, base=base, failed=options.failed, also=options.also)
            keep([line | ({"flop": options.flop} if options.flop else {})])
        if options.overlap:
            keep_overlap([read_file(options.overlap)])
        if options.render or options.add or options.record or options.overlap:
            render()
        wrong = check() if options.check else []
    except InputError as error:
        sys.exit(str(error))
    print(*wrong, sep="\n", end="\n" if wrong else "")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
