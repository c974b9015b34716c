"""Settings that were never meant are taken or refused, never a traceback; and what a model does not say has no place."""

import contextlib

import pytest
import torch

from ritornello.errors import InputError
from ritornello.hf.convert import LAYOUTS
from ritornello.hf.layout import Settings
from ritornello.model import LM, LMConfig

GRIFFIN = {"layers": ("rglru", "window"), "channel": "geglu", "embedding_scale": True, "softcap": 30.0}
MODELS = {  # the mixers' defaults, at a width below all their head sizes
    "hgrn2": {"layers": ("hgrn2",)},
    "llama": {"layers": ("attention",)},
    "mamba": {"layers": ("mamba",), "channel": None},
    "mamba2": {"layers": ("mamba2",), "channel": None},
    "recurrent_gemma": GRIFFIN,
    "rwkv": {"layers": ("rwkv4",), "channel": "rwkv_channel", "norm": "layer", "embedding_norm": True},
}
ODD = (
    None,
    True,
    False,
    0,
    1,
    -1,
    3,
    10**30,
    0.5,
    float("inf"),
    float("nan"),
    "",
    "x",
    [],
    ["x"],
    [[1], {}],
    {},
    {"a": {}},
    {"rope_type": []},
)


@pytest.fixture(params=sorted(MODELS))
def model(request):
    with torch.device("meta"):
        return LM(LMConfig(vocab=9, dim=16, **MODELS[request.param])), LAYOUTS[request.param]


def table_of(model, layout):
    sizes = {"vocab_size": 9, "hidden_size": 16, "num_hidden_layers": len(model.config.layers), "tie_word_embeddings": True}
    return sizes | layout.write(model)


def test_what_is_written_is_read_as_the_same_shapes(model):
    model, layout = model
    settings = Settings(table_of(model, layout), "config.json")
    with torch.device("meta"):
        again = LM(layout.read(settings))
    settings.done()
    assert {name: weight.shape for name, weight in again.state_dict().items()} == {
        name: weight.shape for name, weight in model.state_dict().items()
    }


def test_every_key_may_hold_nonsense(model):
    """Taken or refused, never a traceback."""
    model, layout = model
    table = table_of(model, layout)
    for name in [*table, "head_dim", "rope_scaling", "block_types", "time_step_limit", "time_step_rank", "num_heads", "ssm_cfg"]:
        for value in ODD:
            with contextlib.suppress(InputError), torch.device("meta"):
                settings = Settings(table | {name: value}, "config.json")
                config = layout.read(settings)
                settings.done()
                LM(config)


def test_names_are_pairs(model):
    """No two weights of ours have the same name there."""
    model, layout = model
    theirs = [name for _, name, _ in layout.pairs(model)]
    assert len(set(theirs)) == len(theirs)
    with pytest.raises(InputError, match=r"weight blocks\.0\.time\.other has no place in the"):
        layout.theirs("blocks.0.time.other", model.config.layers)


OLDER = {  # settings that only earlier files have, and what takes their place
    "mamba": (
        {"d_model": 16, "d_inner": 32, "n_layer": 1, "ssm_cfg": {}, "rms_norm": True, "fused_add_norm": True, "pad_vocab_size_multiple": 8},
        {"hidden_size": 16},
    ),
    "recurrent_gemma": (
        {"_block_types": ["attention"], "rope_theta": 500.0, "partial_rotary_factor": 1.0, "embeddings_scale_by_sqrt_dim": True},
        {"block_types": ["attention"], "rope_parameters": {"rope_theta": 500.0, "partial_rotary_factor": 1.0}},
    ),
    "llama": ({"rope_theta": 500.0, "rope_scaling": None}, {"rope_parameters": {"rope_theta": 500.0, "rope_type": "default"}}),
    "mamba2": ({"time_step_limit": [0.0, {"__float__": "Infinity"}], "chunk_size": 256}, {"time_step_limit": [0, float("inf")]}),
}


@pytest.mark.parametrize("kind", sorted(OLDER))
def test_earlier_ways_to_say_the_same(kind):
    own = {"head_dim": 8, "n_groups": 1} if kind == "mamba2" else {} if kind == "mamba" else {"num_attention_heads": 2}
    sizes = {"vocab_size": 9, "hidden_size": 16, "num_hidden_layers": 1, "intermediate_size": 32} | own
    found = []
    for table in OLDER[kind]:
        settings = Settings(sizes | table, "config.json")
        found.append(LAYOUTS[kind].read(settings))
        settings.done()
    assert found[0] == found[1]
