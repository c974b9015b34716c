"""Equal size: every architecture comes within 2 % of the number asked for, and what cannot is said with the nearest that can."""

import time

import pytest
import torch

from ritornello.errors import InputError
from ritornello.experiments.match import NEAR, _count, match
from ritornello.experiments.scaling import model_config
from ritornello.mixers import CHANNEL, MIXERS, mixer
from ritornello.mixers.layers import expand
from ritornello.model import LM, LMConfig, parameters

TIME = sorted(set(MIXERS) - CHANNEL)
PATTERNS = ("hgrn2*5 attention", "mlstm*3 slstm", "(rglru*2 window)*2", "mamba*3 attention")


def start(pattern: str, dim: int = 128) -> LMConfig:
    """A model as the plan makes it, with its paper's channel mixer."""
    layers = expand(pattern, 4 if " " not in pattern else None)
    partners = {mixer(kind).partner for kind in layers}
    return model_config(1000, dim, layers, channel=partners.pop() if len(partners) == 1 else "swiglu")


@pytest.mark.parametrize("pattern", ["gla", "lstm", "mamba2", "unitary", *PATTERNS[:3]])
def test_architectures_come_within_two_per_cent(pattern):
    found = match(start(pattern), 700_000, embedding=len(pattern) % 2 == 0)
    assert abs(parameters(found, embedding=len(pattern) % 2 == 0) - 700_000) <= NEAR * 700_000
    assert found.layers == start(pattern).layers


@pytest.mark.parametrize("pattern", [*TIME, *PATTERNS, "hgrn2 lstm hgrn2"])
def test_a_stack_is_counted_from_its_kinds(pattern):
    config = start(pattern)
    assert _count(config, True) == parameters(config)
    assert parameters(config) - _count(config, False) == 1000 * config.dim


def test_dense_wiring_is_counted_whole():
    config = LMConfig(vocab=300, dim=64, layers=("gru",) * 5, wiring="dense")
    found = match(config, 400_000)
    assert abs(parameters(found) - 400_000) <= NEAR * 400_000


def test_heads_and_proportions_are_kept():
    config = start("hgrn2")
    assert match(config, parameters(config)).dim == config.dim
    wide = match(config, 8_000_000)
    assert wide.mixers["hgrn2"] == config.mixers["hgrn2"]
    assert wide.dim % 64 == 0
    assert 0.6 < wide.mixers["swiglu"].hidden / (8 / 3 * wide.dim) < 1.6
    twice = LMConfig(vocab=1000, dim=128, layers=("gru",) * 4, mixers={"swiglu": mixer("swiglu").Config(hidden=256)})
    wide = match(twice, 5_000_000)
    assert wide.mixers["swiglu"].hidden == pytest.approx(2 * wide.dim, rel=0.1)


def test_partners_are_matched_too():
    config = LMConfig(vocab=1000, dim=64, layers=expand("mlstm*3 slstm"), channel="partner")
    found = match(config, 2_000_000)
    assert abs(parameters(found) - 2_000_000) <= NEAR * 2_000_000
    assert found.channels == (None, None, None, "geglu")


def test_without_a_channel_mixer_heads_give_way():
    config = start("mamba2")
    assert config.channel is None
    found = match(config, 2_000_000)
    assert found.dim % found.mixers["mamba2"].head_dim == 0
    assert found.mixers["mamba2"].head_dim > 16


def test_layers_and_the_channel_mixer_as_knobs():
    config = start("hgrn2*2 attention")
    deep = match(config, 3_000_000, vary="layers")
    assert deep.dim == config.dim
    assert deep.layers == expand("hgrn2*2 attention", len(deep.layers))
    assert len(deep.layers) > 6
    fat = match(config, 3_000_000, vary="channel")
    assert (fat.dim, fat.layers) == (config.dim, config.layers)
    for found in (deep, fat):
        assert abs(parameters(found) - 3_000_000) <= NEAR * 3_000_000


def test_what_cannot_be_had_is_told_with_the_nearest():
    with pytest.raises(InputError, match=r"mamba\*4 cannot have 3,000,000 by changing its layers; the nearest is ") as found:
        match(start("mamba", 700), 3_000_000, vary="layers")
    nearest = int(str(found.value).split("the nearest is ")[1].split()[0].replace(",", ""))
    assert nearest == parameters(start("mamba", 700), embedding=True) - 3 * (parameters(start("mamba", 700)) - 700 * 1001) // 4
    with pytest.raises(InputError, match=r"cannot have 10 by changing its dim; the nearest is "):
        match(start("hgrn2"), 10)
    with pytest.raises(InputError, match="channel mixer none has no width to change; change dim or layers"):
        match(start("mamba"), 10**6, vary="channel")
    with pytest.raises(InputError, match="Did you mean 'layers'"):
        match(start("mamba"), 10**6, vary="layer")
    with pytest.raises(InputError, match="GLA rank"):
        match(LMConfig(vocab=300, layers=("gla",), mixers={"gla": mixer("gla").Config(rank=0)}), 10**6)


def test_the_search_is_quick_and_the_model_works():
    before = time.thread_time()
    found = match(model_config(16_000, 512, ("hgrn2",) * 26), 360_000_000)
    assert time.thread_time() - before < 5
    assert 900 < found.dim < 1150
    small = match(start("mlstm*3 slstm"), 100_000)
    model = LM(small)
    assert model(torch.zeros(1, 3, dtype=torch.int64), model.init_state(1))[0].shape == (1, 3, 1000)
