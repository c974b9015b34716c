"""What a token counts, against NumPy; what is added for outputs that are large or move; rows that predict hidden tokens."""

import numpy as np
import pytest
import torch

from ritornello.data.batches import Batch
from ritornello.errors import InputError
from ritornello.model import LM, LMConfig
from ritornello.ops.linear_loss import IGNORED
from ritornello.train.losses import NextToken
from ritornello.train.masking import MASK, MaskConfig, mask
from ritornello.train.objective import Objective, penalty, shaped

EACH = [{"smoothing": 0.1}, {"focal": 2.0}, {"focal": 0.5}, {"z": 0.3}, {"smoothing": 0.2, "focal": 1.0, "z": 1e-2}]


def model(**settings) -> LM:
    return LM(LMConfig(vocab=11, dim=16, layers=("lstm",) * 2, **settings)).double()


def batch(B: int = 3, T: int = 12) -> Batch:
    reset = torch.zeros(B, T, dtype=torch.bool)
    reset[0, 5] = reset[2, 9] = True
    targets = torch.randint(11, (B, T))
    targets[1, 4] = IGNORED
    return Batch(torch.randint(11, (B, T)), targets, reset, torch.arange(B))


@pytest.mark.parametrize("settings", EACH)
def test_a_token_counts_what_the_formula_says(settings):
    config = Objective(**settings)
    logits, targets = 2 * torch.randn(40, 11, dtype=torch.float64), torch.randint(11, (40,))
    targets[7] = IGNORED
    total = plain = 0.0
    for row, y in zip(logits.numpy(), targets.tolist(), strict=True):
        if y == IGNORED:
            continue
        log_z = np.log(np.exp(row).sum())
        p = np.exp(row - log_z)
        nats = (1 - config.smoothing) * -np.log(p[y]) + config.smoothing * np.mean(-np.log(p))
        total += (1 - p[y]) ** config.focal * nats + config.z * log_z**2
        plain += -np.log(p[y])
    found = shaped(logits, targets, config)
    assert float(found.nats) == pytest.approx(total, rel=1e-9)
    assert float(found.cross_entropy) == pytest.approx(plain, rel=1e-9)


@pytest.mark.parametrize("settings", EACH)
def test_gradients_are_the_differences_also_where_the_model_is_sure(settings):
    logits = torch.randn(6, 5, dtype=torch.float64, requires_grad=True)
    targets = torch.tensor([0, 1, 2, 3, 4, IGNORED])
    assert torch.autograd.gradcheck(lambda x: shaped(x, targets, Objective(**settings)).nats, logits)
    sure = torch.tensor([[80.0, 0.0], [200.0, -200.0]], dtype=torch.float32, requires_grad=True)
    shaped(sure, torch.tensor([0, 0]), Objective(**settings)).nats.backward()
    assert sure.grad.isfinite().all()


@pytest.mark.parametrize("settings", [*EACH, {"ar": 2.0, "tar": 1.0, "z": 0.1}])
def test_in_chunks_it_is_the_same(settings):
    results = []
    for chunk in (None, 7):
        torch.manual_seed(1)
        loss = NextToken(model(softcap=3.0), chunk, Objective(**settings))
        torch.manual_seed(2)
        nats, scored, _, parts = loss(batch(), loss.init_state(3))
        grads = torch.autograd.grad(nats, list(loss.parameters()))
        results.append([nats, scored.double(), parts["cross_entropy"], *grads])
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


def test_the_log_tells_the_plain_cross_entropy_beside_the_objective():
    torch.manual_seed(1)
    lm, text = model(), batch()
    wanted = NextToken(lm)(text, lm.init_state(3))
    assert wanted.parts == {}
    plain = wanted.nats.item()
    for settings in ({"z": 0.5}, {"ar": 3.0}, {"smoothing": 0.1, "tar": 1.0}):
        found = NextToken(lm, None, Objective(**settings))(text, lm.init_state(3))
        assert float(found.parts["cross_entropy"]) == pytest.approx(plain)
        assert found.nats.item() > plain + 0.01
        assert not found.parts["cross_entropy"].requires_grad


def test_large_and_moving_outputs_cost_by_hand():
    h, reset = torch.randn(2, 4, 3, dtype=torch.float64), torch.zeros(2, 4, dtype=torch.bool)
    reset[1, 2] = True
    moved = [((h[b, t] - h[b, t - 1]) ** 2).numpy() for b in range(2) for t in range(1, 4) if not reset[b, t]]
    wanted = 2 * (h**2).mean() + 0.5 * np.sum(moved) / (2 * 3 * 3)
    assert float(penalty(h, reset, Objective(ar=2.0, tar=0.5))) == pytest.approx(float(wanted))
    assert float(penalty(h[:, :1], None, Objective(tar=1.0))) == 0.0


def test_they_are_of_the_highest_time_mixer_and_of_the_mean_loss():
    lm, text = model(), batch()
    kept = []
    lm.blocks[-1].time.register_forward_hook(lambda _, __, output: kept.append(output[0]))
    plain = NextToken(lm)(text, lm.init_state(3))
    nats, scored, _, _ = NextToken(lm, None, Objective(ar=2.0))(text, lm.init_state(3))
    assert ((nats - plain.nats) / scored).item() == pytest.approx(2 * kept[0].square().mean().item())
    assert len(lm.blocks[-1].time._forward_hooks) == 1  # ours is gone again


def text_of(B: int, T: int) -> Batch:
    tokens = torch.arange(B * T).reshape(B, T)
    reset = tokens % 10 == 7
    return Batch(tokens, tokens + 1, reset, torch.zeros(B, dtype=torch.int64))


def test_a_hidden_token_is_scored_where_it_is_predicted_and_nothing_else_is():
    plain = text_of(40, 50)
    found = mask(plain, MaskConfig(share=0.5, rate=0.3, rate_end=None), 0.0)
    hidden = found.tokens == MASK
    rows = hidden.any(1)
    assert rows.sum() == 20
    assert 0.25 < hidden[rows].double().mean() < 0.33
    assert torch.equal(found.tokens[~hidden], plain.tokens[~hidden])
    assert torch.equal(found.targets[~rows], plain.targets[~rows])
    assert not hidden[:, 0].any()
    assert not (hidden & plain.reset).any()
    scored = found.targets[rows] != IGNORED
    assert torch.equal(scored[:, :-1], hidden[rows][:, 1:])
    assert not scored[:, -1].any()
    assert torch.equal(found.targets[rows][scored], plain.tokens[hidden])


def test_share_and_rate_go_in_a_straight_line():
    config = MaskConfig(share=0.8, share_end=0.2, rate=0.4, rate_end=0.1)
    for done, share, rate in ((0.0, 0.8, 0.4), (0.5, 0.5, 0.25), (1.0, 0.2, 0.1)):
        hidden = mask(text_of(200, 100), config, done).tokens == MASK
        assert hidden.any(1).double().mean() == pytest.approx(share, abs=0.01)
        assert hidden[hidden.any(1)].double().mean() == pytest.approx(rate * 0.9 * 0.99, abs=0.02)  # one in ten begins a document


def test_a_share_of_less_than_a_row_is_met_by_chance():
    counts = [int((mask(text_of(4, 60), MaskConfig(share=0.375), 0.0).tokens == MASK).any(1).sum()) for _ in range(300)]
    assert set(counts) == {1, 2}
    assert np.mean(counts) == pytest.approx(1.5, abs=0.1)


def test_a_row_with_nothing_hidden_stays_as_it_is():
    one = text_of(3, 1)
    found = mask(one, MaskConfig(share=1.0, rate=1.0, rate_end=None), 0.0)
    assert torch.equal(found.tokens, one.tokens)
    assert torch.equal(found.targets, one.targets)


def test_a_hidden_token_is_not_seen_and_the_mask_learns_in_its_place():
    loss = NextToken(model(embedding_scale=True), None, Objective(masked=MaskConfig()))
    assert set(loss.state_dict()) - {f"model.{name}" for name in loss.model.state_dict()} == {"mask"}
    text = batch()
    hiding = text._replace(tokens=text.tokens.clone().index_fill(1, torch.tensor([3]), MASK))
    nats = loss(hiding, loss.init_state(3)).nats
    nats.backward()
    assert loss.mask.grad.abs().sum() > 0
    with torch.no_grad():
        loss.mask.copy_(loss.model.embedding.weight[7])
    as_seven = text._replace(tokens=text.tokens.clone().index_fill(1, torch.tensor([3]), 7))
    assert loss(hiding, loss.init_state(3)).nats.item() == pytest.approx(loss(as_seven, loss.init_state(3)).nats.item())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"smoothing": 1.0}, r"^train.objective.smoothing: 1.0 is not in \[0, 1\)$"),
        ({"focal": -1.0}, r"^train.objective.focal: -1.0 is not a number from 0 on$"),
        ({"z": float("nan")}, r"^train.objective.z: nan"),
        ({"ar": float("inf")}, r"^train.objective.ar: inf"),
        ({"tar": -0.1}, r"^train.objective.tar: -0.1"),
    ],
)
def test_what_cannot_be_is_refused(settings, message):
    with pytest.raises(InputError, match=message):
        Objective(**settings)
    for name in ("share", "share_end", "rate", "rate_end"):
        with pytest.raises(InputError, match=rf"^train.objective.masked.{name}: 1.5 is not in \[0, 1\]$"):
            MaskConfig(**{name: 1.5})
    with pytest.raises(InputError, match="ar, tar and masked reach into a model and need one of ours"):
        NextToken(torch.nn.Linear(2, 2), None, Objective(ar=1.0))
