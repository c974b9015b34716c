"""Recipes: the study's shapes have the counts that follow from its figures, and every recipe is a run that can be had."""

import tomllib
from pathlib import Path
from types import SimpleNamespace

import pytest

import ritornello
from ritornello import folder
from ritornello.errors import InputError
from ritornello.experiments.console import Console
from ritornello.experiments.plan import _fixed, in_steps
from ritornello.experiments.record import read
from ritornello.experiments.run import dry_run, request
from ritornello.experiments.settings import Request
from ritornello.experiments.study import study
from ritornello.model import LMConfig, parameters
from ritornello.train.loop import TrainConfig

RECIPES = Path(__file__).resolve().parents[2] / "recipes"
FILES = sorted(path for path in RECIPES.rglob("*.toml") if path.parent.name not in ("data", "studies"))
SMALLER = ("vocab=280", "dim=16", "batch=2", "length=16", "epochs=null", "minutes=null", "steps=1", "evaluate.sample_tokens=2")
COUNTS = {  # in millions: without embedding and head, and whole; the study prints 360, "1.0B", 360, 300, 340 and 350
    "babyhgrn-10m/hgrn2": (334, 367),
    "babyhgrn-10m/hgrn2-large": (925, 991),
    "babyhgrn-100m/hgrn2": (334, 367),
    "babyhgrn-100m/hgrn2-large": (925, 991),
    "babyhgrn-10m/transformer": (369, 402),
    "babyhgrn-10m/lstm": (210, 284),
    "babyhgrn-10m/xlstm": (305, 338),
    "babyhgrn-10m/mamba": (318, 350),
}


def configs(asked: Request) -> tuple[LMConfig, TrainConfig]:
    """As they would be on a text of 13M tokens."""
    material = SimpleNamespace(unique=13_000_000, tokenizer=SimpleNamespace(size=16_000), parent=None)
    asked = in_steps(asked, material)
    return _fixed(asked, material, asked.steps)


@pytest.mark.parametrize("name", sorted(COUNTS))
def test_the_studys_shapes_have_the_sizes_that_follow_from_its_figures(name):
    model, train = configs(request(RECIPES / f"{name}.toml"))
    assert (round(parameters(model, embedding=False) / 1e6), round(parameters(model) / 1e6)) == COUNTS[name]
    assert (model.vocab, model.tied, train.batch, train.length, train.clip) == (16_000, False, 64, 512, 1.0)
    assert (train.optimizer, train.schedule, train.warmup, train.weight_decay, train.carry) == ("adam", "linear", 0, 0.0, False)
    assert train.lr == (4e-4 if "large" in name else 1e-3)
    assert train.steps == round((3 if "large" in name else 5) * 13_000_000 / (64 * 512))
    assert [at for at, kind in enumerate(model.layers) if kind == "slstm"] == ([3, 5, 7, 40, 42, 44] if "xlstm" in name else [])


def test_every_shape_of_the_study_is_held_by_a_count():
    assert {str(path.relative_to(RECIPES).with_suffix("")) for path in FILES if "babyhgrn" in str(path)} == set(COUNTS)


def test_the_tuned_study_is_the_study_with_the_rates_that_its_runs_took():
    whole, tuned = (tomllib.loads((RECIPES / "studies" / f"{name}.toml").read_text()) for name in ("equal-words", "equal-words-tuned"))
    rates = {name: tuned["system"][name].pop("lr") for name in whole["systems"]}
    assert whole.pop("rates") == "auto"
    assert {name: own for name, own in tuned.pop("system").items() if own} == whole.pop("system")
    assert tuned == whole
    taken = [line for line in read(RECIPES.parent / "docs" / "results" / "runs.jsonl") if line["study"] == "equal-words"]
    assert {(line["system"], line["config"]["train.lr"]) for line in taken} == set(rates.items())


def test_a_part_of_a_study_and_other_systems_in_its_place():
    recipe = RECIPES / "studies" / "equal-words-tuned.toml"
    some = study(recipe, systems=["transformer"], corpora=["text"])
    assert (some.only, some.systems[0], some.request("transformer").mixer) == (("transformer",), "hgrn2", "attention")
    other = study(recipe, systems=["transformer", "rwkv7"], corpora=["text"])
    assert (other.only, other.systems, set(other.system)) == ((), ("transformer", "rwkv7"), {"transformer"})
    with pytest.raises(InputError, match="rwkv8"):
        study(systems=["hgrn2"], only=["rwkv8"], corpora=["text"])


@pytest.fixture
def text(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.txt").write_text("\n\n".join("the cat sat on a mat and saw the old dog run home " * 6 for _ in range(20)))
    return "text.txt"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(RECIPES)))
def test_a_recipe_says_what_it_is_and_can_be_run(path, text):
    first, second, *_ = path.read_text().splitlines()
    assert first.startswith("# ")
    assert f"--recipe recipes/{path.relative_to(RECIPES)}" in first
    assert path.stem == "tiny" or ("# Figures: " in second and ("arXiv:" in second or "docs/results/" in second))
    table = tomllib.loads(path.read_text())
    asked = (*SMALLER, "device=cpu")  # one recipe wants a GPU
    own = {"lstm": ("model.embedding_dim=8", "model.mixers.lstm.reads=8")}.get(path.stem, ())
    shallow = ("layers=2",) if "layers" in table else ()
    found = dry_run(request(path, (*asked, *own, *shallow), corpus=text), Console(quiet=True), 0.0)
    assert (found["model"]["dim"], found["train"]["steps"]) == (16, 1)


def test_the_studys_lstm_runs_and_is_loaded_again(text):
    small = (*SMALLER, "model.embedding_dim=8", "model.mixers.lstm.reads=8")
    path = ritornello.run(text, recipe=RECIPES / "babyhgrn-10m" / "lstm.toml", overrides=small, quiet=True, out="run")
    model = folder.load(path).model
    assert (model.embedding.weight.shape[1], model.blocks[0].time.lstm.input_size, model.blocks[1].time.lstm.input_size) == (8, 8, 16)


def test_epochs_are_steps_over_the_text():
    _, train = configs(Request(epochs=2.5, batch=10, length=130))
    assert train.steps == 25_000
    _, train = configs(Request(epochs=1))
    assert train.steps == round(13_000_000 / (train.batch * train.length))
