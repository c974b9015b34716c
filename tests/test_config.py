"""Configs go to plain values and back, and say what is wrong with bad ones."""

import json

import pytest

from ritornello.config import differences, dotted, from_dict, override, read_file, to_dict
from ritornello.errors import InputError, divide, expect_shape, unknown
from ritornello.mixers.hgrn2 import HGRN2
from ritornello.model import LMConfig, parameters, places, state_nbytes

CONFIG = LMConfig(vocab=10, dim=256, layers=("hgrn2", "attention", "hgrn2"), mixers={"hgrn2": HGRN2.Config(head_dim=64)})


def test_round_trip_through_json():
    assert from_dict(LMConfig, json.loads(json.dumps(to_dict(CONFIG)))) == CONFIG


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("dims=3", r"unknown field 'model.dims'. Did you mean 'model.dim'\?"),
        ("mixers.hgrn2.head_dims=3", r"unknown field 'model.mixers.hgrn2.head_dims'. Did you mean 'model.mixers.hgrn2.head_dim'\?"),
        ("mixers.hgrm={}", r"unknown mixer 'hgrm'. Did you mean 'hgrn'\?"),
        ("layers=hgrn2", r"model.layers: expected tuple, found 'hgrn2'"),
        ('layers=["swiglu"]', r"swiglu mixes channels, not time; use one of .*hgrn2, .*lstm"),
        ("dim=0", r"dim 0"),
        ("dim=true", r"model.dim: expected int, found True"),
        ("dropout=1", r"model.dropout: 1.0 is not in \[0, 1\)"),
        ("dim.x=1", r"'dim' is a value, not a table"),
        ("dim", r"expected the form a.b=c"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(change, message):
    with pytest.raises(InputError, match=message) as caught:
        from_dict(LMConfig, override(to_dict(CONFIG), [change]), "model")
    assert "\n" not in str(caught.value)


def test_tables_differ_by_dotted_names():
    one = {"a": {"b": 1, "c": [1, 2]}, "d": {}, "e": 3}
    assert dotted(one) == {"a.b": 1, "a.c": [1, 2], "d": {}, "e": 3}
    assert override({}, [f"{name}={json.dumps(value)}" for name, value in dotted(one).items()]) == one
    assert differences(one, {"a": {"b": 2, "c": [1, 2]}, "d": {"x": 0}, "e": 3}) == {"a.b": [1, 2], "d": [{}, None], "d.x": [None, 0]}
    assert differences(one, one, one) == {}


def test_an_override_changes_one_value_and_no_input():
    data = to_dict(CONFIG)
    changed = from_dict(LMConfig, override(data, ["mixers.hgrn2.head_dim=32", "channel=null"]))
    assert (changed.mixers["hgrn2"].head_dim, changed.channel) == (32, None)
    assert data == to_dict(CONFIG)


@pytest.mark.parametrize(
    ("name", "text"), [("a.json", "[1]"), ("a.json", "{"), ("a.toml", "a = "), ("a.toml", "\0"), ("a.json", "[" * 100_000)]
)
def test_an_unreadable_file_is_one_line(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError) as caught:
        read_file(tmp_path / name)
    assert "\n" not in str(caught.value)
    assert name in str(caught.value)


def test_errors_teach():
    assert str(unknown("mixer", "hgrn", ["lstm", "hgrn2"])) == "unknown mixer 'hgrn'. Did you mean 'hgrn2'? Known: hgrn2, lstm."
    assert divide(512, 128, "dim over head_dim") == 4
    with pytest.raises(InputError, match="300 does not divide into parts of 128; use 256 or 384"):
        divide(300, 128, "dim over head_dim")
    with pytest.raises(InputError, match=r"logits: expected shape \(2, any\), found \(3, 4\)"):
        expect_shape(__import__("torch").zeros(3, 4), (2, None), "logits")


def test_places_count_layers_of_a_kind():
    assert [(place.nth, place.of) for place in places(CONFIG.layers)] == [(0, 2), (0, 1), (1, 2)]


def test_parameters_and_state_bytes_by_hand():
    """HGRN2: 4 D^2 + norm + its share of the floors; SwiGLU: 3 D hidden; two norms a block; one norm at the end; a tied embedding."""
    config = LMConfig(vocab=10, dim=128, layers=("hgrn2",) * 2)
    block = 4 * 128**2 + 128 + 3 * 128 * 384 + 2 * 128
    assert parameters(config) == 2 * block + 2 * 128 + 128 + 10 * 128
    assert parameters(config, embedding=False) == 2 * block + 2 * 128 + 128
    assert state_nbytes(config, 5) == state_nbytes(config, 5_000_000) == 2 * 128 * 128 * 4
    assert state_nbytes(LMConfig(vocab=10, dim=128, layers=("attention",)), 1000) == 1000 * 2 * 128 * 4 + 8
