"""Which architecture learns most from this text? Many runs that differ in nothing else, and one page.

OUT/study.json                  what was asked for
OUT/tokenizers/                 one for each corpus, the same for all systems
OUT/runs/SYSTEM-SEED-RATE/      a run folder each, with evaluation/ inside, or failed.json: why there are no scores
OUT/results.jsonl               a line for each run of the study
OUT/results.json                means, intervals, differences, rates, cost: all that the page shows
OUT/report.html                 the page

Rates first: every rate with one seed, the best by held-out bits per byte (or by the benchmarks); then all seeds at that rate. What is
finished is never run again and a run that was stopped goes on where it was, so the same command may be given at any time.
"""

import json
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.table import Table

from ritornello import folder, provenance
from ritornello.analysis.comparison import render
from ritornello.analysis.numerals import is_fraction
from ritornello.config import differences, from_dict, read_file, to_dict
from ritornello.errors import InputError
from ritornello.experiments.cells import Cell, Contestant, Job, cell, contestants, expectations, finished, known, prepare, worker
from ritornello.experiments.console import Console, clock
from ritornello.experiments.items import READERS
from ritornello.experiments.outcome import BASELINE, PAGE, Choice, Line, line, outcome
from ritornello.experiments.overlap import overlap
from ritornello.experiments.study import Study, study
from ritornello.experiments.suites import data_folder, own_files, sources
from ritornello.experiments.summary import render as plain
from ritornello.jobs import How, at_a_time, spread

FORMAT = 1
MOST_RATES = 8  # that "auto" tries for a system


def compare(asked: Study, out: str | Path, console: Console | None = None, how: How = 1, data: str | Path | None = None) -> dict[str, Any]:
    """Run what is not finished, and return what came out (results.json). `how`: so many runs at a time, or "ray".

    Raises InputError for what cannot be compared, `Stopped` or KeyboardInterrupt where it was stopped: the same call goes on.
    """
    out, console = Path(out), console or Console(quiet=True)
    jobs = at_a_time(how)
    shelf = str(data_folder(data).resolve()) if asked.suites else None
    out.mkdir(parents=True, exist_ok=True)
    with folder.locked(out):
        entrants = contestants(asked, out, jobs, console)
        _settle(asked, shelf, out, console)
        for each in entrants:
            console.say(f"{each.system} on {each.corpus}: {each.config.plan}")
        hall = _Hall(asked, out, console, how, shelf, entrants)
        hall.tune()
        hall.race()
        return hall.publish()


def asked_before(out: Path) -> tuple[Study, str | None]:
    """The study of a comparison's folder, and where the benchmarks' files lay. InputError if it is none."""
    if not (out / "study.json").exists():
        raise InputError(f"{out}: no study.json there; to begin a comparison name --systems, to go on with one give its folder")
    table = read_file(out / "study.json")
    if table.get("format") != FORMAT:
        raise InputError(f"{out}: a comparison of format {table.get('format')!r}; this version reads format {FORMAT}")
    return from_dict(Study, table["study"]), table["data"]


def asked_of(options: dict[str, Any]) -> tuple[Study, Path, str | Path | None]:
    """The study that the options of `ritornello compare` ask for, its folder, and where the benchmarks' files lie."""
    words, out, data = options["corpora"], options["out"], options["data"]
    corpora = [word for word in words if "=" not in word or Path(word).exists()]
    overrides = [word for word in words if word not in corpora] + options["overrides"]
    overrides += [] if options["threads"] is None else [f"threads={options['threads']}"]
    given = {name: options[name] for name in ("seeds", "first_seed", "budget", "parameters", "embedding", "rates", "select", "limit")}
    given["systems"] = options["systems"] and [name.strip() for name in options["systems"].split(",") if name.strip()]
    given["suites"] = [name for names in options["suite"] for name in names.split(",") if name] or None
    given |= {"text": options["text"], "corpora": corpora or None}
    if len(corpora) == 1 and (Path(corpora[0]) / "study.json").exists():
        changed = [name for name, value in given.items() if value is not None and name != "corpora"] + overrides
        if changed or out or options["recipe"]:
            raise InputError(f"{corpora[0]}: goes on as it was asked for; to ask otherwise name the text, and this folder with --out")
        asked, before = asked_before(Path(corpora[0]))
        return asked, Path(corpora[0]), data or before
    return study(options["recipe"], tuple(overrides), **given), out or Path("comparison"), data


def table(results: dict[str, Any], out: Path) -> str:
    """What came out, for a terminal: means with their intervals, and what can be said."""
    lines = []
    for corpus in results["corpora"]:
        shown = Table(box=None, pad_edge=False, title=f"{corpus['name']}, {corpus['words']:,} words", title_justify="left")
        shown.add_column("system")
        for metric in corpus["metrics"]:
            shown.add_column(escape(f"{metric['suite']}, {metric['metric']}"), justify="right")
        for name in ("seeds", "parameters", "rate", "words", "FLOP", "seconds"):
            shown.add_column(name, justify="right")
        for row in corpus["systems"]:
            scores = [_score(metric["metric"], row["scores"][metric["name"]]) for metric in corpus["metrics"]]
            cost = ("–",) * 5
            if row["parameters"] is not None:
                cost = (
                    f"{row['parameters']:,}",
                    f"{row['rate']:.2g}",
                    f"{row['words']:,.0f}",
                    f"{row['flop']:.2e}",
                    f"{row['seconds']:.0f}",
                )
            shown.add_row(escape(row["system"]), *scores, str(len(row["seeds"])), *cost)
        differ = [f"{name}: " + ", ".join(map(_told_setting, each.items())) for name, each in corpus["settings"]["differ"].items()]
        lines += [plain(shown), *corpus["conclusions"], *(f"not equal: {each}" for each in differ), ""]
    lines += [f"failed: {gap['run']}: {gap['reason']}" for gap in results["gaps"]]
    return "\n".join([*lines, f"page: {out / 'report.html'}"])


def _told_setting(pair: tuple[str, Any]) -> str:
    system, value = pair
    return f"{system} {f'{value:.4g}' if isinstance(value, float) else value}"


def _score(metric: str, found: dict[str, Any]) -> str:
    if found["value"] is None:
        return f"– ({found['reason']})"
    times, places = (100, 1) if is_fraction(metric) else (1, 3)
    ends = "" if found["low"] is None else f" [{times * found['low']:.{places}f}, {times * found['high']:.{places}f}]"
    return escape(f"{times * found['value']:.{places}f}{ends}")


def _settle(asked: Study, data: str | None, out: Path, console: Console) -> None:
    """Write what is asked for and the command that did; say so if something else was asked before."""
    kept = read_file(out / "study.json") if (out / "study.json").exists() else {}
    changed = differences(to_dict(asked_before(out)[0]), to_dict(asked)) if kept else {}
    if changed:
        console.say(f"{out}: asked otherwise before ({', '.join(changed)}); of its runs those that still fit count")
    command = (not changed and kept.get("command")) or provenance.collect().command
    folder.write_json(out / "study.json", {"format": FORMAT, "study": to_dict(asked), "data": data, "command": command})


@dataclass
class _Hall:
    """The runs of a study on their way to its results."""

    asked: Study
    out: Path
    console: Console
    how: How
    data: str | None
    entrants: Sequence[Contestant]
    choices: dict[tuple[str, str], Choice] = field(default_factory=dict)  # by corpus and system
    cells: dict[Path, Cell] = field(default_factory=dict)  # all that the study has come to
    lines: dict[Path, Line] = field(default_factory=dict)  # of the finished ones

    def __post_init__(self) -> None:
        self.runs = known(self.out)
        suites = sources(self.asked.suites, Path(self.data)) if self.data else []
        self.suites = [source.label(self.asked.limit) for source in suites]
        self.expected = expectations([*suites, *own_files(text=self.asked.text)], self.asked.limit)
        held = [source.suite.name for source in suites if source.suite.name in READERS]
        corpora = {each.corpus: each.material.corpus for each in self.entrants}
        self.overlaps = {name: overlap(corpus, held, Path(self.data or ""), self.console) for name, corpus in corpora.items()}

    def tune(self) -> None:
        """Choose every entrant's rate."""
        grid, auto = self.asked.grid, self.asked.grid == "auto"
        rates: dict[int, list[float]] = {}
        for number, entrant in enumerate(self.entrants):
            middle = float(f"{entrant.config.train.lr:.2g}")
            rates[number] = [middle / 2, middle, middle * 2] if grid == "auto" else list(grid or [entrant.config.train.lr])
        open_ones = list(rates) if grid else []
        while open_ones:
            self.run([self.first(self.entrants[number], rate) for number in open_ones for rate in rates[number]])
            for number in list(open_ones):
                tried = {rate: self.bits(self.entrants[number], rate) for rate in rates[number]}
                following = further(tried) if auto and len(tried) < MOST_RATES else None
                if following is None:
                    open_ones.remove(number)
                else:
                    rates[number].append(following)
        for number, entrant in enumerate(self.entrants):
            lines = [self.lines[self.first(entrant, rate).path] for rate in rates[number]] if grid else []
            given = entrant.config.train.lr if not grid else None
            self.choices[entrant.corpus, entrant.system] = Choice.of(lines, self.asked.select, self.suites, given)

    def race(self) -> None:
        """All seeds at the chosen rates, the first seed of everybody before the second of anybody."""
        cells = []
        for seed in self.asked.all_seeds:
            for entrant in self.entrants:
                rate = self.choices[entrant.corpus, entrant.system].used
                cells += [] if rate is None else [self.cell(entrant, seed, rate)]
        self.run(cells)

    def cell(self, entrant: Contestant, seed: int, rate: float) -> Cell:
        found = cell(entrant, seed, rate, self.out, self.runs)
        return self.cells.setdefault(found.path, found)

    def first(self, entrant: Contestant, rate: float) -> Cell:
        """What tells how good a rate is."""
        return self.cell(entrant, self.asked.first_seed, rate)

    def bits(self, entrant: Contestant, rate: float) -> float | None:
        """Held-out bits per byte of the first seed at that rate; None if it failed."""
        return self.lines[self.first(entrant, rate).path]["scores"].get("bits_per_byte")

    def run(self, cells: Sequence[Cell]) -> None:
        """Do what is left of these, and publish after each."""
        jobs = {self.job(each): each for each in cells}
        left = [job for job in jobs if not finished(job, self.expected)]
        for job in jobs.keys() - set(left):
            self.keep(jobs[job])
        self.console.say(f"{len(jobs)} runs" + (f", {len(jobs) - len(left)} of them finished before" if len(left) < len(jobs) else ""))
        material = {(each.corpus, each.system): each.material for each in self.entrants}

        def prepared() -> Any:
            for job in left:
                prepare(jobs[job], material[jobs[job].corpus, jobs[job].system])
                yield job

        began, threads = time.monotonic(), max((each.config.train.threads for each in self.entrants), default=1)
        with closing(spread(worker(self.how, self.console), prepared(), self.how, threads)) as results:
            for number, (job, _) in enumerate(results, 1):
                self.keep(jobs[job])
                hint = f"; about {clock((time.monotonic() - began) / number * (len(left) - number))} left" if number < len(left) else ""
                self.console.say(f"{number} of {len(left)}: {jobs[job]}: {_told(self.lines[jobs[job].path])}{hint}")
                self.publish()

    def job(self, cell: Cell) -> Job:
        return Job(cell.path.resolve(), self.asked.suites, self.asked.text, self.data, self.asked.limit)

    def keep(self, cell: Cell) -> None:
        self.lines[cell.path] = line(cell, self.out.resolve().name)

    def publish(self) -> dict[str, Any]:
        """Write results.jsonl, results.json and the page of what is finished."""
        lines = [self.lines[path] for path in self.cells if path in self.lines]
        plain = [{name: value for name, value in each.items() if name not in PAGE} for each in lines]
        folder.write_bytes(self.out / "results.jsonl", "".join(json.dumps(each, ensure_ascii=False) + "\n" for each in plain).encode())
        made_by = provenance.collect({name: sha for each in self.entrants for name, sha in each.material.corpus.sources.items()})
        about = {"format": FORMAT, "command": read_file(self.out / "study.json")["command"], "provenance": to_dict(made_by)}
        results = about | outcome(self.asked, self.entrants, lines, self.choices, self.overlaps)
        folder.write_json(self.out / "results.json", results)
        folder.write_bytes(self.out / "report.html", render(self.out).encode())
        return results


def further(tried: Mapping[float, float | None]) -> float | None:
    """The next rate to try, a factor of two beyond the best if that lies at an end; None if it lies between worse ones."""
    scored = {rate: bits for rate, bits in tried.items() if bits is not None}
    if not scored:
        return min(tried) / 2
    best = min(scored, key=lambda rate: scored[rate])
    if best == min(tried):
        return best / 2
    return best * 2 if best == max(tried) else None


def _told(found: Line) -> str:
    if found["failed"]:
        return f"failed: {found['failed']}"
    known = {name: value for name, value in found["scores"].items() if value is not None and name != BASELINE}
    scores = ", ".join(f"{name.replace('_', ' ')} {value:.3f}" for name, value in known.items())
    return f"{scores} ({found['seconds']:.0f} s of training)"
