"""Patterns of layers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ritornello.errors import InputError
from ritornello.mixers.layers import MOST, describe, expand


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("hgrn2", ["hgrn2"]),
        ("hgrn2*3 attention", ["hgrn2"] * 3 + ["attention"]),
        (" lstm  hgrn2 * 2 ", ["lstm", "hgrn2", "hgrn2"]),
        ("(hgrn2*2 attention)*2 lstm", ["hgrn2", "hgrn2", "attention"] * 2 + ["lstm"]),
        ("((lstm)*2 hgrn2)*2", ["lstm", "lstm", "hgrn2"] * 2),
    ],
)
def test_a_pattern_is_its_layers_from_the_bottom(pattern, names):
    assert list(expand(pattern)) == names


def test_with_a_count_it_goes_round():
    assert expand("hgrn2 hgrn2 attention", 5) == ("hgrn2", "hgrn2", "attention", "hgrn2", "hgrn2")
    with pytest.raises(InputError, match="'hgrn2\\*3' has 3 of them, more than the 2 asked for"):
        expand("hgrn2*3", 2)


@given(st.lists(st.sampled_from(["hgrn2", "lstm", "attention"]), min_size=1, max_size=9))
def test_describe_is_the_inverse(names):
    assert list(expand(describe(names))) == names


@pytest.mark.parametrize(
    "pattern", ["", " ", "*", "*2", "hgrn2*", "hgrn2*0", "hgrn2*x", "(hgrn2", "hgrn2)", "()", "hgrn2,lstm", "(" * 500, "lstm*²"]
)
def test_what_cannot_be_read_is_said_in_one_line(pattern):
    with pytest.raises(InputError, match="layers: cannot read") as error:
        expand(pattern)
    assert "\n" not in str(error.value)


def test_an_unknown_name_is_answered_with_the_nearest():
    with pytest.raises(InputError, match=r"unknown mixer 'hgrn_2'\. Did you mean 'hgrn2'"):
        expand("hgrn_2*2")


def test_a_stack_without_end_is_refused():
    with pytest.raises(InputError, match=f"has more than {MOST}"):
        expand("((lstm*100)*100)*100")
