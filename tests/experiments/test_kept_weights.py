"""A run that averages its weights evaluates, keeps and loads the average, says so, and is the same after a stop."""

import json
from pathlib import Path

import pytest
import torch
from example_text import SMALL

import ritornello
from ritornello import folder
from ritornello.experiments.run import request, resume
from ritornello.train.loop import Trainer

pytestmark = pytest.mark.usefixtures("own_folder")


def averaged(text: Path) -> Path:
    train = {"average": {"decay": 0.8, "start": 3}, "objective": {"masked": {"share": 0.5}}}
    return ritornello.run(text, out="out", quiet=True, checkpoint_words="360", checkpoint_every=5, train=train, **SMALL)


def embedding(file: Path) -> torch.Tensor:
    return folder.read_tensors(file)[0]["embedding.weight"]


def test_what_is_kept_is_the_average_also_after_a_stop(text, monkeypatch):
    heard: list[float] = []
    monkeypatch.setattr(Trainer, "hear", lambda _, held_out: heard.append(held_out))
    path = averaged(text)
    last, _ = folder.read_tensors(folder.checkpoints(path)[-1])
    assert torch.equal(embedding(path / "model.safetensors"), last["average.model.embedding.weight"])
    assert not torch.equal(embedding(path / "model.safetensors"), last["model.model.embedding.weight"])
    assert "mask" not in folder.read_tensors(path / "model.safetensors")[0]
    results = json.loads((path / "results.json").read_text())
    assert results["weights"] == "the exponential average, decay 0.8, since step 4"
    assert folder.read_config(path)["train"]["average"] == {"kind": "ema", "decay": 0.8, "start": 3, "patience": None}
    log = [json.loads(line) for line in (path / "log.jsonl").read_text().splitlines()]
    assert heard == [record["held_out_bits_per_byte"] for record in log if "held_out_bits_per_byte" in record]
    assert heard[-1] == pytest.approx(results["headline"]["bits_per_byte"], rel=1e-5)

    kept = {file: file.read_bytes() for file in (path / "model.safetensors", *folder.word_checkpoints(path).values())}
    reached = folder.read_tensors(folder.word_checkpoints(path)[360])[1]["step"]
    for file in (*folder.checkpoints(path)[1:], *kept, path / "results.json", path / "report.html"):
        file.unlink()
    (first,) = folder.checkpoints(path)
    tensors, meta = folder.read_tensors(first)
    assert 4 < meta["step"] < reached  # the average had begun, and the words are still to come
    assert torch.equal(ritornello.load(path).model.embedding.weight, tensors["average.model.embedding.weight"])
    resume(path)
    assert {file: file.read_bytes() for file in kept} == kept


def test_the_switches_are_read_from_a_recipe():
    asked = request(Path(__file__).parents[2] / "recipes" / "awd-lstm.toml")
    assert asked.train["average"] == {"kind": "nt-asgd", "patience": 5}
    assert asked.model["locked_dropout"] is True
