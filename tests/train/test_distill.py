"""Distillation: the formula, whose state goes where, and that nothing else of a run changes."""

import numpy as np
import pytest
import torch

from ritornello.data.batches import Batch, Batches
from ritornello.data.tokens import Tokens
from ritornello.errors import InputError
from ritornello.mixers import mixer
from ritornello.mixers.base import Context
from ritornello.model import LM, LMConfig
from ritornello.ops.divergence import divergence_of_top
from ritornello.state import flatten
from ritornello.train.distill import Distill, Live, TeachConfig, divergence
from ritornello.train.hints import HintConfig, Hints, paired
from ritornello.train.loop import TrainConfig, Trainer
from ritornello.train.losses import NextToken
from ritornello.train.teachers import Teachers

V = 21
SIMPLE = Tokens(np.random.default_rng(0).integers(0, V - 1, 1500).astype(np.uint16), np.array([300, 301, 420, 1500]))


def lm(kind: str = "hgrn2", seed: int = 0, dim: int = 32, layers: int = 2) -> LM:
    torch.manual_seed(seed)
    mixers = {kind: mixer(kind).Config(head_dim=16)} if kind != "lstm" else {}
    model = LM(LMConfig(vocab=V, dim=dim, layers=(kind,) * layers, mixers=mixers, dropout=0.1))
    for weight in model.parameters():  # far from uniform predictions
        weight.data *= 2
    return model


def taught(model, *teachers, hints=None, **settings) -> Distill:
    config = TeachConfig(teachers=("runs/teacher",), hints=hints, **settings)
    one = Teachers(teachers, V, config.temperature, config.average)
    return Distill(model, Live(one), config, Hints(model, teachers[0], hints) if hints else None)


def trainer(loss, **settings) -> Trainer:
    config = TrainConfig(**{"steps": 8, "batch": 3, "length": 24, "threads": 1, "warmup": 2} | settings)
    return Trainer(loss, Batches(SIMPLE, bos=V - 1, eos=V - 1, batch=config.batch, length=config.length, seed=0), config)


def run(one: Trainer, until: int) -> list[dict]:
    return [record for _, record in zip(range(one.step, until), one.steps(), strict=False)]


def batch(rows: int = 2, length: int = 11, unscored: int = 0) -> Batch:
    drawn = torch.randint(V, (2, rows, length), generator=torch.Generator().manual_seed(5))
    targets = drawn[1].clone()
    targets[:, :unscored] = -100
    return Batch(drawn[0], targets, None, torch.zeros(rows, dtype=torch.int64))


def test_a_share_of_nothing_is_plain_training_bit_for_bit():
    plain, none = trainer(NextToken(lm())), trainer(taught(lm(), lm(seed=7), alpha=0.0))
    wanted, found = run(plain, 6), run(none, 6)
    assert [record["loss"] for record in wanted] == [record["loss"] for record in found]
    after = dict(none.loss.named_parameters())
    assert all(torch.equal(weight, after[name]) for name, weight in plain.loss.named_parameters())
    other = trainer(taught(lm(), lm(seed=7), alpha=0.5))
    run(other, 6)
    assert not torch.equal(other.loss.model.head.weight, plain.loss.model.head.weight)


@pytest.mark.parametrize("temperature", [1.0, 2.0])
@pytest.mark.parametrize("average", ["probabilities", "logits"])
def test_a_student_that_is_its_teacher_has_nothing_to_learn(temperature, average):
    student = lm().double().eval()
    loss = taught(student, student, student, alpha=1.0, temperature=temperature, average=average)
    nats = loss(batch(), loss.init_state(2)).nats
    nats.backward()
    assert abs(float(nats.detach())) < 1e-12
    assert max(float(weight.grad.abs().max()) for weight in student.parameters()) < 1e-12
    student.zero_grad()
    other = taught(student, lm(seed=3).double(), alpha=1.0)
    other(batch(), other.init_state(2)).nats.backward()
    assert float(student.head.weight.grad.abs().max()) > 1e-3


def by_hand(z: np.ndarray, teachers: list[np.ndarray], targets: np.ndarray, alpha: float, T: float, average: str) -> float:
    """The formula, token by token."""

    def softmax(x):
        e = np.exp(x - x.max())
        return e / e.sum()

    total = 0.0
    for n, target in enumerate(targets):
        if target == -100:
            continue
        if average == "logits":
            p = softmax(np.mean([t[n] / T for t in teachers], 0))
        else:
            p = np.mean([softmax(t[n] / T) for t in teachers], 0)
        q = softmax(z[n] / T)
        total += (1 - alpha) * -np.log(softmax(z[n])[target]) + alpha * T * T * np.sum(p * np.log(p / q))
    return total


@pytest.mark.parametrize("average", ["probabilities", "logits"])
def test_the_loss_is_the_formula(average):
    student, teachers = lm().double().eval(), [lm("lstm", seed=1).double(), lm(seed=2).double()]
    loss = taught(student, *teachers, alpha=0.3, temperature=1.7, average=average)
    one = batch(unscored=4)
    one = one._replace(reset=torch.zeros(2, 11, dtype=torch.bool).index_fill(1, torch.tensor([6]), True))
    found = loss(one, loss.init_state(2))
    logits = [model(one.tokens, model.init_state(2), one.reset)[0].detach().flatten(0, 1).numpy() for model in (student, *teachers)]
    wanted = by_hand(logits[0], logits[1:], one.targets.flatten().numpy(), 0.3, 1.7, average)
    assert float(found.nats.detach()) == pytest.approx(wanted, rel=1e-10)
    assert int(found.scored) == 14
    parts = found.parts
    assert float(0.7 * parts["cross_entropy"] + 0.3 * parts["taught"]) == pytest.approx(wanted, rel=1e-10)
    rows = taught(student, *teachers, alpha=0.3, temperature=1.7, average=average, reduction="rows")
    wider = rows(one, rows.init_state(2)).parts["taught"]
    assert float(wider) == pytest.approx(7 * float(parts["taught"]))  # 14 scored tokens in 2 rows


def test_a_teacher_is_neither_trained_nor_kept_and_reads_without_dropout():
    teacher = lm(seed=1)
    before = {name: weight.clone() for name, weight in teacher.state_dict().items()}
    one = trainer(taught(lm(), teacher, alpha=0.5))
    records = run(one, 3)
    assert {name for name in one.snapshot() if name.startswith("model.")} == {f"model.model.{name}" for name, _ in lm().named_parameters()}
    assert all(torch.equal(weight, before[name]) for name, weight in teacher.state_dict().items())
    assert not teacher.training
    assert all(weight.grad is None for weight in teacher.parameters())
    assert records[0]["loss"] == pytest.approx(0.5 * records[0]["cross_entropy"] + 0.5 * records[0]["taught"], rel=1e-6)


@pytest.mark.parametrize("carry", [True, False])
def test_the_teachers_state_goes_with_the_students(carry):
    """After two steps the teacher has read both pieces of every row, or the second alone."""
    teacher = lm(seed=1)
    one = trainer(taught(lm(), teacher, alpha=0.5), carry=carry, length=200)
    run(one, 2)
    if not carry:
        assert one.state is None
        return
    pieces = [one.batches(0, step) for step in range(2)]
    tokens = torch.cat([piece.tokens for piece in pieces], 1)
    none = torch.zeros(3, 200, dtype=torch.bool)
    reset = torch.cat([none if piece.reset is None else piece.reset for piece in pieces], 1)
    assert reset[:, 1:].any()
    with torch.no_grad():
        _, wanted = teacher(tokens, teacher.init_state(3), reset)
    for (name, a), (_, b) in zip(flatten(wanted).items(), flatten(one.state.teachers[0]).items(), strict=True):
        torch.testing.assert_close(a, b, msg=name)


def test_a_teacher_whose_state_grows_begins_anew_with_each_piece():
    one = trainer(taught(lm(), lm("attention", seed=1), lm(seed=2), alpha=0.5))
    run(one, 2)
    growing, recurrent = one.state.teachers
    assert all(leaf.shape[1] == 0 for name, leaf in flatten(growing).items() if name.endswith((".k", ".v")))
    assert all(int(leaf.sum()) == 0 for name, leaf in flatten(growing).items() if name.endswith("seen"))
    assert any(float(leaf.abs().sum()) > 0 for leaf in flatten(recurrent).values())


@pytest.mark.parametrize("hints", [None, HintConfig(weight=0.5)])
def test_a_taught_run_goes_on_from_a_snapshot_bit_for_bit(hints):
    whole, first, second = (trainer(taught(lm(), lm("lstm", seed=1), alpha=0.5, hints=hints)) for _ in range(3))
    wanted = run(whole, 7)
    run(first, 3)
    second.restore({name: tensor.clone() for name, tensor in first.snapshot().items()}, 3)
    assert run(second, 7) == wanted[3:]
    left, right = whole.snapshot(), second.snapshot()
    assert left.keys() == right.keys()
    assert all(torch.equal(left[name], right[name]) for name in left)


def test_a_teacher_of_fewer_ids_is_refused():
    with pytest.raises(InputError, match="a teacher knows 21 ids, the student 30"):
        Teachers([lm()], 30)


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_the_likeliest_alone_are_the_whole_where_they_are_all_and_never_more(temperature):
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(5, V, generator=generator, dtype=torch.float64, requires_grad=True)
    log_p = (2 * torch.randn(5, V, generator=generator, dtype=torch.float64)).log_softmax(-1)
    scored = torch.tensor([True, True, False, True, True])
    whole = divergence(logits, log_p, scored, temperature)
    (wanted,) = torch.autograd.grad(whole, logits)

    def of_top(z, ids, log_p, log_rest):
        nats = divergence_of_top(z, ids, log_p, log_rest, temperature)
        return temperature**2 * nats.where(scored, 0).sum()

    values, ids = log_p.topk(V)
    top = of_top(logits, ids, values, torch.full((5,), -torch.inf, dtype=torch.float64))
    torch.testing.assert_close(top, whole)
    torch.testing.assert_close(torch.autograd.grad(top, logits)[0], wanted)
    values, ids = log_p.topk(6)
    rest = torch.log1p(-values.exp().sum(-1))
    part = of_top(logits, ids, values, rest)
    assert 0.3 * whole.item() < part.item() < whole.item()
    same = of_top(temperature * log_p, ids, values, rest)
    assert float(same) == pytest.approx(0, abs=1e-12)
    assert torch.autograd.gradcheck(lambda z: of_top(z, ids, values, rest), logits)


def outputs(model: LM, tokens: torch.Tensor) -> list[torch.Tensor]:
    """What each block gives, from a fresh state."""
    x, found, context = model.embed(tokens), [], Context()
    for block, state in zip(model.blocks, model.init_state(len(tokens)), strict=True):
        x, _ = block([x], state, context)
        found.append(x)
    return found


def test_hints_are_the_distance_of_mapped_features():
    student, teacher = lm().double(), lm("lstm", seed=1, dim=16, layers=4).double().eval()
    student.eval()
    one = batch(unscored=3)
    for distance in ("squared", "cosine"):
        hints = HintConfig(weight=2.0, distance=distance, pairs=((1, 3), (2, 4)))
        loss = taught(student, teacher, alpha=0.0, hints=hints).double()
        found = loss(one, loss.init_state(2))
        features = [outputs(model, one.tokens) for model in (student, teacher)]
        total = 0.0
        for to, (a, b) in zip(loss.hints.maps, ((0, 2), (1, 3)), strict=True):
            g, w = features[1][b], to(features[0][a])
            far = 1 - torch.cosine_similarity(w, g, -1) if distance == "cosine" else (w - g).square().mean(-1) / g.square().mean()
            total += float(far[:, 3:].sum().detach()) / 2
        assert float(found.parts["hints"]) == pytest.approx(total, rel=1e-9)
        assert float(found.nats.detach()) == pytest.approx(float(found.parts["cross_entropy"]) + 2 * total, rel=1e-9)


def test_hints_teach_the_student_and_their_maps():
    one = trainer(taught(lm(), lm("lstm", seed=1, dim=16, layers=3), alpha=0.0, hints=HintConfig(weight=3.0)), steps=30, lr=1e-2)
    told = [record["hints"] for record in run(one, 30)]
    assert told[-1] < 0.8 * told[0]
    assert any(name.startswith("model.hints.maps.0") for name in one.snapshot())
    assert not any(block._forward_hooks for block in one.loss.model.blocks)


def test_blocks_are_paired_over_the_depth_or_as_asked():
    assert paired(2, 6) == [(0, 2), (1, 5)]
    assert paired(4, 2) == [(0, 0), (1, 0), (2, 1), (3, 1)]
    assert paired(4, 2, ((4, 1),)) == [(3, 0)]
    with pytest.raises(InputError, match=r"teach.hints.pairs: \[5, 1\]; expected \[1 .. 4 of the student, 1 .. 2 of the teacher\]"):
        paired(4, 2, ((5, 1),))


BAD = {
    "no teacher": ({"teachers": ()}, "teach.teachers: none is named"),
    "share": ({"alpha": 1.5}, "teach.alpha: 1.5 is not in"),
    "temperature": ({"temperature": 0.0}, "teach.temperature: 0.0 is not a positive number"),
    "top": ({"top": 0}, "teach.top: 0 is less than 1"),
    "hints from disk": ({"top": 4, "hints": HintConfig()}, "teach.hints: features are not kept on disk"),
    "rows of bytes": ({"match": "bytes", "reduction": "rows"}, "teach.reduction does not go with teach.match=bytes"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_taught_is_refused_by_name(name):
    settings, message = BAD[name]
    with pytest.raises(InputError, match=message):
        TeachConfig(**{"teachers": ("runs/a",)} | settings)
