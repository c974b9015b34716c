"""docs/results/babyhgrn.md: the BabyHGRN study beside our runs, from runs.jsonl: what was reproduced, and what was not, with pictures."""

import re
from collections.abc import Sequence
from typing import Any

from benchmarks import commands, forest
from ritornello.analysis.numerals import number
from ritornello.analysis.scores import title as title_of
from ritornello.evals.published import CAVEAT, PUBLISHED
from ritornello.experiments.overlap import unseen
from ritornello.experiments.record import scores
from ritornello.experiments.statistics import Estimate, Scores, by_chance, conclude, difference, estimate

Line = dict[str, Any]  # of experiments/record.py
HEAD = f"""# BabyHGRN, repeated in part

Haller, Golde and Akbik 2024 (arXiv:2412.15978) asked which recurrent architecture learns most from 10M or 100M words, and found HGRN2
above the transformer, LSTM, xLSTM and Mamba, and a distilled HGRN2 above all of them. Each of their rows is one run; their code is not
published. Here the same questions are asked with several seeds, equal words and equal parameters. Written by
`python -m benchmarks.quality --render` from [`runs.jsonl`](runs.jsonl); every run is in the [log](log.md).

**Our text is not theirs.** They trained on the BabyLM corpus and on a sample of the Pile. Ours is a substitute of the BabyLM plan made
of other public sources, so no figure of ours is a repetition of theirs; what can be repeated is which system stands above which.
{CAVEAT}

Scores are in per cent, official rules (a tie is right), unweighted means over subtasks. Behind a mean stands the standard deviation over
seeds; in brackets the 95 % interval over seeds and subtasks (`ritornello.experiments.statistics`). One seed has neither.
"""
ROWS = {each.system.partition(" ")[0]: each for each in PUBLISHED if each.source.endswith("table 2")}
NAMES = {
    "hgrn2": "HGRN2",
    "mamba": "Mamba",
    "lstm": "LSTM",
    "attention": "Transformer",
    "transformer": "Transformer",
    "llama": "Transformer",
}
CLAIMS = (("HGRN2", "Mamba"), ("HGRN2", "Transformer"), ("HGRN2", "LSTM"), ("HGRN2", "xLSTM"), ("Mamba", "Transformer"))
SPACED = "blimp (official-2024)"
TAUGHT, UNTAUGHT = "BabyHGRN 1.0B, distilled", "BabyHGRN 1.0B"
SUITES = ("supplement", "ewok", "bear", "glue")
COUNTED = ("blimp", "blimp-fast", "supplement", "supplement-fast", "ewok")
NEXT = """## What comes next

- Eight seeds of every system (`--first-seed` goes on from those there are), then 10M words for the two that stand first.
- Distillation over several passes, where more steps give less, and with larger teachers: over four passes two teachers of the student's
  size were worth .025 bits per byte in one run, of which a control's further steps may take half. Which share of the loss (here .9)
  minimal pairs like best is open.
- The switches one at a time (`python -m benchmarks.ablations`), over several passes too: one pass says little of dropout and averages.
- The default plan: it weighs held-out loss, by which small models that read much are best; whether minimal pairs gain by larger ones at the
  same computation is not known from single runs.
- More seeds of the runs of half an hour and of 99 minutes.
"""
TRIED = ": rates tried"  # behind the name of a study: its runs of rates that were not taken


def render(lines: Sequence[Line], overlaps: dict[str, Any]) -> str:
    """The page; `overlaps`: by the name of a corpus what it holds of the benchmarks, where that was counted."""
    lines, studies = _studies(lines)
    parts = [HEAD, _overlap({name: overlaps.get(name) for name in dict.fromkeys(line["corpus"] for line in lines)})]
    told = [text for kind in (_architectures, _distilled, _switches) for name, own in studies.items() if (text := kind(name, own))]
    parts += told or ["## Which architecture\n\nNo study of ours is finished yet.\n"]
    return "\n".join([*parts, _standing(lines), commands.render(studies), _left(lines), NEXT]).rstrip() + "\n"


def pictures(lines: Sequence[Line]) -> dict[str, str]:
    """File name -> SVG of the studies that have one."""
    drawn = {name: _systems_drawn(own) or _switches_drawn(own) for name, own in _studies(lines)[1].items()}
    return {_file(name): svg for name, svg in drawn.items() if svg}


def _studies(lines: Sequence[Line]) -> tuple[list[Line], dict[str, list[Line]]]:
    """The lines without those of rates that were not taken: all, and by study."""
    taken = [line for line in lines if not line["study"].endswith(TRIED)]
    return taken, {line["study"]: [each for each in taken if each["study"] == line["study"]] for line in taken}


def _file(study: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", study.lower()).strip("-") + ".svg"


def architecture(system: str) -> str | None:
    """The paper's name of a system of ours; None if it has none."""
    found = set(re.findall(r"[a-z]\w*", system.lower()))
    if found and found <= {"xlstm", "mlstm", "slstm"}:
        return "xLSTM"
    return NAMES.get(found.pop()) if len(found) == 1 else None


def benchmark(lines: Sequence[Line]) -> str | None:
    """The BLiMP that the runs were scored on: all of it rather than a part."""
    found = sorted({name for line in lines for name in line["scores"] if name.startswith("blimp")}, key=lambda name: (len(name), name))
    return found[0] if found else None


def _overlap(found: dict[str, Any]) -> str:
    """How many items hold a word that the texts of our runs lack."""
    told = []
    for name, each in found.items():
        rows = [row for row in each["overlap"] if row["suite"] in COUNTED] if each else []
        told.append(f"- {name}: {unseen(rows, each['words']) if each else 'not counted yet (`ritornello data inspect --overlap`).'}")
    return "\n".join(["Of their text the filtered sets were made, so it lacks no word of them. Ours:\n", *told]) + "\n" if told else ""


def _contest(lines: Sequence[Line]) -> str | None:
    """The BLiMP of a study of two of the paper's architectures or more, or of one beside others with several seeds each; else None."""
    systems, suite = {line["system"] for line in lines}, benchmark(lines)
    known = {architecture(system) for system in systems} - {None}
    several = len(systems) > 1 and min(sum(line["system"] == system for line in lines) for system in systems) > 1
    return suite if len(known) > 1 or (known and several) else None


def _systems_drawn(lines: Sequence[Line]) -> str | None:
    """Seeds and means of three systems or more."""
    suite, systems = _contest(lines), {line["system"] for line in lines}
    if suite is None or len(systems) < 3:
        return None
    blimp, bits = scores(lines, suite), scores(lines, "bits_per_byte")
    order = sorted(blimp, key=lambda name: -estimate(blimp[name]).value)
    ngram = {line["scores"].get("ngram_bits_per_byte") for line in lines} - {None}
    level = ("n-gram", ngram.pop()) if len(ngram) == 1 else None
    size, words = (number(max(line[key] for line in lines)) for key in ("parameters", "words"))
    title = f"Which system learns most from {words} words?"
    under = f"{size} parameters each. A ring is a seed, a dot their mean; the best on BLiMP first."
    panels = [
        forest.Panel(f"{title_of(suite)}, %", {name: forest.of_systems(found, True) for name, found in blimp.items()}),
        forest.Panel(
            "held-out bits per byte: less is better", {name: forest.of_systems(each, False) for name, each in bits.items()}, level
        ),
    ]
    return forest.draw(title, under, order, panels)


def _switches_drawn(lines: Sequence[Line]) -> str | None:
    """What each switch changes, with its interval."""
    apart = _apart(lines)
    if apart is None:
        return None
    order = sorted(apart["bits_per_byte"], key=lambda system: apart["bits_per_byte"][system].value)
    panels = [
        forest.Panel(name, {system: forest.of_difference(found, percent) for system, found in apart[suite].items()}, ("the base", 0.0))
        for suite, name, percent in (
            ("bits_per_byte", "bits per byte: less is better", False),
            (benchmark(lines) or "", f"{title_of(benchmark(lines) or '')}, points", True),
        )
    ]
    under = "One switch at a time, the best on held-out text first. In colour: what the seeds tell apart from the base."
    return forest.draw("What is a switch worth?", under, order, panels)


def _architectures(study: str, lines: Sequence[Line]) -> str | None:
    """A study of architectures: the table, and the paper's claims."""
    suite = _contest(lines)
    if suite is None:
        return None
    found = scores(lines, suite)
    order = sorted({line["system"] for line in lines}, key=lambda name: -estimate(found[name]).value if name in found else 0)
    titles = ["system", "their BLiMP", "their size", "parameters", "words seen", "seeds", title_of(suite)]
    others = [name for name in SUITES if any(name in line["scores"] for line in lines)]
    rows = [[*titles, *map(title_of, others), "bits per byte"], ["---", *["---:"] * (len(titles) + len(others))]]
    for system in order:
        own = [line for line in lines if line["system"] == system]
        theirs = ROWS.get(architecture(system) or "")
        went = sum(line["failed"] is None for line in own)
        seeds = str(went) if went == len(own) else f"{went} of {len(own)}"
        sizes = [number(max(line[key] for line in own)) for key in ("parameters", "words")]
        cells = [system, *([f"{100 * theirs.scores['blimp']:.4g}", theirs.system.split()[1]] if theirs else ["", ""]), *sizes, seeds]
        means = [_mean(scores(own, name).get(system), name) for name in (suite, *others, "bits_per_byte")]
        rows.append([*cells, *means])
    if ngram := {line["scores"].get("ngram_bits_per_byte") for line in lines} - {None}:
        seen = number(max(line["words"] for line in lines))
        blank = [""] * (1 + len(others))
        rows.append(["n-gram, modified Kneser-Ney", "", "", "", seen, "", *blank, " or ".join(f"{each:.3f}" for each in sorted(ngram))])
    table = ["| " + " | ".join(row) + " |" for row in rows]
    picture = [f"![Every system's seeds and their mean on BLiMP and on held-out text]({_file(study)})", ""] if _systems_drawn(lines) else []
    return "\n".join([f"## Which architecture: {study}", "", *picture, *table, "", *_claims(found, suite), ""])


def _claims(found: dict[str, Scores], suite: str) -> list[str]:
    """What the paper's table says, beside what ours does."""
    ours = {name: system for system in reversed(found) if (name := architecture(system))}
    rows = []
    for first, second in CLAIMS:
        if first in ours and second in ours:
            theirs = 100 * (ROWS[first].scores["blimp"] - ROWS[second].scores["blimp"])
            apart = difference(found[ours[first]], found[ours[second]])
            rows.append(f"| {first} above {second} | {theirs:+.1f} | {_interval(apart, sign=True)} | {_verdict(apart)} |")
    if "xLSTM" in ours:
        whole = estimate(found[ours["xLSTM"]])
        if whole.low is None:
            said = "unknown: one seed"
        else:
            said = (
                "not reproduced: ours is above chance"
                if whole.low > 0.5
                else "reproduced"
                if (whole.high or 1) <= 0.55
                else "cannot be told"
            )
        rows.append(f"| xLSTM at chance (50) | {100 * ROWS['xLSTM'].scores['blimp']:.4g} | {_interval(whole)} | {said} |")
    sentences = []
    if len(found) > 1:
        first, *rest = sorted(found, key=lambda name: -estimate(found[name]).value)
        sentences = [f"- {conclude(first, name, difference(found[first], found[name]), title_of(suite))}" for name in rest]
        sentences += [f"- {by_chance(len(rows) + len(rest))}"]
    columns = ["| the paper, BLiMP | theirs, one run each | ours | so |", "| --- | ---: | ---: | --- |"]
    return [*(columns if rows else []), *rows, "", *sentences]


def _distilled(study: str, lines: Sequence[Line]) -> str | None:
    """A study of students and their control: what the teacher adds at equal FLOP."""
    students = list(dict.fromkeys(line["system"] for line in lines if line["system"].startswith("student")))
    if not students or "control" not in {line["system"] for line in lines}:
        return None
    published = {each.system: each.scores["blimp"] for each in PUBLISHED if each.words == "10M"}
    gain = 100 * (published[TAUGHT] - published[UNTAUGHT])
    suites = [suite for suite in (benchmark(lines), "bits_per_byte") if suite]
    head = ["system", "parameters", "words seen", "steps", "PFLOP", "seeds", *(_named(suite) for suite in suites)]
    rows = [head, ["---", *["---:"] * (len(head) - 1)]]
    for system in dict.fromkeys(line["system"] for line in lines):
        own = [line for line in lines if line["system"] == system]
        sizes = [number(max(line[key] for line in own)) for key in ("parameters", "words", "steps")]
        sizes += [number(max(line["flop"] for line in own) / 1e15)]
        went = str(sum(line["failed"] is None for line in own))
        rows.append([system, *sizes, went, *(_mean(scores(own, suite).get(system), suite) for suite in suites)])
    text = [
        f"## Distillation: {study}",
        "",
        f"Theirs, 10M words of the Pile, 1.0B parameters, without a control of equal FLOP: {gain:+.1f} points of BLiMP.",
        "",
        *("| " + " | ".join(row) + " |" for row in rows),
        "",
        "PFLOP are of training; a student's hold its teachers' reading, and its control spends as many. What the teachers were trained "
        "with does not count.",
        "",
    ]
    for suite, metric in ((benchmark(lines), "accuracy"), ("bits_per_byte", "bits per byte")):
        found = scores(lines, suite) if suite else {}
        what = "held-out text" if suite == "bits_per_byte" else title_of(suite or "")
        for name in students:
            if name in found and "control" in found:
                text.append(f"- {conclude(name, 'control', difference(found[name], found['control']), what, metric)}")
    return "\n".join([*text, ""])


def _switches(study: str, lines: Sequence[Line]) -> str | None:
    """A study of single changes against one base of two seeds or more: what each is worth, the most on held-out text first."""
    apart, suite = _apart(lines), benchmark(lines)
    if apart is None:
        return None
    bases = {name: scores(lines, name)["base"] for name in apart}
    order = sorted(apart["bits_per_byte"], key=lambda system: apart["bits_per_byte"][system].value)
    settings = {line["system"]: line["config"] for line in lines}
    rows = ["| switch | settings | seeds | bits per byte | BLiMP points |", "| --- | --- | ---: | ---: | ---: |"]
    for system in order:
        told = [_told_apart(found[system], bits=name == "bits_per_byte") for name, found in apart.items()]
        own = ", ".join(f"`{key}={value}`" for key, value in settings[system].items()).replace("|", "\\|")
        rows.append(f"| {system} | {own} | {apart['bits_per_byte'][system].seeds[0]} | {' | '.join(told)} |")
    base, blimp = (estimate(found) for found in bases.values())
    shape = next(line for line in lines if line["system"] == "base")
    about = (
        f"One switch at a time against a base of {number(shape['parameters'])} parameters and {number(shape['words'])} words seen, "
        f"which has {base.value:.3f} bits per byte and {100 * blimp.value:.1f} on {title_of(suite or '')}. Less bits are better, more "
        f"points are; **bold** is what the seeds tell apart from nothing. {by_chance(2 * len(order))}"
    )
    picture = f"![What each switch changes on held-out text and on BLiMP, with intervals]({_file(study)})"
    return "\n".join([f"## What a switch is worth: {study}", "", about, "", picture, "", *rows, ""])


def _apart(lines: Sequence[Line]) -> dict[str, dict[str, Estimate]] | None:
    """By benchmark and switch the difference from the base; None without a base of two seeds or more and something beside it."""
    found = {name: scores(lines, name) for name in ("bits_per_byte", benchmark(lines) or "")}
    bases = {name: own.pop("base", None) or {} for name, own in found.items()}
    if min(len(base) for base in bases.values()) < 2 or not all(found.values()):
        return None
    return {name: {system: difference(each, bases[name]) for system, each in own.items()} for name, own in found.items()}


def _told_apart(found: Estimate, *, bits: bool) -> str:
    """A difference with its interval, bold where that leaves out 0."""
    text = _interval(found, sign=True, bits=bits)
    return f"**{text}**" if found.low is not None and found.high is not None and not found.low <= 0 <= found.high else text


def _named(suite: str) -> str:
    return "bits per byte" if suite == "bits_per_byte" else title_of(suite)


def _standing(lines: Sequence[Line]) -> str:
    """Published systems of 10M words and ours that were scored on all of filtered BLiMP, best first."""
    rows = [
        (
            each.scores["blimp"],
            f"{each.system} ({each.source})",
            each.corpus,
            "10M, in several passes",
            "1",
            f"{100 * each.scores['blimp']:.4g}",
            "",
        )
        for each in PUBLISHED
        if each.words == "10M"
    ]
    for study in dict.fromkeys(line["study"] for line in lines):
        own = [line for line in lines if line["study"] == study]
        theirs = scores(own, SPACED)
        for system, found in scores(own, "blimp").items():
            whole, words = estimate(found), max(line["words"] for line in own if line["system"] == system)
            told = (f"**{system}** ({study})", own[0]["corpus"], f"{number(words)} seen", str(whole.seeds[0]))
            spaced = theirs.get(system)
            value = estimate(spaced).value if spaced else whole.value
            rows.append((value, *told, _mean(spaced, SPACED) if spaced else "", _mean(found, "blimp")))
    head = ["| system | text | words | runs | BLiMP, filtered, protocol of 2024 | ours |", "| --- | --- | ---: | ---: | ---: | ---: |"]
    table = ["| " + " | ".join(row[1:]) + " |" for row in sorted(rows, key=lambda row: -row[0])]
    about = (
        "The published figures are of the challenge's pipeline of 2024, which puts a space before each sentence "
        "(`--protocol official-2024`); our own protocol does not. Rows are in order of the first where it was measured."
    )
    return "\n".join(["## Where that stands", "", about, "", *head, *table, ""])


def _left(lines: Sequence[Line]) -> str:
    """What the paper has and our runs do not."""
    if not lines:
        return ""
    had = {name.partition(",")[0] for line in lines for name in line["scores"]}
    lacking = [title_of(suite) for suite in SUITES if suite not in had]
    most = number(max((line["parameters"] for line in lines), default=0))
    words = number(max((line["words"] for line in lines), default=0))
    said = [
        "their texts, which could not be had; their sizes (360M and 1.0B parameters; ours have at most " + most + ")",
        f"their 10M and 100M words several times over (ours see at most {words})",
        "the choice of the best epoch by the benchmarks themselves, which ours do not make",
        *([f"{'; '.join(lacking)}: no run of ours was scored on them"] if lacking else []),
    ]
    return "\n".join(["## Not repeated", "", *(f"- {each}" for each in said), ""])


def _mean(found: Scores | None, name: str) -> str:
    """A mean, its deviation over seeds and its interval."""
    if not found:
        return "–"
    whole, bits = estimate(found), name == "bits_per_byte"
    value = f"{whole.value:.3f}" if bits else f"{100 * whole.value:.1f}"
    if whole.sd is None:
        return value
    spread = f"{whole.sd:.3f}" if bits else f"{100 * whole.sd:.1f}"
    return f"{value} ± {spread} {_interval(whole, bits=bits).partition(' ')[2]}"


def _interval(found: Estimate, *, sign: bool = False, bits: bool = False) -> str:
    """12.3 [10.1, 14.5]; without an interval where there is none."""
    plus = "+" if sign else ""

    def text(value: float) -> str:
        return format(value if bits else 100 * value, f"{plus}.{3 if bits else 1}f")

    bounds = "" if found.low is None or found.high is None else f" [{text(found.low)}, {text(found.high)}]"
    return text(found.value) + bounds


def _verdict(found: Estimate) -> str:
    if found.low is None or found.high is None:
        return "unknown: one seed"
    return "reproduced" if found.low > 0 else "the opposite" if found.high < 0 else "cannot be told apart"
