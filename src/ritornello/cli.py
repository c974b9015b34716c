"""The `ritornello` command (short `rit`): parse, call one function, print.

Nothing heavy is imported before a command needs it, so `--help` answers at once.
"""

import argparse
import os
import sys
import time
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NoReturn

from ritornello import __version__, commands
from ritornello.commands import OWN_FILES
from ritornello.diagnostics import TASKS
from ritornello.errors import InputError
from ritornello.mixers import CHANNEL, MIXERS
from ritornello.train import PRESETS

SPINS = "10000"  # turns of a loop, some tens of microseconds
TIME_MIXERS = ", ".join(sorted(set(MIXERS) - CHANNEL))


class Parser(argparse.ArgumentParser):
    """argparse whose errors are one line and name the nearest option."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"ritornello: {message}; see {self.prog} --help\n")

    def refuse(self, words: Sequence[str]) -> NoReturn:
        """Say that the first of these words is no option of ours, and which one is near."""
        near = get_close_matches(words[0].partition("=")[0], [option for action in self._actions for option in action.option_strings], n=1)
        self.exit(2, f"ritornello: unknown option {words[0]}; " + (f"did you mean {near[0]}?\n" if near else f"see {self.prog} --help\n"))


def _share_the_processor() -> None:
    """Let threads that wait for one another soon give way, before torch comes and reads how long they may not.

    GNU's OpenMP lets them spin for milliseconds, at each of a model's many short steps. Alone on a machine that gains a hundredth; where
    another program wants the same cores the one that is waited for cannot run meanwhile, and an LSTM took up to a hundred times as long as
    with threads that give way at once.
    """
    if not {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"} & os.environ.keys():
        os.environ["GOMP_SPINCOUNT"] = SPINS


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; the exit code: 0 done, 2 a problem the user can mend (one line says what), 128 + n stopped by signal n."""
    began = time.monotonic()
    _share_the_processor()
    parsed, extra = _parser().parse_known_args(argv)
    options = vars(parsed)
    command, parser = options.pop("command"), options.pop("parser")
    if "overrides" in options:  # a.b=c may stand anywhere, also behind options
        options["overrides"] += [word for word in extra if not word.startswith("-")]
        extra = [word for word in extra if word.startswith("-")]
    if extra:
        parser.refuse(extra)
    try:
        return command(options, began)
    except InputError as error:
        print(f"ritornello: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # so that the interpreter's own flush does not fail again
        return 0
    except OSError as error:
        print(f"ritornello: {error.filename or 'the disk'}: {error.strerror or error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nritornello: stopped; a run goes on with: ritornello resume RUN", file=sys.stderr)
        return 130


def _parser() -> Parser:
    parser = Parser(prog="ritornello", description="Train, compare, look inside and stream recurrent language models.", allow_abbrev=False)
    parser.add_argument("--version", action="version", version=f"ritornello {__version__}")
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND", required=True, parser_class=Parser)
    _add_run(subparsers)
    _add_distill(subparsers)

    resume = _command(subparsers, "resume", commands.resume_run, "go on with a run that was stopped, to the weights it would have had")
    resume.add_argument("run", type=Path, metavar="RUN", help="the run's folder")

    generate = _command(subparsers, "generate", commands.generate_text, "let a model write; the text streams to standard output")
    generate.add_argument("run", type=Path, metavar="RUN", help="the run's folder")
    generate.add_argument("--prompt", default="", metavar="TEXT", help="how the text begins; special strings in it are text")
    generate.add_argument("--temperature", type=float, default=0.8, metavar="X", help="0: always the likeliest token (default 0.8)")
    generate.add_argument("--top-k", type=int, metavar="N", help="sample from the N likeliest tokens only")
    generate.add_argument("--top-p", type=float, metavar="P", help="sample from the fewest tokens that hold a share P")
    generate.add_argument("--seed", type=int, default=0, metavar="N", help="the same seed writes the same text (default 0)")
    generate.add_argument("--tokens", type=int, default=200, dest="max_tokens", metavar="N", help="stop after N tokens (default 200)")
    generate.add_argument(
        "--weights", choices=("float32", "bfloat16", "int8"), default="float32", help="fewer bits: faster, less exact (default float32)"
    )

    _add_evaluate(subparsers)
    _add_dynamics(subparsers)
    _add_compare(subparsers)
    _add_sweep(subparsers)
    _add_data(subparsers)

    imports = _command(
        subparsers, "import", commands.import_model, "make a run of a model in a Hugging Face layout",
        "Takes over the weights (safetensors only) and the tokenizer of HGRN2, Llama, Mamba, Mamba-2, RWKV-4 and RecurrentGemma models.",
    )  # fmt: skip
    imports.add_argument("folder", type=Path, metavar="FOLDER", help="with config.json, model.safetensors and tokenizer.json")
    imports.add_argument("--out", type=Path, metavar="RUN", help="the run's folder (default: runs/ and the folder's name)")
    imports.add_argument("--tokenizer", type=Path, metavar="FILE", help="a tokenizer.json, if the folder has none")

    export = _command(subparsers, "export", commands.export_model, "write a trained model for other programs to open")
    export.add_argument("run", type=Path, metavar="RUN", help="the run's folder")
    meaning = "hf: a folder that transformers opens with our classes; hf-layout: with its own, where it has such a model"
    export.add_argument("--to", choices=("hf", "hf-layout"), required=True, help=meaning)
    export.add_argument("--out", type=Path, metavar="FOLDER", help="where to write (default: RUN/hf or RUN/hf-layout)")
    export.add_argument("--push", metavar="NAME", help="and upload it to the Hugging Face hub by this name; a new repository is private")

    _add_diagnose(subparsers)

    show = _command(subparsers, "show", commands.show_run, "print what a run came to")
    show.add_argument("run", type=Path, metavar="RUN", help="the run's folder")

    runs = _command(subparsers, "runs", commands.list_runs, "list the runs in a folder")
    runs.add_argument("folder", type=Path, nargs="?", default=Path("runs"), metavar="FOLDER", help="where to look (default: runs)")

    mixers = _command(subparsers, "mixers", commands.list_mixers, "list what --mixer and --channel can name, with sizes")
    mixers.add_argument("--dim", type=int, default=256, metavar="N", help="the width to count at (default 256)")

    _command(subparsers, "doctor", commands.examine_machine, "tell what this machine has, what is in use, and what would make it faster")
    return parser


def _add_run(subparsers: Any) -> None:
    run = _command(
        subparsers, "run", commands.train_run, "from a text to a report: tokenizer, training, evaluation, a page",
        "Reads CORPUS, trains a tokenizer and a model, evaluates, and writes a folder with report.html. "
        "Give it time (--minutes) and it picks every size itself; fix whatever you like.",
    )  # fmt: skip
    formats = "a file, folder or glob of .txt .jsonl .csv .tsv, plain or .gz .xz .zst .bz2, or in .tar"
    run.add_argument(
        "corpus", nargs="?", metavar="CORPUS", help=f"{formats}; - is standard input; default: the documentation inside Python"
    )
    run.add_argument(
        "overrides",
        nargs="*",
        metavar="KEY=VALUE",
        help="settings by name, such as train.weight_decay=0.05 or model.mixers.hgrn2.head_dim=32",
    )
    bound = run.add_argument_group("how long")
    bound.add_argument("--minutes", type=float, metavar="N", help="wall time from start to finished page (default 3)")
    bound.add_argument(
        "--steps", type=int, metavar="N", help="so many updates instead: nothing is measured, float32, the same result everywhere"
    )
    bound.add_argument("--epochs", type=float, metavar="N", help="the same, as passes over the training text")
    text = run.add_argument_group("the text")
    text.add_argument("--documents", choices=("auto", "blank", "file", "line"), help="what one document is (default auto)")
    text.add_argument("--encoding", metavar="NAME", help="of text files (default utf-8)")
    text.add_argument("--column", metavar="NAME", help="the field of .jsonl, .csv and .tsv (default text)")
    text.add_argument("--licence", metavar="NOTE", help="a note on the text, passed on with the results")
    text.add_argument(
        "--tokenizer", metavar="KIND", help="bytes, bpe, or a tokenizer.json (default: bytes below a million words, else bpe)"
    )
    text.add_argument("--vocab", type=int, metavar="N", help="size of a bpe vocabulary")
    model = run.add_argument_group("the model")
    model.add_argument(
        "--mixer", metavar="NAME", help=f"layers from bottom to top, such as 'hgrn2*5 attention', of {TIME_MIXERS} (default hgrn2)"
    )
    model.add_argument(
        "--channel", metavar="NAME", help=f"{', '.join(sorted(CHANNEL))}, partner or none (default: as in the layers' paper)"
    )
    for name, meaning in (("dim", "channels"), ("layers", "blocks"), ("batch", "rows of an update"), ("length", "tokens of a row")):
        model.add_argument(f"--{name}", type=int, metavar="N", help=meaning)
    model.add_argument("--lr", type=float, metavar="X", help="peak learning rate")
    model.add_argument("--seed", type=int, metavar="N", help="of weights, order and dropout (default 0)")
    model.add_argument("--from", dest="start_from", metavar="RUN", help="begin with another run's weights and tokenizer")
    checks = run.add_argument_group("evaluation")
    checks.add_argument("--pairs", action="append", metavar="PATH", help="minimal pairs to score: a JSON-lines file or a folder of them")
    _add_protocol(checks, None)  # a recipe may say
    rest = run.add_argument_group("the rest")
    rest.add_argument("--recipe", type=Path, metavar="FILE", help="a .toml file with any of these settings")
    rest.add_argument("--out", metavar="RUN", help="the run's folder (default: the next free one in runs/)")
    rest.add_argument("--checkpoint-every", type=int, metavar="N", help="steps between checkpoints (default: 30 seconds)")
    kept = "keep the weights when so many words have been seen, such as 1M,2M,500k; babylm: 1M to 10M, and 20M to 100M by tens"
    rest.add_argument("--checkpoint-words", metavar="WORDS", help=kept)
    rest.add_argument("--dry-run", action="store_true", help="print the plan and stop")


def _add_distill(subparsers: Any) -> None:
    distill = _command(
        subparsers, "distill", commands.distill_student, "train a student that also learns from trained models, beside its control",
        "A teacher is a run, RUN@1M, or a Hugging Face model with the student's tokenizer. What is not said of the student is as in the "
        "first teacher's run: text, tokenizer, shape, steps. The control is the same student without a teacher, with steps for all that "
        "was computed. Every run is kept in OUT, with a page about all of them; the same command goes on where it was stopped.",
    )  # fmt: skip
    distill.add_argument("corpus", nargs="?", metavar="CORPUS", help="the text (default: the teacher's)")
    meaning = "settings by name, such as teach.average=logits, teach.hints.distance=cosine or train.weight_decay=0.05"
    distill.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help=meaning)
    teaching = distill.add_argument_group("teaching")
    teaching.add_argument("--teacher", action="append", required=True, metavar="RUN", help="once for each of several, which are averaged")
    teaching.add_argument("--preset", metavar="NAME", help=f"one published recipe: {', '.join(PRESETS)}")
    teaching.add_argument("--alpha", metavar="X[,X]", help="share of the teachers in the loss (default 0.5); several: a student of each")
    teaching.add_argument("--temperature", type=float, metavar="T", help="of the softmax of both (default 1)")
    teaching.add_argument(
        "--cache", type=int, metavar="K", help="keep the teachers' K likeliest tokens of the text, read once for all runs"
    )
    teaching.add_argument("--hints", type=float, metavar="X", help="also match features of blocks, with this weight")
    teaching.add_argument("--bytes", action="store_true", help="compare spans of bytes: for a teacher with another tokenizer")
    teaching.add_argument("--written", metavar="WORDS", help="let the teacher write the text, so many words, such as 1M")
    teaching.add_argument("--generations", type=int, default=1, metavar="N", help="each student teaches the next (default 1)")
    teaching.add_argument("--no-control", action="store_true", help="leave the control out")
    teaching.add_argument("--seeds", type=int, default=1, metavar="N", help="students and controls of so many seeds (default 1)")
    student = distill.add_argument_group("the student")
    student.add_argument("--mixer", metavar="NAME", help="layers from bottom to top")
    student.add_argument("--channel", metavar="NAME", help="the channel mixer, or none")
    for name in ("dim", "layers", "batch", "length", "steps", "seed"):
        student.add_argument(f"--{name}", type=int, metavar="N", help="as of `ritornello run`")
    student.add_argument("--lr", type=float, metavar="X", help="peak learning rate")
    student.add_argument("--tokenizer", metavar="KIND", help="bytes, bpe, or a tokenizer.json (default: the teacher's)")
    student.add_argument("--pairs", action="append", metavar="PATH", help="minimal pairs to score")
    _add_suites(distill)
    distill.add_argument("--jobs", default="1", metavar="N", help="runs at a time, or ray for a cluster (default 1)")
    distill.add_argument("--out", default="distilled", metavar="FOLDER", help="where to write (default: distilled)")


def _add_evaluate(subparsers: Any) -> None:
    evaluate = _command(
        subparsers, "evaluate", commands.evaluate_model, "score a model on BLiMP, EWoK, GLUE ... and on files of your own",
        "Prints a table and writes OUT/results.json. Every finished task is kept: the same command goes on where it was stopped. "
        "Without --suite or a file it lists the suites and says which of them the data folder has.",
    )  # fmt: skip
    evaluate.add_argument("model", nargs="?", metavar="MODEL", help="a run's folder, or a Hugging Face model on disk or on the hub")
    _add_suites(evaluate)
    for name, meaning in OWN_FILES.items():
        evaluate.add_argument(f"--{name.replace('_', '-')}", action="append", default=[], metavar="PATH", help=meaning)
    _add_protocol(evaluate, "ritornello", "within-word")
    evaluate.add_argument("--tasks", default="", metavar="NAMES", help="of the suites these tasks alone, such as cola,rte of glue")
    evaluate.add_argument("--seeds", default="", metavar="LIST", help="of fine-tuning, such as 1,2,3 (default: the suite's own)")
    evaluate.add_argument("--out", type=Path, metavar="FOLDER", help="what is kept (default: RUN/evaluation, or evaluations/NAME)")
    evaluate.add_argument("--predictions", type=Path, metavar="FILE.json", help="write the decisions as the BabyLM challenge wants them")


def _add_dynamics(subparsers: Any) -> None:
    dynamics = _command(
        subparsers, "dynamics", commands.score_checkpoints, "score the checkpoints of runs: what is learned after how many words",
        "Each RUN stands for the weights it kept by --checkpoint-words and for its finished model, RUN@1M for one of them. Writes a table, "
        "a line for each number, and a page of curves. What is finished is kept and not run again.",
    )  # fmt: skip
    dynamics.add_argument("runs", nargs="+", metavar="RUN", help="runs' folders")
    _add_suites(dynamics)
    dynamics.add_argument("--text", action="append", default=[], metavar="PATH", help=OWN_FILES["text"])
    dynamics.add_argument("--threshold", type=float, metavar="X", help="the score to be reached (default: halfway from chance to the best)")
    _add_protocol(dynamics, "ritornello")
    dynamics.add_argument("--out", type=Path, default=Path("dynamics"), metavar="FOLDER", help="where to write (default: dynamics)")


def _add_compare(subparsers: Any) -> None:
    compare = _command(
        subparsers, "compare", commands.compare_systems, "which architecture learns most from this text?",
        "Trains every system with several seeds on one budget, at equal size, tokenizer and batch, and writes a table with intervals, "
        "differences, curves and cost. What is finished is kept and not run again: the same command, or OUT alone, goes on.",
    )  # fmt: skip
    texts = "texts, as `ritornello run` takes them, and settings of all runs, such as length=128; or OUT alone, to go on"
    compare.add_argument("corpora", nargs="*", metavar="CORPUS|KEY=VALUE", help=texts)
    meaning = (
        "with commas between: patterns of layers, such as 'hgrn2*5 attention' (default hgrn2,lstm,attention); or some of the recipe's, "
        "which keep the shapes they have among all of them"
    )
    compare.add_argument("--systems", metavar="NAMES", help=meaning)
    compare.add_argument("--seeds", type=int, metavar="N", help="runs of each (default 3)")
    meaning = "number of the first (default 0): with it machines share a study, as --first-seed 4 on the second"
    compare.add_argument("--first-seed", type=int, metavar="N", help=meaning)
    compare.add_argument("--budget", metavar="KIND=N", help="of each run: words=1M, flop=1e15 or minutes=5 (default words=1M)")
    compare.add_argument("--parameters", metavar="N", help="of each system, such as 3M, to 2 %% (default: as many as the first system has)")
    compare.add_argument(
        "--without-embedding", action="store_const", const=False, dest="embedding", help="count them without embedding and head"
    )
    rates = "learning rates to choose from, with commas between; auto: by factors of two until the best lies between worse ones"
    compare.add_argument("--rates", metavar="RATES", help=f"{rates} (default: the rule of `ritornello run`)")
    chosen = "what chooses the rate (default held-out: bits per byte of held-out text)"
    compare.add_argument("--select", choices=("held-out", "benchmark"), help=chosen)
    _add_suites(compare)
    compare.add_argument("--text", action="append", metavar="PATH", help=OWN_FILES["text"])
    compare.add_argument(
        "--recipe", type=Path, metavar="FILE", help="a .toml file with these settings, [run] for all runs, [system.NAME] for one's"
    )
    compare.add_argument("--jobs", default="1", metavar="N", help="runs at a time, or ray for a cluster (default 1)")
    compare.add_argument("--out", type=Path, metavar="FOLDER", help="where to write (default: comparison)")
    compare.set_defaults(overrides=[])


def _add_sweep(subparsers: Any) -> None:
    sweep = _command(
        subparsers, "sweep", commands.sweep_settings, "search for settings that predict held-out text best",
        "Trains with settings that Optuna proposes, and writes a table and a page. What is finished is kept: the same command goes on.",
    )  # fmt: skip
    sweep.add_argument("corpus", metavar="CORPUS", help="the text, as `ritornello run` takes it")
    meaning = "settings as of `ritornello run`; with a range to search: train.lr=1e-4..1e-2:log dim=64..256 'mixer=hgrn2|lstm'"
    sweep.add_argument("words", nargs="*", metavar="KEY=VALUE", help=meaning)
    sweep.add_argument("--space", type=Path, metavar="FILE", help="a .toml file of such ranges")
    sweep.add_argument("--trials", type=int, default=20, metavar="N", help="runs in all (default 20)")
    sweep.add_argument("--steps", type=int, metavar="N", help="updates of each run")
    sweep.add_argument("--minutes", type=float, metavar="N", help="or wall time of each run (default 3)")
    sweep.add_argument("--recipe", type=Path, metavar="FILE", help="a .toml file of settings that stay")
    sweep.add_argument("--seed", type=int, default=0, metavar="N", help="of the proposals; that of the runs is seed=N (default 0)")
    sweep.add_argument("--jobs", default="1", metavar="N", help="runs at a time, or ray for a cluster (default 1)")
    sweep.add_argument("--out", type=Path, default=Path("sweep"), metavar="FOLDER", help="where to write (default: sweep)")
    sweep.set_defaults(overrides=[])


def _add_suites(parser: Any) -> None:
    meaning = "with commas between; all: whatever is there, less bear-big, which takes hours"
    parser.add_argument("--suite", action="append", default=[], metavar="NAMES", help=meaning)
    parser.add_argument("--data", type=Path, metavar="FOLDER", help="where the suites' files lie (default: RITORNELLO_DATA)")
    parser.add_argument("--limit", type=int, metavar="N", help="at most N items of each task, evenly spaced: a quick look, not a score")


def _add_data(subparsers: Any) -> None:
    data = subparsers.add_parser("data", help="make a corpus and look into it: build, inspect, fetch", allow_abbrev=False)
    below = data.add_subparsers(title="commands", metavar="COMMAND", required=True, parser_class=Parser)
    build = _command(
        below, "build", commands.build_corpus, "a corpus out of several sources, by ratio to a budget of words",
        "Writes a folder that `ritornello run` reads: a file for each source of the plan, and manifest.json. The same plan gives the same "
        "bytes. Without PLAN it lists the cleaning steps that a plan can name.",
    )  # fmt: skip
    build.add_argument("plan", type=Path, nargs="?", metavar="PLAN.toml", help="the sources, their shares, and what is done to them")
    build.add_argument("--out", type=Path, metavar="FOLDER", help="where to write (default: corpora/ and the plan's name)")
    build.add_argument("--words", metavar="N", help="another budget than the plan's, such as 1M")
    build.add_argument("--seed", type=int, metavar="N", help="another seed than the plan's: other documents are drawn")
    inspect = _command(below, "inspect", commands.inspect_corpus, "words, documents, sources, scripts, lengths, copies of a corpus")
    inspect.add_argument("corpus", metavar="CORPUS", help="as of `ritornello run`")
    inspect.add_argument("--documents", choices=("auto", "blank", "file", "line"), default="auto", help="what one document is")
    inspect.add_argument("--encoding", default="utf-8", metavar="NAME", help="of text files (default utf-8)")
    inspect.add_argument("--column", default="text", metavar="NAME", help="the field of .jsonl, .csv and .tsv (default text)")
    inspect.add_argument("--tokenizer", metavar="KIND", help="count its tokens: bytes, a tokenizer.json, or a run's folder")
    inspect.add_argument("--similarity", type=float, default=0.8, metavar="X", help="from which a document is a copy (default 0.8)")
    meaning = "how much of these evaluation suites stands in the training text, with commas between; all: whatever is there"
    inspect.add_argument("--overlap", metavar="NAMES", help=meaning)
    fetch = _command(
        below, "fetch", commands.fetch_corpus, "a public corpus, by name",
        "babylm-2026-10m, babylm-2026-100m, babylm-2024-10m, babylm-2023-10m, babylm-2023-100m; any dataset of the Hugging Face hub, as "
        "OWNER/NAME; or a folder of data files. Needs the extra data.",
    )  # fmt: skip
    fetch.add_argument("name", metavar="NAME", help="which")
    fetch.add_argument("--out", type=Path, metavar="FOLDER", help="where to write (default: corpora/ and the name)")
    fetch.add_argument("--split", default="train", metavar="NAME", help="of a dataset (default train)")
    fetch.add_argument("--column", default="text", metavar="NAME", help="that holds the text (default text)")
    fetch.add_argument("--by", metavar="COLUMN", help="a file for each value of this column, such as meta.pile_set_name")
    for each in (build, inspect):
        each.add_argument("--data", type=Path, metavar="FOLDER", help="where files of plans and suites lie (default: RITORNELLO_DATA)")


def _add_diagnose(subparsers: Any) -> None:
    diagnose = _command(
        subparsers, "diagnose", commands.diagnose_mixers,
        "what can an architecture do? small models on generated tasks, at lengths they have not seen",
        "Trains a small model for each mixer, task and seed, tests it at 1, 2, 4 and 8 times its longest training sequence, and writes a "
        "folder with report.html. What is finished is kept and not run again.",
    )  # fmt: skip
    diagnose.add_argument(
        "--mixers", default="hgrn2,lstm,attention", metavar="NAMES",
        help=f'with commas between; settings in brackets: "deltanet(eigenvalues=signed),lstm" (default %(default)s). Known: {TIME_MIXERS}',
    )  # fmt: skip
    diagnose.add_argument(
        "--tasks", default="parity,flip-flop,recall", metavar="NAMES", help=f"(default %(default)s). Known: {', '.join(TASKS)}"
    )
    diagnose.add_argument("--seeds", type=int, default=3, metavar="N", help="runs of each (default 3)")
    diagnose.add_argument("--steps", type=int, default=1500, metavar="N", help="updates of a run (default 1500)")
    diagnose.add_argument("--length", type=int, default=16, metavar="N", help="longest training sequence (default 16)")
    diagnose.add_argument("--jobs", type=int, metavar="N", help="runs at a time (default: a processor each)")
    diagnose.add_argument("--out", type=Path, default=Path("diagnosis"), metavar="FOLDER", help="where to write (default: diagnosis)")


def _add_protocol(parser: Any, default: str | None, *masked: str) -> None:
    known = ("ritornello", "official-2024", "official-2025", *masked)
    meaning = "how minimal pairs are scored (default ritornello: all tokens after the beginning, no leading space)"
    if masked:
        meaning += "; within-word is for masked models: a token is hidden with the rest of its word"
    parser.add_argument("--protocol", choices=known, default=default, help=meaning)


def _command(subparsers: Any, name: str, function: Any, summary: str, description: str | None = None) -> Parser:
    parser = subparsers.add_parser(
        name, help=summary, description=description or summary[0].upper() + summary[1:] + ".", allow_abbrev=False
    )
    parser.set_defaults(command=function, parser=parser)
    parser.add_argument("--quiet", action="store_true", help="no progress")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    if name in ("run", "distill", "generate", "evaluate", "dynamics", "compare", "sweep"):
        parser.add_argument("--threads", type=int, metavar="N", help="processor threads")
    if name in ("run", "resume", "distill", "evaluate", "dynamics"):
        default, meaning = ("auto", "auto: a GPU if there is one") if name in ("evaluate", "dynamics") else (None, "a GPU if there is one")
        meaning = "where it began" if name == "resume" else meaning
        parser.add_argument("--device", default=default, metavar="NAME", help=f"cpu, cuda ... (default {meaning})")
    return parser
