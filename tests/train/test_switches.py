"""Every switch of training goes on from a snapshot bit for bit, and changes something, and what only looks on changes nothing."""

from functools import cache

import pytest
import torch
from test_loop import corpus, run

from ritornello.config import from_dict, to_dict
from ritornello.data.batches import Batches
from ritornello.data.pieces import Pieces
from ritornello.errors import InputError
from ritornello.mixers import mixer
from ritornello.model import LM, LMConfig
from ritornello.train.averaging import AverageConfig
from ritornello.train.loop import TrainConfig, Trainer
from ritornello.train.losses import NextToken
from ritornello.train.masking import MaskConfig
from ritornello.train.objective import Objective
from ritornello.train.optimizers import Optimizers, rate

LOCKED = {"word_dropout": 0.1, "input_dropout": 0.3, "output_dropout": 0.2, "locked_dropout": True}
SWITCHES = {
    "ema": ({"average": AverageConfig(decay=0.9, start=2)}, {}),
    "nt-asgd": ({"average": AverageConfig(kind="nt-asgd", patience=1), "optimizer": "sgd", "schedule": "constant"}, {}),
    "objective": ({"objective": Objective(smoothing=0.1, focal=1.0, z=1e-3, ar=2.0, tar=1.0)}, {}),
    "objective in chunks": ({"objective": Objective(z=1e-3), "loss_chunk": 50}, {}),
    "masked": ({"objective": Objective(masked=MaskConfig(share=0.5, share_end=0.2))}, {}),
    "varied pieces": ({"pieces": Pieces(spread=0.1, halved=0.2)}, {}),
    "short pieces": ({"pieces": Pieces(short=10, until=0.8)}, {}),
    "documents run on": ({"pieces": Pieces(documents=False)}, {}),
    "locked dropout": ({}, LOCKED),
    "weight drop": ({}, {"layers": ("lstm",) * 2, "mixers": {"lstm": mixer("lstm").Config(weight_dropout=0.4)}}),
    "short convolution": ({}, {"mixers": {"hgrn2": mixer("hgrn2").Config(head_dim=16, conv=3)}}),
}
LOSSES = [4.0, 3.0, 3.5, 3.4, 3.3, 3.2, 3.1, 3.6]  # held-out, as if checked after each step


def trainer(train=None, model=None) -> Trainer:
    config = TrainConfig(**{"steps": 8, "batch": 3, "length": 40, "threads": 1, "warmup": 2} | (train or {}))
    torch.manual_seed(config.seed)
    shape = {"layers": ("hgrn2",) * 2, "mixers": {"hgrn2": mixer("hgrn2").Config(head_dim=16)}, "dropout": 0.1}
    lm = LM(LMConfig(vocab=21, dim=32, **shape | (model or {})))
    batches = Batches(corpus(), bos=20, eos=20, batch=config.batch, length=config.length, seed=config.seed, pieces=config.pieces)
    return Trainer(NextToken(lm, config.loss_chunk, config.objective), batches, config)


def go(one: Trainer, steps: int) -> list[dict]:
    """So many steps, a held-out loss after each."""
    records = []
    while len(records) < steps:
        records += run(one, 1)
        one.hear(LOSSES[one.step - 1])
    return records


@cache
def plain_weights() -> torch.Tensor:
    """An embedding without any switch."""
    plain = trainer()
    go(plain, 8)
    return plain.loss.model.embedding.weight


@pytest.mark.parametrize("name", SWITCHES)
def test_it_goes_on_bit_for_bit_and_makes_a_difference(name):
    whole = trainer(*SWITCHES[name])
    wanted = go(whole, 8)
    first = trainer(*SWITCHES[name])
    assert from_dict(TrainConfig, to_dict(first.config)) == first.config
    go(first, 5)
    tensors = {key: tensor.clone() for key, tensor in first.snapshot().items()}
    second = trainer(*SWITCHES[name])
    second.restore(tensors, 5)
    torch.rand(3)  # another process's randomness stands elsewhere
    assert go(second, 3) == wanted[5:]
    kept, again = whole.snapshot(), second.snapshot()
    assert kept.keys() == again.keys()
    assert all(torch.equal(kept[key], again[key]) for key in kept)
    assert whole.finish().startswith(("the exponential", "the mean")) == ("average" in SWITCHES[name][0])
    second.finish()
    assert all(torch.equal(a, b) for a, b in zip(whole.loss.parameters(), second.loss.parameters(), strict=True))
    assert (plain_weights() != whole.loss.model.embedding.weight).any()


def test_an_average_only_looks_on():
    plain, averaged = trainer(), trainer({"average": AverageConfig()})
    assert go(plain, 6) == go(averaged, 6)
    assert plain.finish() == "the last step's"
    before = averaged.loss.model.embedding.weight.clone()
    assert torch.equal(before, plain.loss.model.embedding.weight)
    with averaged.shown():
        shown = averaged.loss.model.embedding.weight.clone()
    assert torch.equal(averaged.loss.model.embedding.weight, before)
    assert averaged.finish().startswith("the exponential average")
    assert torch.equal(averaged.loss.model.embedding.weight, shown)
    assert not torch.equal(shown, before)


def test_the_log_counts_what_the_text_has_and_not_what_a_step_scores():
    plain, masked = trainer(), trainer({"objective": Objective(masked=MaskConfig(share=1.0, rate=0.2))})
    assert [record["targets"] for record in go(plain, 3)] == [record["targets"] for record in go(masked, 3)]


def test_a_longer_piece_takes_a_longer_step():
    varied = trainer({"pieces": Pieces(spread=0.3), "schedule": "constant", "warmup": 0})
    widths = [varied.batches(0, step).tokens.shape[1] for step in range(6)]
    assert len(set(widths)) > 1
    assert [record["lr"] for record in go(varied, 6)] == pytest.approx([3e-3 * width / 40 for width in widths])


def test_short_rows_carry_no_state_and_whole_ones_do():
    one = trainer({"pieces": Pieces(short=10, until=0.5)})
    carried = []
    for _ in range(8):
        go(one, 1)
        carried.append(one.state is not None)
    assert carried == [False] * 4 + [True] * 4


def test_sgd_moves_every_weight_by_its_gradient():
    model = LM(LMConfig(vocab=21, dim=32, layers=("lstm",)))
    one = Optimizers(model, "sgd", 0.5)
    before = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    for weight in model.parameters():
        weight.grad = torch.ones_like(weight)
    one.step(0.1)
    for name, weight in model.named_parameters():
        decay = 0.5 * before[name] if name.endswith(("weight_hh_l0", "weight_ih_l0", "gate.weight", "up.weight", "down.weight")) else 0
        torch.testing.assert_close(weight.detach(), before[name] - 0.1 * (1 + decay))
    assert one.memory() == {}
    assert [rate(step, 50, warmup=1, schedule="constant") for step in (0, 1, 49)] == [0.5, 1.0, 1.0]


def test_rows_that_do_not_fit_are_refused_with_the_config():
    with pytest.raises(InputError, match=r"train.pieces.short: 30 cannot be doubled to the length 40; use one of 20, 10, 5"):
        TrainConfig(steps=1, length=40, pieces=Pieces(short=30))
