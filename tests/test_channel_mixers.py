"""The choice of channel mixing: what each sees, what it refuses."""

import pytest
import torch

from ritornello.errors import InputError
from ritornello.mixers import CHANNEL, mixer
from ritornello.mixers.base import Context, Place
from ritornello.state import nbytes


@pytest.mark.parametrize("name", sorted(CHANNEL))
def test_a_channel_mixer_sees_one_token_and_rwkvs_the_one_before(name):
    module = mixer(name)(16, mixer(name).Config(), Place(1, 3))
    x = torch.randn(1, 6, 16)
    other = x.clone()
    other[:, 2] += 1
    y, y_other = (module(each, module.init_state(1), Context())[0] for each in (x, other))
    changed = (y != y_other).any(-1)[0].tolist()
    assert changed == [False, False, True, name == "rwkv_channel", False, False]
    assert nbytes(module.init_state(1)) == (16 * 4 if name == "rwkv_channel" else 0)


@pytest.mark.parametrize("name", sorted(CHANNEL))
def test_a_width_that_cannot_be_is_refused(name):
    with pytest.raises(InputError, match="hidden: 0 is less than 1; use "):
        mixer(name)(16, mixer(name).Config(hidden=0), Place())


def test_an_activation_that_is_not_known_is_refused():
    with pytest.raises(InputError, match=r"unknown GELU activation 'gelu_tan'. Did you mean 'gelu_tanh'\?"):
        mixer("gelu")(16, mixer("gelu").Config(activation="gelu_tan"), Place())
