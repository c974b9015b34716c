"""`ritornello distill`: ordinary runs, a control that differs in nothing else, and lessons that are kept on disk."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from schooling import LESS, QUIET, SMALL, config, main, material, same, weights

import ritornello
from ritornello.data.tokenizers import ByteTokenizer, load_tokenizer
from ritornello.errors import InputError
from ritornello.evals.subject import CausalSubject
from ritornello.experiments import writing
from ritornello.experiments.distill import Distillation, _path, unlike
from ritornello.experiments.flops import forward_flop, training_flop
from ritornello.experiments.lessons import enrol, open_teacher
from ritornello.experiments.record import read
from ritornello.jobs import spread
from ritornello.train.distill import TeachConfig
from ritornello.train.hints import HintConfig

pytestmark = pytest.mark.usefixtures("there")


def test_a_student_and_its_control_differ_in_the_share_and_the_steps_alone(capsys):
    words = ("distill", "--teacher", "teacher", "--steps", 12, "--out", "plain", "checkpoint_every=5", *LESS)
    code, out, said = main(capsys, *words)
    assert code == 0, said
    assert "teach.alpha: 0.5 in the student, 0.0 in the control" in out
    student, control = config("plain/student"), config("plain/control")
    assert set(unlike(student, control)) == {"teach.alpha", "train.steps"}
    per_token = training_flop(student.model, 32) + forward_flop(config("teacher").model, 32)
    assert control.train.steps == round(12 * per_token / training_flop(student.model, 32)) == 16
    assert student.teach.sha256 == (open_teacher("teacher").sha256,)
    assert (student.model, student.train.seed, student.train.lr) == (config("teacher").model, 1, config("teacher").train.lr)
    log = [json.loads(line) for line in Path("plain/student/log.jsonl").read_text().splitlines()]
    assert all(one["loss"] == pytest.approx(0.5 * one["cross_entropy"] + 0.5 * one["taught"], rel=1e-5) for one in log)
    assert "taught" not in Path("plain/control/log.jsonl").read_text()  # nobody is asked for a share of nothing
    ratio = log[0]["bits_per_byte"] / log[0]["cross_entropy"]
    assert all(one["bits_per_byte"] == pytest.approx(ratio * one["cross_entropy"]) for one in log)
    before = {file: file.stat().st_mtime_ns for file in Path("plain").rglob("*.safetensors")}
    found = json.loads(main(capsys, *words, "--json")[1])
    assert before == {file: file.stat().st_mtime_ns for file in Path("plain").rglob("*.safetensors")}
    rows = {row["name"]: row for row in found["rows"]}
    assert list(rows) == ["teacher teacher", "student", "control"]
    assert [(each["system"], each["seeds"], each["steps"]) for each in found["systems"]] == [("student", 1, 12), ("control", 1, 16)]
    assert rows["student"]["curve"][-1] == [rows["student"]["flop"], log[-1]["held_out_bits_per_byte"]]
    assert "one run each says nothing of other seeds" in Path("plain/report.html").read_text()
    lines = read("plain/results.jsonl")
    assert [(line["system"], line["steps"], line["config"]) for line in lines] == [
        ("student", 12, {}),
        ("control", 16, {"teach.alpha": 0.0}),
    ]
    assert lines[0]["flop"] == rows["student"]["flop"] == 12 * 4 * 32 * per_token
    assert rows["control"]["flop"] == pytest.approx(rows["student"]["flop"], rel=0.5 / 16)
    bits = {
        name: json.loads(Path(f"plain/{name}/results.json").read_text())["headline"]["bits_per_byte"] for name in ("student", "control")
    }
    for name, value in bits.items():
        assert rows[name]["bits_per_byte"] == pytest.approx(value, rel=1e-5)
    assert rows["student"]["minus_control"]["value"] == pytest.approx(bits["student"] - bits["control"], abs=1e-6)
    code, _, said = main(capsys, *words[:4], 13, *words[5:])
    assert code == 2
    assert "plain/student: made with train.steps 12, now it is 13; choose another --out" in said


def test_a_taught_run_goes_on_to_the_same_bits_and_knows_its_teacher(capsys, monkeypatch):
    words = ("distill", "--teacher", "teacher", "--steps", 9, "--no-control", "checkpoint_every=4", *LESS, "--out")
    assert main(capsys, *words, "whole")[0] == 0
    shutil.copytree("whole", "stopped")
    path = Path("stopped/student")
    for name in ("model.safetensors", "results.json", "report.html", "checkpoints/step-00000009.safetensors"):
        (path / name).unlink()
    assert ritornello.load(path).model.config == config(path).model  # its newest checkpoint's weights
    aside = Path("teacher").rename("aside")
    shutil.copytree("words", "teacher")
    code, _, said = main(capsys, "resume", path, "--quiet")
    assert code == 2
    assert "teacher: not the teacher this run began with; restore it" in said
    shutil.rmtree("teacher")
    aside.rename("teacher")
    assert main(capsys, *words, "stopped")[0] == 0
    assert same("whole/student", "stopped/student")
    plain = ritornello.run(
        "text.txt", out="untaught", documents="blank", quiet=True, seed=1, tokenizer="bytes", **SMALL, train={"steps": 9, "lr": 8e-3}
    )
    other = main(capsys, *words, "unheard", "--alpha", 0)
    assert other[0] == 0
    assert same(plain, "unheard/student")
    assert not same(plain, "whole/student")


def test_a_grid_and_generations(capsys):
    code, out, said = main(capsys, "distill", "--teacher", "teacher", "--alpha", "0.25,0.75", "--steps", 3, "--out", "grid", *LESS)
    assert code == 0, said
    runs = [f"grid/student-alpha-{alpha}" for alpha in ("0.25", "0.75")]
    assert [config(run).teach.alpha for run in runs] == [0.25, 0.75]
    assert config("grid/control").train.steps == 4  # for one of them
    assert all(Path(run).name in out for run in runs)
    words = ("distill", "--teacher", "teacher", "--preset", "babyllama", "--generations", 2, "train.steps=3", "--out", "born", *LESS)
    code, out, said = main(capsys, *words)
    assert code == 0, said
    first, second = config("born/generation-1"), config("born/generation-2")
    assert (first.teach.teachers, second.teach.teachers) == (("teacher",), ("born/generation-1",))
    assert (first.teach.temperature, first.teach.average, first.teach.alpha) == (2.0, "logits", 0.5)
    assert (first.train.seed, second.train.seed) == (1, 2)
    assert config("born/control").train.steps == 8
    assert Distillation(teachers=("teacher",), preset="babyhgrn").alphas == (0.25, 0.5, 0.75)


def test_seeds_say_what_one_run_cannot(capsys, real_data):
    """Two students and two controls, at work side by side, each pair of one seed; means over seeds, scored on a benchmark too."""
    words = ("distill", "--teacher", "teacher", "--steps", 3, "--seeds", 2, "--suite", "supplement", "--limit", 4, "--data", real_data)
    code, out, said = main(capsys, *words, "--jobs", 2, "--out", "seeds", *LESS)
    assert code == 0, said
    runs = [f"{name}-seed-{nth}" for nth in (1, 2) for name in ("student", "control")]
    assert [(config(f"seeds/{run}").train.seed, config(f"seeds/{run}").train.threads) for run in runs] == [(1, 1), (1, 1), (2, 1), (2, 1)]
    for nth in (1, 2):
        assert set(unlike(*(config(f"seeds/{name}-seed-{nth}") for name in ("student", "control")))) == {"teach.alpha", "train.steps"}
    lines = read("seeds/results.jsonl")
    assert [(line["system"], line["seed"], line["name"]) for line in lines] == [
        (run[:7], nth, run) for run, nth in zip(runs, (1, 1, 2, 2), strict=True)
    ]
    found = json.loads(Path("seeds/distill.json").read_text())
    assert "What else can be said" in Path("seeds/report.html").read_text()
    rows = {row["name"]: row for row in found["rows"]}
    gains = {gain["score"]: gain for gain in found["gains"]}
    (suite,) = (name for name in gains if name.startswith("supplement"))  # of which four items of each task
    gain, of_pairs = gains["bits_per_byte"], gains[suite]
    apart = [rows[f"student-seed-{nth}"]["bits_per_byte"] - rows[f"control-seed-{nth}"]["bits_per_byte"] for nth in (1, 2)]
    assert gain["value"] == pytest.approx(sum(apart) / 2)
    assert gain["low"] < gain["value"] < gain["high"]
    assert [rows[f"student-seed-{nth}"]["minus_control"]["value"] for nth in (1, 2)] == pytest.approx(apart, abs=1e-6)
    right = {run: rows[run]["scores"][suite] for run in runs}
    assert of_pairs["value"] == pytest.approx(sum(right[run] * (1 if run.startswith("student") else -1) for run in runs) / 2)
    assert gain["sentence"] in out
    fifth = config("seeds/control-seed-2")
    fifth = replace(fifth, train=replace(fifth.train, seed=5))  # as of another machine's --seed 5
    assert _path(Distillation(teachers=("teacher",), seeds=2, out="more"), "control", fifth) == Path("more/control-seed-5")
    one = main(capsys, *words[:5], "--seed", 2, "--out", "alone", *LESS)
    assert one[0] == 0
    assert same("alone/student", "seeds/student-seed-2")
    assert "one run each says nothing of other seeds" in one[1]


def test_a_study_that_is_stopped_for_good_leaves_the_lines_it_has(capsys, monkeypatch):
    def stopped(*words):
        yield next(spread(*words))
        raise KeyboardInterrupt

    monkeypatch.setattr("ritornello.experiments.distill.spread", stopped)
    code, _, said = main(capsys, "distill", "--teacher", "teacher", "--steps", 2, "--seeds", 2, "--out", "cut", *LESS)
    assert code == 130
    assert "what is finished is kept in cut" in said
    assert [line["name"] for line in read("cut/results.jsonl")] == ["student-seed-1"]
    assert not Path("cut/distill.json").exists()


def test_a_run_whose_numbers_run_out_leaves_no_mean(capsys):
    words = ("distill", "--teacher", "teacher", "--steps", 6, "--seeds", 2, "--lr", "1e30", "--out", "lost", *LESS)
    code, out, said = main(capsys, *words)
    assert code == 0, said
    assert "failed: student-seed-1: step " in out
    assert json.loads(Path("lost/distill.json").read_text())["gains"] == []
    assert "A run failed, so it cannot be told." in Path("lost/report.html").read_text()
    assert [line["failed"] is None for line in read("lost/results.jsonl")] == [False] * 4
    code, _, said = main(capsys, *words[:5], "--generations", 2, *words[7:9], "--out", "heirless", *LESS)
    assert code == 2
    assert "it cannot teach the next generation" in said


def test_students_learn_from_what_is_kept(capsys):
    code, _, said = main(
        capsys, "distill", "--teacher", "teacher", "--cache", 8, "--steps", 6, "--mixer", "attention", "--dim", 16, "--out", "kept", *LESS
    )
    assert code == 0, said
    student = config("kept/student")
    assert (student.teach.top, student.model.layers, student.model.dim) == (8, ("attention",) * 2, 16)
    assert not student.train.carry  # as its shape allows, not as the teacher's
    own, theirs = training_flop(student.model, 32), forward_flop(config("teacher").model, 32)
    assert config("kept/control").train.steps == round(6 + theirs * material().unique / (4 * 32 * own))  # read once, not at each step


def test_another_vocabulary_is_refused_with_the_way_out(capsys):
    code, _, said = main(capsys, "distill", "--teacher", "words", "--tokenizer", "bytes", "--steps", 3, "--out", "none", *LESS)
    assert code == 2
    assert "words: its tokenizer is another one (300 ids, the student's 257); train the student with the teacher's" in said
    assert "teach.match=bytes" in said
    assert not Path("none/student").exists()


def test_a_teacher_of_other_tokens_teaches_by_bytes(capsys):
    words = ("distill", "--teacher", "words", "--tokenizer", "bytes", "--bytes", "--steps", 4, "--mixer", "mingru", "--dim", 16)
    code, out, said = main(capsys, *words, "--out", "bytes", *LESS)
    assert code == 0, said
    assert config("bytes/student").teach.match == "bytes"
    assert set(unlike(config("bytes/student"), config("bytes/control"))) == {"teach.alpha", "train.steps"}
    assert "teacher words" not in out  # its bits are of other tokens


def test_a_teacher_writes_the_text(capsys, monkeypatch):
    monkeypatch.setattr(writing, "ROWS", 8)
    monkeypatch.setattr(writing, "TOKENS", 64)
    words = ("distill", "--teacher", "teacher", "--written", "60", "--steps", 4, "--out", "sequences", *LESS)
    code, _, said = main(capsys, *words)
    assert code == 0, said
    files = sorted(Path("sequences/written").glob("*.jsonl"))
    before = [file.read_bytes() for file in files]
    assert len(files) > 1
    texts = [json.loads(line)["text"] for data in before for line in data.splitlines()]
    assert sum(len(text.split()) for text in texts) >= 60
    student, control = config("sequences/student"), config("sequences/control")
    assert (student.corpus.spec, control.corpus.spec) == ("sequences/written", "text.txt")
    spent = len(files) * 8 * 64 * forward_flop(config("teacher").model, 32)
    assert control.train.steps == round(4 + spent / (4 * 32 * training_flop(student.model, 32)))
    files[-1].unlink()
    writing.write_corpus(open_teacher("teacher"), Path("sequences/written"), 60, seed=1, console=QUIET)
    assert [file.read_bytes() for file in files] == before
    monkeypatch.delattr(writing, "write_texts")  # what is there is not written again
    writing.write_corpus(open_teacher("teacher"), Path("sequences/written"), 20, seed=1, console=QUIET)
    assert [file.read_bytes() for file in sorted(Path("sequences/written").glob("*.jsonl"))] == before[:1]
    with pytest.raises(InputError, match="written by another teacher or from another seed; choose another --out"):
        writing.write_corpus(open_teacher("teacher"), Path("sequences/written"), 60, seed=2, console=QUIET)


class EveryThird:
    """A model that writes "aa" and the end, by how much it has read since the last reset."""

    def init_state(self, batch: int) -> torch.Tensor:
        return torch.zeros(batch, dtype=torch.int64)

    def __call__(self, tokens, state, reset=None):
        seen = (state if reset is None else state.where(~reset[:, 0], 0)) + 1
        token = torch.where(seen < 3, ord("a"), 256)
        return 100.0 * torch.nn.functional.one_hot(token, 257)[:, None], seen


def test_a_writer_begins_every_text_anew():
    subject = CausalSubject(EveryThird(), ByteTokenizer(), "third", "")
    texts = writing.write_texts(subject, 2, 7, torch.Generator().manual_seed(0))
    assert texts == ["aa", "aa", "aa", "aa", "a", "a"]


def test_the_first_teacher_gives_the_hints():
    one = material()
    teach = TeachConfig(teachers=("teacher", "teacher"), hints=HintConfig())
    school = enrol(teach, one.corpus, one.tokenizer, one.train, QUIET)
    loss = school.loss(ritornello.load("teacher").model, config("teacher").train)
    assert loss.hints.teacher[0] is school.subjects[0].model


def test_hints_across_architectures(capsys):
    words = (
        "distill",
        "--teacher",
        "words",
        "--hints",
        0.5,
        "--mixer",
        "hgrn2",
        "--dim",
        32,
        "--steps",
        3,
        "--no-control",
        "--out",
        "hints",
    )
    code, out, said = main(capsys, *words, *LESS)
    assert code == 0, said
    assert "No control was run (--no-control)." in out
    assert config("hints/student").teach.hints.weight == 0.5
    assert "hints" in json.loads(Path("hints/student/log.jsonl").read_text().splitlines()[0])
    assert not any("maps" in name for name in weights("hints/student"))


BAD = {
    "preset": (["--preset", "babylama"], "unknown preset 'babylama'. Did you mean 'babyllama'?"),
    "share": (["--alpha", "half"], "--alpha: 'half' is no list of shares"),
    "range": (["--alpha", "2"], "teach.alpha: 2.0 is not in [0, 1]"),
    "generations": (["--generations", "0"], "--generations: 0 is less than 1"),
    "generations of a grid": (["--generations", "2", "--alpha", "0.1,0.2"], "--generations goes with one --alpha"),
    "chunks": (["train.loss_chunk=8"], "train.loss_chunk does not go with teach"),
    "masked": (["train.objective.ar=1"], "train.objective: ar, tar and masked do not go with teach"),
    "ids": (["model.vocab=300"], "model.vocab: 300 ids, and teacher knows 257; leave it out"),
    "field": (["teach.alpa=1"], "unknown field 'teach.alpa'. Did you mean 'teach.alpha'?"),
    "no teacher there": (["--teacher", "nobody"], "nobody"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_line(name, capsys):
    words, message = BAD[name]
    code, out, said = main(capsys, "distill", "--teacher", "teacher", "--steps", 2, "--out", "bad", "--quiet", *words)
    assert code == 2
    assert message in said
    assert len(said.splitlines()) == 1
    assert out == ""


def test_a_model_of_transformers_teaches_with_its_tokenizer(capsys):
    transformers = pytest.importorskip("transformers")
    raw = load_tokenizer(Path("words/tokenizer.json")).raw
    net = transformers.GPT2LMHeadModel(transformers.GPT2Config(vocab_size=300, n_embd=16, n_layer=1, n_head=2, n_positions=40))
    net.save_pretrained("gpt2")
    ends = {"bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>"}
    transformers.PreTrainedTokenizerFast(tokenizer_object=raw, **ends).save_pretrained("gpt2")
    words = ("distill", "--teacher", "gpt2", "--dim", 16, "--layers", 1, "--batch", 2, "--length", 24, "--out", "theirs")
    code, _, said = main(capsys, *words, *LESS)
    assert code == 2
    assert "gpt2: it was not trained here, so it says no corpus and no steps; give CORPUS and --steps" in said
    code, _, said = main(capsys, *words, "text.txt", "--steps", 3, "--length", 64, *LESS)
    assert code == 2
    assert "gpt2: it reads 40 tokens, a row has 64; use a shorter --length" in said
    code, out, said = main(capsys, *words, "text.txt", "--steps", 3, "documents=blank", *LESS)
    assert code == 0, said
    assert "teacher gpt2" in out
    student, control = config("theirs/student"), config("theirs/control")
    assert student.tokenizer.size == 300
    matrices = 4 * 16 * 16 + 2 * 4 * 16 * 16 + 300 * 16  # attention, channel mixer, head
    assert control.train.steps == round(3 * (1 + 2 * matrices / training_flop(student.model, 24)))
