"""Which documents come first: by length, by the trigrams of the other half, by another run; and a run stopped in its first pass goes on."""

import json
import shutil

import numpy as np
import pytest
import torch

import ritornello
from ritornello import folder
from ritornello._native.library import library
from ritornello.data.corpus import read_corpus
from ritornello.data.documents import mix
from ritornello.data.order import easy_first
from ritornello.data.tokenizers import ByteTokenizer
from ritornello.data.tokens import encode_corpus
from ritornello.errors import InputError
from ritornello.evals.ngram import fit
from ritornello.experiments.curriculum import first_pass, settled
from ritornello.experiments.subjects import of_run

SMALL = {"batch": 4, "length": 16, "dim": 32, "layers": 2, "quiet": True, "evaluate": {"validations": 1, "sample_tokens": 10}}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """40 documents: the later, the longer, and every second one of letters that follow no rule."""
    path = tmp_path_factory.mktemp("curriculum")
    rng = np.random.default_rng(0)
    noise = ["".join(rng.choice(list("abcdefghijkl "), 20 + 10 * number)) for number in range(40)]
    plain = [("la di da " * 60)[: 20 + 10 * number] for number in range(40)]
    texts = [noise[number] if number % 2 else plain[number] for number in range(40)]
    (path / "text.jsonl").write_text("\n".join(json.dumps({"text": text.strip()}) for text in texts), encoding="utf-8")
    library()  # kernels come from the usual cache
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(path / "cache"))
        ritornello.run(path / "text.jsonl", out=str(path / "teacher"), steps=8, seed=1, **SMALL)
    return path


@pytest.fixture(autouse=True)
def own_cache(place, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(place / "cache"))


@pytest.fixture
def material(place):
    corpus = read_corpus(str(place / "text.jsonl"))
    return corpus, encode_corpus(corpus, "train", ByteTokenizer()), ByteTokenizer()


def test_kinds_that_need_no_model(material):
    corpus, tokens, tokenizer = material
    assert first_pass("random", corpus, tokens, tokenizer) is None
    assert first_pass("corpus", corpus, tokens, tokenizer).tolist() == list(range(38))
    sizes = [len(corpus.text(span)) for span in corpus.train]
    assert [sizes[place] for place in first_pass("length", corpus, tokens, tokenizer)] == sorted(sizes)


def test_trigrams_of_the_other_half(material):
    corpus, tokens, tokenizer = material
    order = first_pass("surprisal", corpus, tokens, tokenizer)
    texts = [corpus.text(span) for span in corpus.train]
    assert all(texts[place].startswith("la di") for place in order[:15])
    second = mix(np.arange(38, dtype=np.uint64)) % np.uint64(2) == 1
    nats = np.empty(38)
    for scored in (second, ~second):
        others = [np.array(tokenizer.encode(texts[place])) for place in np.flatnonzero(~scored)]
        model = fit(np.concatenate(others), np.cumsum(list(map(len, others))), tokenizer.size, 3, bos=tokenizer.bos, eos=tokenizer.eos)
        for place in np.flatnonzero(scored):
            ids = np.array(tokenizer.encode(texts[place]))
            nats[place] = model.nats(ids, np.array([len(ids)])).mean()
    assert (order == easy_first(nats.round(12))).all()


def test_another_runs_model_per_byte(place, material):
    corpus, tokens, tokenizer = material
    order = first_pass(f"surprisal:{place}/teacher", corpus, tokens, tokenizer)
    subject = of_run(folder.load(place / "teacher"))
    texts = [corpus.text(span) for span in corpus.train]
    nats = [float(subject.stream([np.array(tokenizer.encode(text))]).nats.sum()) / len(text) for text in texts]
    assert np.abs(np.array(nats)[order] - np.sort(nats)).max() < 1e-5


def test_the_run_that_gave_the_order_must_be_the_same_unless_the_cache_has_it(place, material, monkeypatch, tmp_path):
    kind = settled(f"surprisal:{place}/teacher")
    assert settled(kind) == kind
    order = first_pass(kind, *material)
    shutil.copytree(place / "teacher", tmp_path / "other")
    weights = folder.weights(folder.load(place / "teacher").model)
    folder.write_tensors(tmp_path / "other" / "model.safetensors", {name: weight + 1 for name, weight in weights.items()}, {})
    moved = kind.replace(f"{place}/teacher", f"{tmp_path}/other")
    assert (first_pass(moved, *material) == order).all()
    shutil.rmtree(material[0].folder / f"order1-{kind.rpartition('#')[2]}")
    with pytest.raises(InputError, match="other is no longer the run that the order of documents was to come from"):
        first_pass(moved, *material)


def test_a_damaged_order_is_refused(material):
    first_pass("surprisal", *material)
    (file,) = material[0].folder.glob("order1-trigrams-*/order")
    whole = file.read_bytes()
    for damaged in (whole[:50], whole[:-8] + bytes(8)):
        file.write_bytes(damaged)
        with pytest.raises(InputError, match="damaged; remove that folder of the cache"):
            first_pass("surprisal", *material)
    file.write_bytes(whole)


def test_a_run_in_order_goes_on_bit_for_bit_and_says_so(place):
    whole = ritornello.run(
        place / "text.jsonl", out=str(place / "whole"), steps=8, checkpoint_every=4, train={"order": f"surprisal:{place}/teacher"}, **SMALL
    )
    config = folder.read_config(whole)
    assert config["train"]["order"] == settled(f"surprisal:{place}/teacher")
    stopped = place / "stopped"
    shutil.copytree(whole, stopped)
    for name in ("model.safetensors", "results.json", "report.html", "checkpoints/step-00000008.safetensors"):
        (stopped / name).unlink()
    ritornello.resume(stopped)
    mixed = ritornello.run(place / "text.jsonl", out=str(place / "mixed"), steps=8, **SMALL)
    one, again, other = (folder.load(path).model.state_dict() for path in (whole, stopped, mixed))
    assert all(torch.equal(one[name], again[name]) for name in one)
    assert not all(torch.equal(one[name], other[name]) for name in one)


def test_an_unknown_order_is_refused_before_anything_is_read():
    with pytest.raises(InputError, match=r"train\.order: unknown order 'lengthy'"):
        ritornello.run("nowhere.txt", steps=2, train={"order": "lengthy"}, quiet=True)
