"""Weights kept by words seen: where, how many bytes, the same after a stop, and who loads them."""

import io
import json
from pathlib import Path

import pytest
import torch
from example_text import SMALL
from hypothesis import given
from hypothesis import strategies as st

import ritornello
from ritornello import folder
from ritornello.errors import InputError
from ritornello.evals.subject import Request
from ritornello.experiments.console import Console
from ritornello.experiments.run import request, run_request
from ritornello.experiments.settings import BABYLM
from ritornello.experiments.settings import Request as Asked
from ritornello.experiments.subjects import at_words, default_out, open_subject

pytestmark = pytest.mark.usefixtures("own_folder")


@pytest.fixture
def run(text) -> Path:
    return ritornello.run(text, out="out", quiet=True, checkpoint_words="40,100,110,200,350,9M", checkpoint_every=5, **SMALL)


def log(path: Path) -> list[dict]:
    return [json.loads(line) for line in (path / "log.jsonl").read_text().splitlines()]


def test_weights_are_kept_at_the_first_step_that_has_seen_so_many_words(run):
    kept = folder.word_checkpoints(run)
    assert list(kept) == [40, 100, 110, 200, 350]
    assert kept[40].name == "00000000040.safetensors"
    for words, file in kept.items():
        tensors, meta = folder.read_tensors(file)
        record = next(record for record in log(run) if record["words"] >= words)
        assert meta == {"words": words, "step": record["step"], "seen": record["words"]}
        assert tensors.keys() == folder.read_tensors(run / "model.safetensors")[0].keys()  # weights alone


def test_a_pass_over_the_text_is_all_its_words_each_time_anew(text):
    text.write_text("the cat sat\n" * 400, encoding="utf-8")  # short documents: their ends are positions too
    path = ritornello.run(text, out="out", documents="line", quiet=True, **SMALL | {"steps": 40})
    config, targets = folder.read_config(path), 40 * 4 * 32
    assert config["corpus"]["words"] == 1200
    assert log(path)[-1]["words"] == round(targets / (400 * 12) * 1200)  # 11 letters and an end to three words


def test_the_weights_are_those_of_that_step(text, monkeypatch):
    written, write = {}, folder.write_tensors

    def record(path, tensors, meta):
        written[path.stem] = {name: tensor.clone() for name, tensor in tensors.items()}
        write(path, tensors, meta)

    monkeypatch.setattr(folder, "write_tensors", record)
    path = ritornello.run(text, out="out", quiet=True, checkpoint_every=1, checkpoint_words="40,200", **SMALL)
    for file in folder.word_checkpoints(path).values():
        tensors, meta = folder.read_tensors(file)
        same_step = written[f"step-{meta['step']:08d}"]
        assert all(torch.equal(tensor, same_step[f"model.model.{name}"]) for name, tensor in tensors.items())
    first, second = (ritornello.load(path, words=words) for words in (40, 200))
    assert (first.words, second.words) == (40, 200)
    assert not torch.equal(first.model.embedding.weight, second.model.embedding.weight)


def test_a_resumed_run_keeps_the_same_bytes(run):
    whole = {words: file.read_bytes() for words, file in folder.word_checkpoints(run).items()}
    steps = {words: folder.read_tensors(file)[1]["step"] for words, file in folder.word_checkpoints(run).items()}
    for file in folder.checkpoints(run)[1:]:
        file.unlink()
    (first,) = folder.checkpoints(run)
    stopped = int(first.stem.removeprefix("step-"))
    lost = [words for words, step in steps.items() if step > stopped]
    assert lost
    for words in lost:
        folder.word_checkpoints(run)[words].unlink()
    for name in ("model.safetensors", "results.json", "report.html"):
        (run / name).unlink()
    ritornello.resume(run)
    assert {words: file.read_bytes() for words, file in folder.word_checkpoints(run).items()} == whole


def test_what_it_takes_is_told_before_and_what_lies_beyond(text):
    said = io.StringIO()
    path = run_request(request(corpus=str(text), out="out", checkpoint_words="40,9M,100", **SMALL), Console(stream=said))
    size = sum(file.stat().st_size for file in folder.word_checkpoints(path).values())
    told = next(line for line in said.getvalue().splitlines() if "keeps its weights at" in line)
    assert told.startswith("keeps its weights at 40, 100 words, ")
    assert told.endswith("on the disk; 1 of those asked for lie beyond its end")
    assert float(told.split(", ")[2].split()[0]) * 1000 == pytest.approx(size, rel=0.06)  # headers are not counted
    assert said.getvalue().index("keeps its weights") < said.getvalue().index("step ")


def test_a_run_that_reaches_none_of_them_is_refused_before_it_begins(text):
    with pytest.raises(InputError, match=r"the run sees [0-9]+ words, and the first checkpoint is at 1M; run longer or name fewer"):
        ritornello.run(text, out="out", quiet=True, checkpoint_words="babylm", **SMALL)
    assert not Path("out").exists()


def test_the_challenges_counts():
    assert Asked(checkpoint_words="babylm").word_counts == BABYLM
    assert [words // 10**6 for words in BABYLM] == [*range(1, 11), *range(20, 101, 10)]
    assert Asked(checkpoint_words="2M, 500k,500000,7").word_counts == (7, 500_000, 2_000_000)
    assert Asked().word_counts == ()


@pytest.mark.parametrize("spec", ["", "1M,", "0", "-1M", "1.5M", "1G", "babylm,1M", "1m"])
def test_counts_that_are_none(spec):
    with pytest.raises(InputError, match=r"is no count of words; write 1M, 500k or 1234; or babylm"):
        Asked(checkpoint_words=spec)


@given(st.integers(1, 999_999_999))
def test_a_count_is_read_as_it_is_written(words):
    assert folder.words_of(folder.words_name(words)) == words
    assert folder.words_name(words * 10**6).endswith("M")


def test_a_subject_is_named_by_its_words(run):
    asked = [Request("the cat sat on")]
    subjects = {spec: open_subject(spec) for spec in ("out", "out@40", "out@200")}
    assert [subject.name for subject in subjects.values()] == ["out", "out@40", "out@200"]
    assert len({subject.sha256 for subject in subjects.values()}) == 3
    assert len({float(subject.log_probs(asked)) for subject in subjects.values()}) == 3
    assert default_out("out@40") == Path("out/evaluation@40")
    assert default_out("out") == Path("out/evaluation")


def test_a_folder_with_an_at_in_its_name_is_itself(run):
    run.rename("out@40")
    assert at_words("out@40") == (Path("out@40"), None)
    assert open_subject("out@40").name == "out@40"


def test_a_count_that_was_not_kept_says_which_were(text, run):
    with pytest.raises(InputError, match=r"out: no weights of 50 words; it has 40, 100, 110, 200, 350"):
        open_subject("out@50")
    with pytest.raises(InputError, match=r"'soon' is no count of words"):
        open_subject("out@soon")
    other = ritornello.run(text, out="other", quiet=True, **SMALL)
    with pytest.raises(InputError, match=r"it has none; a run keeps them with --checkpoint-words"):
        ritornello.load(other, words=40)
