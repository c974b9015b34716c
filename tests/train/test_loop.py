"""The training loop: a step depends on nothing but what a snapshot holds; the optimisers and schedules are what they say."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from ritornello.data.batches import Batches
from ritornello.data.tokens import Tokens
from ritornello.errors import InputError
from ritornello.mixers import mixer
from ritornello.model import LM, LMConfig
from ritornello.train import optimizers
from ritornello.train.loop import Diverged, TrainConfig, Trainer
from ritornello.train.losses import NextToken
from ritornello.train.optimizers import Muon, Optimizers, groups, rate


def corpus() -> Tokens:
    ids = np.random.default_rng(0).integers(0, 20, 3000).astype(np.uint16)
    return Tokens(ids, np.array([500, 700, 701, 2000, 3000]))


def trainer(kind: str = "hgrn2", **settings) -> Trainer:
    config = TrainConfig(**{"steps": 12, "batch": 3, "length": 40, "threads": 1, "warmup": 2} | settings)
    torch.manual_seed(config.seed)
    mixers = {kind: mixer(kind).Config(head_dim=16)} if kind != "lstm" else {}
    model = LM(LMConfig(vocab=21, dim=32, layers=(kind,) * 2, mixers=mixers, dropout=0.1))
    return Trainer(NextToken(model), Batches(corpus(), bos=20, eos=20, batch=config.batch, length=config.length, seed=config.seed), config)


def run(one: Trainer, steps: int) -> list[dict]:
    records = []
    for record in one.steps():
        records.append(record)
        if len(records) == steps:
            break
    return records


@pytest.mark.parametrize(("kind", "carry"), [("hgrn2", True), ("lstm", True), ("hgrn2", False), ("attention", False)])
@pytest.mark.parametrize("optimizer", ["muon", "adamw", "adam"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_run_that_goes_on_from_a_snapshot_is_bit_for_bit_the_unbroken_one(kind, carry, optimizer, precision):
    settings = {"carry": carry, "optimizer": optimizer, "precision": precision}
    whole = trainer(kind, **settings)
    wanted = run(whole, 12)
    first = trainer(kind, **settings)
    run(first, 5)
    tensors = {name: tensor.clone() for name, tensor in first.snapshot().items()}
    second = trainer(kind, **settings)
    second.restore(tensors, 5)
    torch.rand(3)  # another process's randomness stands elsewhere
    assert run(second, 12) == wanted[5:]
    for (name, a), (_, b) in zip(whole.snapshot().items(), second.snapshot().items(), strict=True):
        assert torch.equal(a, b), name


def test_adam_is_torchs_with_its_own_betas_and_decay_in_the_gradient_of_matrices():
    ours, theirs = (trainer().loss for _ in range(2))
    matrices, rest = groups(theirs)
    adam = torch.optim.Adam([{"params": [*matrices.values()], "weight_decay": 0.3}, {"params": [*rest.values()]}], lr=0.01)
    ours_adam = Optimizers(ours, "adam", 0.3)
    for _ in range(3):
        for one, two in zip(ours.parameters(), theirs.parameters(), strict=True):
            one.grad = torch.randn_like(one)
            two.grad = one.grad.clone()
        ours_adam.step(0.01)
        adam.step()
    for one, two in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(one, two)


def test_the_loss_is_the_mean_over_scored_targets_and_the_loop_makes_it_fall():
    one = trainer(steps=40, lr=1e-2)
    batch = one.batches(0, 0)
    model = one.loss.model
    logits = model.eval()(batch.tokens, model.init_state(3), batch.reset)[0].detach()
    by_hand = torch.nn.functional.cross_entropy(logits.flatten(0, 1), batch.targets.flatten(), ignore_index=-100)
    nats, count, *_ = one.loss.eval()(batch, model.init_state(3))
    torch.testing.assert_close(nats.detach() / count, by_hand)
    losses = [record["loss"] for record in run(one, 40)]
    assert losses[0] == pytest.approx(math.log(21), abs=0.2)
    assert losses[-1] < losses[0] - 0.02


def test_the_state_is_carried_detached_and_only_when_asked():
    carried, fresh = trainer(carry=True), trainer(carry=False)
    run(carried, 3), run(fresh, 3)
    assert fresh.state is None
    assert not carried.state[0].time.S.requires_grad
    assert carried.state[0].time.S.abs().sum() > 0


def test_dropout_differs_between_steps_and_not_between_runs():
    assert [record["loss"] for record in run(trainer(), 4)] == [record["loss"] for record in run(trainer(), 4)]
    assert run(trainer(seed=1), 1) != run(trainer(seed=0), 1)


def test_numbers_that_run_out_stop_the_run_and_leave_the_weights():
    one = trainer()
    run(one, 2)
    before = {name: tensor.clone() for name, tensor in one.snapshot().items() if name.startswith("model.")}
    one.loss.model.norm.register_forward_hook(lambda module, inputs, output: output * float("nan"))
    with pytest.raises(Diverged, match=r"step 3: the loss is not a finite number; try a smaller rate \(--lr 0.001\)"):
        run(one, 1)
    assert all(torch.equal(tensor, one.snapshot()[name]) for name, tensor in before.items())
    with torch.no_grad():
        one.loss.model.norm.weight[0] = float("inf")
    with pytest.raises(Diverged, match="a weight is not a finite number"):
        one.snapshot()


def test_clipping_bounds_the_gradient():
    one = trainer(clip=1e-3, optimizer="adamw")
    seen = []
    step = one.optimizers.step

    def spy(lr):
        seen.append(float(torch.stack([weight.grad.square().sum() for weight in one.loss.parameters()]).sum().sqrt()))
        step(lr)

    one.optimizers.step = spy
    assert run(one, 1)[0]["grad_norm"] > 1e-2
    assert seen[0] == pytest.approx(1e-3, rel=1e-3)


def test_matrices_go_to_muon_and_the_rest_keeps_its_weight():
    model = LM(LMConfig(vocab=21, dim=32, layers=("hgrn2", "lstm"), mixers={"hgrn2": mixer("hgrn2").Config(head_dim=16)}))
    matrices, rest = groups(model)
    assert {"blocks.0.time.q.weight", "blocks.1.time.lstm.weight_hh_l0", "blocks.0.channel.down.weight"} <= set(matrices)
    assert {"embedding.weight", "norm.weight", "blocks.0.time.rise", "blocks.1.time.lstm.bias_ih_l0"} <= set(rest)
    assert len(matrices) + len(rest) == len(list(model.parameters()))
    one = Optimizers(model, "muon", 0.5)
    for weight in model.parameters():
        weight.grad = torch.zeros_like(weight)
    before = {name: weight.clone() for name, weight in model.named_parameters()}
    one.step(0.1)
    for name, weight in model.named_parameters():  # with no gradient only decay is left: matrices shrink, the rest stays
        torch.testing.assert_close(weight.detach(), before[name] * (0.95 if name in matrices else 1.0))


def test_muon_moves_matrices_as_torch_does_however_many_go_together(monkeypatch):
    generator = torch.Generator().manual_seed(0)
    shapes = [(32, 32), (48, 32), (32, 48), (32, 32), (48, 32)]
    start = [torch.randn(shape, generator=generator) for shape in shapes]
    for together in (2**20, 2000, 1):
        monkeypatch.setattr(optimizers, "TOGETHER", together)
        ours, torchs = ([nn.Parameter(x.clone()) for x in start] for _ in range(2))
        pair = Muon(ours, 0.3), torch.optim.Muon(torchs, lr=0.0, weight_decay=0.3, adjust_lr_fn="match_rms_adamw")
        for _ in range(3):
            for a, b in zip(ours, torchs, strict=True):
                a.grad = b.grad = torch.randn(a.shape, generator=generator)
            for one in pair:
                one.param_groups[0]["lr"] = 0.1
                one.step()
        for a, b, x in zip(ours, torchs, start, strict=True):
            assert (a - b).norm() < 2e-2 * (b - x).norm()  # orthogonalised in bfloat16


def test_rates_rise_and_fall_as_said():
    linear = [rate(step, 100, warmup=10, schedule="linear") for step in range(100)]
    assert linear[:10] == [pytest.approx((step + 1) / 11) for step in range(10)]
    assert linear[10] == 1
    assert linear[55] == pytest.approx(0.5)
    cosine = [rate(step, 100, warmup=0, schedule="cosine") for step in range(100)]
    assert (cosine[0], cosine[50]) == (1, pytest.approx(0.5))
    wsd = [rate(step, 100, warmup=0, schedule="wsd", decay=0.2) for step in range(100)]
    assert wsd[:81] == pytest.approx([1.0] * 81)
    assert wsd[90] == pytest.approx(0.5)
    assert all(0 < value <= 1 for value in linear + cosine + wsd)


@pytest.mark.parametrize(("name", "value"), [("steps", -1), ("lr", 0.0), ("lr", math.nan), ("clip", -1.0), ("seed", -1), ("warmup", -1)])
def test_impossible_settings_are_refused_by_name(name, value):
    with pytest.raises(InputError, match=f"train.{name}"):
        TrainConfig(**{"steps": 1} | {name: value})


def test_a_loss_in_chunks_is_the_same_loss():
    whole, chunked = (trainer(batch=2, optimizer="adamw") for _ in range(2))
    chunked.loss.chunk = 7
    for a, b in zip(run(whole, 3), run(chunked, 3), strict=True):
        assert a == pytest.approx(b, rel=1e-4)
    with pytest.raises(InputError, match="only our own models can make their logits in chunks"):
        NextToken(torch.nn.Linear(2, 2), 8)
    with pytest.raises(InputError, match=r"train.loss_chunk: 0 is less than 1"):
        TrainConfig(steps=1, loss_chunk=0)
