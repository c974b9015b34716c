"""Beginnings that texts share are computed once, and no score changes by it."""

import pytest
import torch
from torch.testing import assert_close

from ritornello.evals import prefixes
from ritornello.evals.prefixes import cuts
from ritornello.evals.scoring import log_prob
from ritornello.model import LM, LMConfig

KINDS = (("hgrn2", "hgrn2"), ("lstm", "lstm"), ("attention", "hgrn2"), ("mamba", "window"), ("rwkv7", "rwkv4"))


def lm(layers=("hgrn2", "hgrn2"), dtype=torch.float64, **more):
    torch.manual_seed(0)
    return LM(LMConfig(vocab=30, dim=16, layers=layers, **more)).to(dtype).eval()


def tree(count=60, depth=12):
    """Texts that share beginnings of every length; some end inside others, some differ in the last token only."""
    generator = torch.Generator().manual_seed(1)
    texts = [[0]]
    for _ in range(count):
        stem = texts[int(torch.randint(len(texts), (), generator=generator))]
        keep = int(torch.randint(1, len(stem) + 1, (), generator=generator))
        size = int(torch.randint(1, depth, (), generator=generator))
        texts.append([*stem[:keep], *torch.randint(1, 30, (size,), generator=generator).tolist()])
    return [*texts, [*texts[-1][:-1], 29], [*texts[-1], 5, 6], texts[3]]


def alone(model, text, first=1):
    with torch.inference_mode():
        logits = model(torch.tensor([text[:-1]], dtype=torch.int64), model.init_state(1))[0][0]
    return logits.log_softmax(-1)[range(len(text) - 1), text[1:]][first - 1 :].sum().item()


@pytest.mark.parametrize("tokens", [1, 40, 100_000])
@pytest.mark.parametrize("layers", KINDS, ids=" ".join)
def test_every_text_scores_as_it_does_alone(layers, tokens, monkeypatch):
    monkeypatch.setattr(prefixes, "NODES", 7)
    monkeypatch.setattr(prefixes, "TAKING_OVER", 0.01)  # many cuts
    monkeypatch.setattr(prefixes, "PASS", 0)
    model, texts = lm(layers, wiring="dense" if layers[0] == "lstm" else "residual"), tree()
    first = [1 + index % max(1, len(text) - 1) for index, text in enumerate(texts)]
    want = [alone(model, text, begin) if len(text) > 1 else 0.0 for text, begin in zip(texts, first, strict=True)]
    assert_close(log_prob(model, texts, first=first, tokens_per_batch=tokens).tolist(), want, rtol=0, atol=1e-9)


def test_float32_sums_are_within_a_ten_thousandth_of_a_nat():
    texts = tree(200, 30)
    got, want = log_prob(lm(dtype=torch.float32, softcap=5.0), texts), log_prob(lm(softcap=5.0), texts)
    assert_close(got, want, rtol=0, atol=1e-4)


def test_each_shared_token_is_read_once(monkeypatch):
    model, read = lm(), []
    monkeypatch.setattr(prefixes, "PASS", 2)
    model.embedding.register_forward_hook(lambda module, inputs, output: read.append(inputs[0].numel()))
    log_prob(model, [[0, *range(1, 21), last] for last in (21, 22)] + [[0, *range(1, 21), last, 5, 6] for last in (21, 22)])
    assert sum(read) == 1 + 21 + 2 * 2  # one to learn the vocabulary; what all share; "21 5" and "22 5"


def test_cuts_by_hand(monkeypatch):
    """Four texts of 10 tokens: two pairs share 8, all share 2."""
    monkeypatch.setattr(prefixes, "PASS", 0)
    sizes, common = torch.tensor([10] * 4), torch.tensor([0, 8, 2, 8])
    assert cuts(sizes, common, 0.0, 100) == [0, 2, 8, 10]
    assert cuts(sizes, common, 4.0, 100) == [0, 8, 10]  # the cut at 2 saves 2 tokens and takes a state over
    assert cuts(sizes, common, 9.0, 100) == [0, 10]
    assert cuts(torch.tensor([3, 9]), torch.tensor([0, 0]), 2.0, 100) == [0, 3, 9]  # a text has ended
    assert cuts(torch.tensor([9]), torch.tensor([0]), 50.0, 4) == [0, 4, 8, 9]
    monkeypatch.setattr(prefixes, "PASS", 5)
    assert cuts(sizes, common, 0.0, 100) == [0, 8, 10]  # the cut at 2 saves 2 tokens and is a pass more


def test_a_large_state_makes_small_groups(monkeypatch):
    model, rows = lm(), []
    monkeypatch.setattr(prefixes, "GROUP_BYTES", 3 * 16 * 16 * 8)
    model.embedding.register_forward_hook(lambda module, inputs, output: rows.append(len(inputs[0])))
    log_prob(model, [[0, token, token] for token in range(1, 20)])
    assert max(rows) == 3
