"""The whole way on a small text: a run folder as promised, resume after kill -9, bad input in one line."""

import contextlib
import json
import math
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import tokenizers
import torch
from example_text import SMALL, WORDS, prose

import ritornello
from ritornello import cli, folder
from ritornello.config import from_dict
from ritornello.errors import InputError
from ritornello.experiments.run import request
from ritornello.experiments.settings import RunConfig
from ritornello.experiments.summary import summary

pytestmark = pytest.mark.usefixtures("own_folder")
RIT = [sys.executable, "-m", "ritornello"]
SIZES = ["--batch", "4", "--length", "32", "--dim", "32", "--layers", "2", "evaluate.validations=3", "evaluate.sample_tokens=10"]
OPTIONS = ["--steps", "12", *SIZES]


def rit(*words, **options):
    """The command in a process of its own."""
    return subprocess.run([*RIT, *map(str, words)], capture_output=True, text=True, timeout=200, **options)


def main(capsys, *words) -> tuple[int, str, str]:
    """The command in this process: exit code, standard output, standard error."""
    try:
        code = cli.main([str(word) for word in words])
    except SystemExit as stop:
        code = stop.code
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def final_weights(path: Path) -> dict:
    return folder.read_tensors(path / "model.safetensors")[0]


def test_a_run_leaves_the_folder_it_promises(text):
    path = ritornello.run(text, out="out", documents="blank", quiet=True, **SMALL)
    assert {each.name for each in path.iterdir()} - {".lock"} == {*folder.FILES, "checkpoints"}
    config, results = (json.loads((path / name).read_text()) for name in ("config.json", "results.json"))
    assert (config["format"], results["format"], results["weights"]) == (1, 1, "the last step's")
    log = [json.loads(line) for line in (path / "log.jsonl").read_text().splitlines()]
    assert [record["step"] for record in log] == list(range(1, 13))
    assert [record["step"] for record in log if "held_out_bits_per_byte" in record] == [4, 8, 12]
    assert len(folder.checkpoints(path)) <= 3
    rows = {(row["suite"], row["task"], row["metric"], row["by"][-7:]): row for row in results["rows"]}
    ours = rows["held-out", "all", "bits per byte", "model"]
    assert ours["value"] == pytest.approx(log[-1]["held_out_bits_per_byte"], rel=1e-5)  # the sample is the whole held-out text
    assert ours["stderr"] > 0
    assert results["passage"]["tokens"] > 100
    assert sum(piece[2] for piece in results["passage"]["pieces"]) == pytest.approx(
        results["passage"]["bits_per_byte"] * results["passage"]["nbytes"]
    )
    assert len(results["samples"]) == 3
    page = (path / "report.html").read_text()
    assert "default-src 'none'" in page  # the page may load nothing
    provenance = json.loads((path / "provenance.json").read_text())
    assert len(next(iter(provenance["data"].values()))) == 64


def test_the_same_inputs_and_seed_give_the_same_bits_and_another_seed_does_not(text):
    seeds = {"a": 0, "b": 0, "c": 1}
    first, second, other = (ritornello.run(text, out=name, seed=seed, quiet=True, **SMALL) for name, seed in seeds.items())
    assert (first / "model.safetensors").read_bytes() == (second / "model.safetensors").read_bytes()
    assert (first / "config.json").read_bytes() == (second / "config.json").read_bytes()
    assert (first / "model.safetensors").read_bytes() != (other / "model.safetensors").read_bytes()


@pytest.mark.parametrize("mixer", ["hgrn2", "lstm", "attention"])
def test_every_mixer_runs_and_is_loaded_as_it_was(text, mixer):
    path = ritornello.run(text, out="out", mixer=mixer, quiet=True, **SMALL)
    loaded = ritornello.load(path)
    assert loaded.config["model"]["layers"] == [mixer] * 2
    assert loaded.config["train"]["carry"] == (mixer != "attention")
    written = ritornello.generate(loaded, "the cat", max_tokens=20, seed=4)
    assert written.startswith("the cat")
    assert written == ritornello.generate(loaded, "the cat", max_tokens=20, seed=4)
    report = ritornello.evaluate(loaded, text=[text])
    assert 0 < report.rows[0].value < 8


def test_resume_after_kill_9_gives_the_unbroken_runs_weights(text):
    whole = ritornello.run(text, out="whole", quiet=True, **SMALL | {"steps": 60})
    process = subprocess.Popen(
        [*RIT, "run", str(text), "--out", "killed", "--checkpoint-every", "7", "--steps", "60", *SIZES], stderr=subprocess.DEVNULL
    )
    killed = Path("killed")
    until = time.monotonic() + 100
    while len(folder.checkpoints(killed)) < 2 and time.monotonic() < until:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert folder.checkpoints(killed)
    assert not (killed / "model.safetensors").exists()
    done = rit("resume", killed)
    assert done.returncode == 0, done.stderr
    assert "going on from step" in done.stderr
    left, right = final_weights(whole), final_weights(killed)
    assert all(torch.equal(left[name], right[name]) for name in left)
    steps = [json.loads(line)["step"] for line in (killed / "log.jsonl").read_text().splitlines()]
    assert steps == list(range(1, 61))


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_saves_and_says_how_to_go_on(text, signum):
    words = [*RIT, "run", str(text), "--out", "out", "--steps", "100000", *SIZES]
    process = subprocess.Popen(words, stderr=subprocess.PIPE, text=True)
    while not Path("out/log.jsonl").exists() or Path("out/log.jsonl").stat().st_size < 500:
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signum)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 128 + signum
    assert "stopped and saved at step" in said
    assert said.splitlines()[-1].endswith("go on with: ritornello resume out")
    assert "Traceback" not in said
    newest = folder.read_tensors(folder.checkpoints(Path("out"))[-1])[1]
    assert newest["step"] == len(Path("out/log.jsonl").read_text().splitlines())


def unfinished(text: Path) -> Path:
    """A run as it stands after a kill at its end: no weights, no page."""
    path = ritornello.run(text, out="out", quiet=True, **SMALL)
    for name in ("model.safetensors", "results.json", "report.html"):
        (path / name).unlink()
    return path


def test_two_resumes_cannot_both_write(text):
    path = unfinished(text)
    with folder.locked(path), pytest.raises(InputError, match="another process is writing to this run"):
        ritornello.resume(path)


def test_a_damaged_checkpoint_stops_resume_and_nothing_is_overwritten(text):
    path = unfinished(text)
    newest = folder.checkpoints(path)[-1]
    data = bytearray(newest.read_bytes())
    data[len(data) // 2] ^= 1
    newest.write_bytes(data)
    before = sorted((each.name, each.stat().st_mtime_ns) for each in path.iterdir())
    with pytest.raises(InputError, match=r"damaged: its checksum does not match its content; delete it to go on from step-"):
        ritornello.resume(path)
    assert sorted((each.name, each.stat().st_mtime_ns) for each in path.iterdir()) == before


def test_a_corpus_that_changed_stops_resume(text):
    path = unfinished(text)
    text.write_text(prose(25) + " more", encoding="utf-8")
    with pytest.raises(InputError, match="corpus changed since the run began"):
        ritornello.resume(path)


def test_a_finished_run_says_so(text):
    path = ritornello.run(text, out="out", quiet=True, **SMALL)
    with pytest.raises(InputError, match="this run is finished"):
        ritornello.resume(path)


def test_another_runs_weights_are_a_beginning(text):
    parent = ritornello.run(text, out="parent", quiet=True, **SMALL)
    child = ritornello.run(text, out="child", start_from=str(parent), steps=1, batch=4, length=32, quiet=True, train={"lr": 1e-9})
    left, right = final_weights(parent), final_weights(child)
    for name in left:
        torch.testing.assert_close(left[name], right[name], rtol=1e-4, atol=1e-6)
    with pytest.raises(InputError, match="--dim cannot go with --from"):
        ritornello.run(text, out="other", start_from=str(parent), steps=1, dim=64, quiet=True)
    with pytest.raises(InputError, match=r"model.norm cannot go with --from: parent brings its model; only dropout may change"):
        ritornello.run(text, out="other", start_from=str(parent), steps=1, model={"norm": "layer", "word_dropout": 0.1}, quiet=True)
    assert not Path("other").exists()


def test_nan_in_training_stops_and_names_the_step(text, capsys):
    code, _, said = main(capsys, "run", text, "--out", "out", *OPTIONS, "--lr", "1e30", "--quiet")
    assert code == 2
    assert "is not a finite number; try a smaller rate (--lr 3.3e+29); the last good checkpoint is out" in said
    assert len(said.splitlines()) == 1
    folder.read_tensors(folder.checkpoints(Path("out"))[-1])


def test_an_imported_tokenizer_is_checked_on_the_text(text, capsys):
    """One that knows lower-case words only loses this text: said, and bits per byte are counted on the text itself."""
    raw = tokenizers.Tokenizer(
        tokenizers.models.WordLevel({word: index for index, word in enumerate(["?", *sorted(set(WORDS))])}, unk_token="?")
    )
    raw.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    raw.save("words.json")
    code, _, said = main(capsys, "run", text, "--out", "out", "--tokenizer", "words.json", *OPTIONS)
    assert code == 0, said
    assert "words.json does not keep this text" in said
    loaded = ritornello.load("out")
    assert loaded.tokenizer.size == len(set(WORDS)) + 2
    whole = ritornello.evaluate(loaded, text=[text]).rows[0]
    total = whole.value * len(text.read_text().encode())  # bits of the text; each of its tokens is one of a few words
    assert 0 < total < 2 * whole.n * math.log2(loaded.tokenizer.size)


def test_minutes_write_everything_that_was_probed_before_step_1(text):
    path = ritornello.run(text, out="out", minutes=0.3, quiet=True, evaluate={"sample_tokens": 10})
    config = json.loads((path / "config.json").read_text())
    assert config["minutes"] == 0.3
    assert config["train"]["steps"] == len((path / "log.jsonl").read_text().splitlines())
    assert {"precision", "threads", "impl"} <= set(config["train"])


def test_a_recipe_and_overrides(text):
    Path("recipe.toml").write_text(f'corpus = "{text}"\nsteps = 3\nmixer = "lstm"\n[train]\nlr = 0.5\n[evaluate]\nsample_tokens = 5\n')
    asked = request(Path("recipe.toml"), ("train.clip=2.5", "steps=4"), dim=48)
    assert (asked.corpus, asked.steps, asked.mixer, asked.dim) == (str(text), 4, "lstm", 48)
    assert asked.train == {"lr": 0.5, "clip": 2.5}


BAD = {
    "no such file": (["run", "txet.txt"], "no such file"),
    "unknown mixer": (["run", "text.txt", "--mixer", "lsmt", "--steps", "1"], "unknown mixer 'lsmt'. Did you mean 'lstm'?"),
    "channel mixer": (["run", "text.txt", "--mixer", "swiglu", "--steps", "1"], "swiglu mixes channels, not time"),
    "sees ahead": (["run", "text.txt", "--mixer", "bidirectional", "--steps", "1"], "sees the tokens it is to predict; use causal mixers"),
    "unknown override": (["run", "text.txt", "trian.lr=1", "--steps", "1"], "unknown field 'trian'. Did you mean 'train'?"),
    "unknown field": (["run", "text.txt", "train.lrr=1", "--steps", "1"], "unknown field 'train.lrr'. Did you mean 'train.lr'?"),
    "unknown option": (["run", "text.txt", "--stepps", "1"], "unknown option --stepps; did you mean --steps?"),
    "no number": (["run", "text.txt", "--steps", "many"], "invalid int value: 'many'"),
    "both bounds": (["run", "text.txt", "--steps", "1", "--minutes", "1"], "bounded by one of them"),
    "empty": (["run", "empty.txt"], "empty"),
    "binary": (["run", "binary.txt"], "binary"),
    "wrong encoding": (["run", "latin.txt"], "--encoding"),
    "too short": (["run", "short.txt", "--steps", "1"], "too few"),
    "folder exists": (["run", "text.txt", "--steps", "1", "--out", "taken"], "taken exists; choose another --out"),
    "no run": (["resume", "taken"], "no run folder"),
    "no recipe": (["run", "--recipe", "nowhere.toml"], "nowhere.toml"),
    "bad heads": (["run", "text.txt", "--steps=1", "--dim=48", "model.mixers.hgrn2.head_dim=32"], "48 does not divide into parts of 32"),
    "no such implementation": (["run", "text.txt", "--steps=1", "train.impl=chunks"], "unknown implementation 'chunks'"),
    "no hidden": (["run", "text.txt", "--steps=1", "model.mixers.swiglu.hidden=-1"], "SwiGLU hidden: -1 is less than 1"),
    "no samples": (["run", "text.txt", "--steps=1", "evaluate.sample_tokens=0"], "evaluate.sample_tokens: 0 is less than 1"),
    "odd heads": (["run", "text.txt", "--steps=1", "--mixer=attention", "--dim=33"], "33 is odd"),
    "no pairs": (["run", "text.txt", "--steps", "1", "--pairs", "nowhere"], "nowhere: no such file or folder"),
    "batch too long": (["run", "text.txt", "--steps", "1", "--length", "99999"], "use a shorter --length or more text"),
    "not a tokenizer": (["run", "text.txt", "--steps", "1", "--tokenizer", "text.txt"], "text.txt"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_line_and_leaves_nothing_behind(name, text, capsys, tmp_path):
    (tmp_path / "empty.txt").write_bytes(b"")
    (tmp_path / "binary.txt").write_bytes(bytes(range(256)) * 20)
    (tmp_path / "latin.txt").write_bytes("Straße und Fuß ".encode("latin-1") * 50)
    (tmp_path / "short.txt").write_text("a few words only")
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "mine.txt").write_text("mine")
    words, message = BAD[name]
    code, out, said = main(capsys, *words, "--quiet")
    assert code == 2
    assert message in said
    assert len(said.splitlines()) == 1, said
    assert out == ""
    assert not Path("runs").exists() or not list(Path("runs").iterdir())
    assert [each.name for each in Path("taken").iterdir()] == ["mine.txt"]


def test_a_folder_that_cannot_be_written_is_one_line(text, capsys):
    Path("file").write_text("not a folder")
    code, _, said = main(capsys, "run", text, "--steps", "1", "--out", "file/run", "--quiet")
    assert code == 2
    assert len(said.splitlines()) == 1
    assert "file" in said


def test_a_full_disk_is_one_line_and_the_run_can_go_on(text, capsys, monkeypatch):
    """The disk fills up in the middle of training: the checkpoints there are whole, and with space again the run ends as it would have."""
    whole = ritornello.run(text, out="whole", quiet=True, **SMALL)
    write = folder.write_bytes

    def fill(path, data):
        if path.name == "step-00000008.safetensors":
            raise InputError(f"{path}: cannot be written: No space left on device; what was there before is untouched")
        write(path, data)

    monkeypatch.setattr(folder, "write_bytes", fill)
    code, _, said = main(capsys, "run", text, "--out", "out", *OPTIONS, "--checkpoint-every", "4", "--quiet")
    assert code == 2
    assert len(said.splitlines()) == 1
    assert "step-00000008.safetensors: cannot be written: No space left on device" in said
    monkeypatch.setattr(folder, "write_bytes", write)
    assert main(capsys, "resume", "out", "--quiet")[0] == 0
    assert (Path("out") / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()


def spoiled(value, path=()):
    """(where, the table with that one value replaced or gone), for every value in a nested table."""
    for key, inner in value.items():
        if isinstance(inner, dict):
            yield from (((key, *where), value | {key: table}) for where, table in spoiled(inner))
        for other in (None, -1, 10**18, "x", [], {}, True, 1.5):
            yield (key, repr(other)), value | {key: other}
        yield (key, "gone"), {name: each for name, each in value.items() if name != key}


def test_no_spoiled_config_gives_a_traceback(text):
    path = ritornello.run(text, out="out", quiet=True, **SMALL)
    config = json.loads((path / "config.json").read_text())
    refused = 0
    for where, table in spoiled(config):
        if where[:2] in (("model", "vocab"), ("model", "dim")) and where[-1] == repr(10**18):
            continue  # a model that no memory holds
        (path / "config.json").write_text(json.dumps(table))
        for read in (ritornello.load, lambda path: from_dict(RunConfig, folder.read_config(path)), summary):
            with contextlib.suppress(InputError):
                read(path)
                refused -= 1
            refused += 1
    assert refused > 500


def test_show_runs_and_generate_from_the_command_line(text, capsys):
    assert main(capsys, "run", text, *OPTIONS, "--quiet", "--json")[0] == 0
    path = next(Path("runs").iterdir())
    assert path.name == "text-hgrn2-1"
    code, out, _ = main(capsys, "show", path)
    assert code == 0
    assert "bits per byte" in out
    assert json.loads(main(capsys, "show", path, "--json")[1])["results"]["format"] == 1
    assert "text-hgrn2-1" in main(capsys, "runs")[1]
    code, out, _ = main(capsys, "generate", path, "--prompt", "<|endoftext|>", "--tokens", "5", "--seed", "1")
    assert code == 0
    assert out.startswith("<|endoftext|>")
    out = main(capsys, "generate", path, "--tokens", "5", "--json")[1]
    assert re.match("native$|torch: no native decoding: not built", json.loads(out)["decoder"])
    assert main(capsys, "generate", path, "--temperature", "-1")[0] == 2
    code, _, err = main(capsys, "generate", path, "--tokens", "5", "--weights", "int8")
    assert code == 0 or "no native decoding: not built" in err  # without a compiler
    Path("pairs.jsonl").write_text('{"good": "the cat sat.", "bad": "cat the sat."}\n')
    code, out, _ = main(capsys, "evaluate", path, "--pairs", "pairs.jsonl", "--text", text, "--json")
    assert code == 0
    rows = json.loads(out)["rows"]
    assert {row["suite"] for row in rows} == {"pairs", "text.txt"}
    assert {name: len(digest) for name, digest in json.loads(out)["made_by"]["data"].items()} == {"pairs": 64, "text.txt": 64}


def test_dry_run_prints_a_plan_and_makes_nothing(text, capsys):
    code, out, _ = main(capsys, "run", text, *OPTIONS, "--dry-run", "--quiet")
    assert code == 0
    assert out.startswith("A model of")
    assert not Path("runs").exists()


def test_help_and_import_need_no_torch():
    for words in (["--help"], ["run", "--help"], ["--version"]):
        code = (
            f"import sys, ritornello.cli\ntry: ritornello.cli.main({words!r})\nexcept SystemExit: pass\nassert 'torch' not in sys.modules"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, env=os.environ)
        assert done.returncode == 0, done.stderr
    code = "import sys, ritornello; assert 'torch' not in sys.modules; assert 'numpy' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code], timeout=60, check=False).returncode == 0


def test_standard_input_is_a_corpus():
    done = rit("run", "-", "--out", "out", *OPTIONS, input=prose(25))
    assert done.returncode == 0, done.stderr
    assert (Path("out") / "report.html").exists()
