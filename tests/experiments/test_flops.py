"""FLOP of a token: products as torch's own counter finds them in a text, recurrences and attention by hand."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from ritornello.experiments.flops import forward_flop, mean_context, training_flop
from ritornello.experiments.scaling import model_config
from ritornello.mixers import mixer
from ritornello.model import LM, LMConfig, parameters


def config(kind: str, layers: int = 2, dim: int = 32, **settings: object) -> LMConfig:
    made = model_config(300, dim, (kind,) * layers, channel=mixer(kind).partner)
    return LMConfig(**{**vars(made), "mixers": made.mixers | {kind: mixer(kind).Config(**settings)} if settings else made.mixers})


@pytest.mark.parametrize("kind", ["hgrn2", "lstm", "gru", "mamba", "gated_deltanet", "mlstm", "slstm", "rglru", "rwkv7"])
def test_products_are_those_of_a_real_text(kind):
    model, length = LM(config(kind), "loop").eval(), 8
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(torch.zeros(1, length, dtype=torch.int64), model.init_state(1))
    assert forward_flop(model.config, length, products=True) == pytest.approx(counter.get_total_flops() / length, rel=0.01)


def test_a_weight_of_a_product_is_two_flop_and_the_embedding_none():
    made = config("lstm")
    model = LM(made)
    matrices = sum(weight.numel() for name, weight in model.blocks.named_parameters() if weight.dim() == 2)
    assert forward_flop(made, 100, products=True) == 2 * (matrices + 300 * 32)
    untied = LMConfig(**{**vars(made), "tied": False})
    assert parameters(untied) > parameters(made)
    assert forward_flop(untied, 100) == forward_flop(made, 100)


def test_a_recurrence_costs_five_flop_for_each_number_of_its_matrix():
    """A decay, a write and its sum, a read and its sum."""
    small, large = (forward_flop(config("hgrn2", head_dim=size), 100) for size in (8, 16))
    assert large - small == 2 * 5 * 32 * 8
    small, large = (forward_flop(config("mamba", state_dim=size), 100) for size in (8, 16))
    assert large - small == 2 * (64 * 8 * (4 + 5) + 2 * 64 * 2 * 8)  # exp(dt A) of A = -exp(A_log) besides, and the maps to B and C


def test_attention_sees_half_the_text():
    short, long = (forward_flop(config("attention"), length, products=True) for length in (129, 257))
    assert long - short == 2 * 4 * 32 * (129 - 65)
    near, far = (forward_flop(config("window", window=50), length, products=True) for length in (10_000, 20_000))
    assert near == far
    assert forward_flop(config("window", window=50), 19) == forward_flop(config("window", window=10), 20_000)  # 10 on average
    assert far - forward_flop(config("window", window=25), 20_000, products=True) == 2 * 4 * 32 * 25


def test_mean_context():
    for length, window in ((1, 9), (7, 9), (9, 9), (40, 9)):
        assert mean_context(length, window) == round(sum(min(at, window) for at in range(1, length + 1)) / length)
    assert mean_context(301) == 151


def test_training_is_three_times_forward():
    assert training_flop(config("hgrn2"), 64) == 3 * forward_flop(config("hgrn2"), 64)


def test_a_model_too_large_for_this_machine_is_counted_all_the_same():
    huge = LMConfig(vocab=16_000, dim=16_384, layers=("hgrn2",) * 4)
    assert forward_flop(huge, 512) == pytest.approx(2 * parameters(huge), rel=0.05)
