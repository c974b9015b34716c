"""Files of a run folder are whole or not there, and any damage is noticed."""

import os

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ritornello import folder
from ritornello.errors import InputError
from ritornello.model import LM, LMConfig

TENSORS = {"a": torch.arange(6.0).view(2, 3), "b.c": torch.tensor(7), "d": torch.zeros(2, 0), "e": torch.ones(3, dtype=torch.bfloat16)}


@pytest.fixture
def file(tmp_path):
    folder.write_tensors(tmp_path / "x.safetensors", TENSORS, {"step": 3, "best": None})
    return tmp_path / "x.safetensors"


def test_tensors_and_their_table_come_back(file):
    tensors, meta = folder.read_tensors(file)
    assert meta == {"step": 3, "best": None}
    assert set(tensors) == set(TENSORS)
    assert all(torch.equal(tensors[name], TENSORS[name]) and tensors[name].dtype == TENSORS[name].dtype for name in TENSORS)


def test_every_flipped_bit_and_every_missing_end_is_noticed(file):
    whole = file.read_bytes()
    for at in range(len(whole)):
        for damaged in (whole[:at] + bytes([whole[at] ^ (1 << at % 8)]) + whole[at + 1 :], whole[:at]):
            file.write_bytes(damaged)
            with pytest.raises(InputError) as caught:
                folder.read_tensors(file)
            assert "x.safetensors" in str(caught.value)
            assert "\n" not in str(caught.value)


@given(data=st.binary(max_size=200))
def test_no_bytes_break_the_reader(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("any") / "x.safetensors"
    path.write_bytes(data)
    with pytest.raises(InputError):
        folder.read_tensors(path)


def test_a_write_that_fails_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "a.json"
    folder.write_json(path, {"x": 1})
    old = path.read_bytes()

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(InputError, match=r"a\.json: cannot be written: No space left on device; what was there before is untouched"):
        folder.write_json(path, {"x": 2})
    assert path.read_bytes() == old
    assert [each.name for each in tmp_path.iterdir()] == ["a.json"]


def test_one_process_at_a_time(tmp_path):
    with folder.locked(tmp_path), pytest.raises(InputError, match="another process is writing to this run"), folder.locked(tmp_path):
        pass
    with folder.locked(tmp_path):
        pass


def test_weights_that_do_not_fit_are_named():
    config = LMConfig(vocab=5, dim=16, layers=("lstm",))
    model, weights = LM(config), folder.weights(LM(config))
    assert "head.weight" not in weights  # tied: stored once
    folder.put_weights(model, weights, "RUN")
    assert torch.equal(model.head.weight, weights["embedding.weight"])
    for change, message in (
        ({"x.weight": torch.zeros(1)}, "RUN: weight x.weight is not part of this model"),
        ({"norm.weight": torch.zeros(3)}, r"RUN: weight norm.weight has shape \(3,\), the model wants \(16,\)"),
    ):
        with pytest.raises(InputError, match=message):
            folder.put_weights(model, weights | change, "RUN")
    with pytest.raises(InputError, match=r"RUN: weight norm\.weight is missing"):
        folder.put_weights(model, {name: value for name, value in weights.items() if name != "norm.weight"}, "RUN")


def test_what_is_no_run_folder_says_so(tmp_path):
    with pytest.raises(InputError, match="no such run folder"):
        folder.load(tmp_path / "nowhere")
    with pytest.raises(InputError, match="no run folder"):
        folder.load(tmp_path)
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "config.json").write_text('{"format": 99}')
    with pytest.raises(InputError, match=r"did you mean .*inner\?"):
        folder.load(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "config.json").write_text('{"format": 1, "corpus": 3}')
    with pytest.raises(InputError, match="the table corpus is missing"):
        folder.load(tmp_path / "empty")
    with pytest.raises(InputError, match="run folder format 99; this version reads format 1"):
        folder.load(tmp_path / "inner")
