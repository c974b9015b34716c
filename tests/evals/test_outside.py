"""Outside scorers find what we find: lm-evaluation-harness 0.4.13, minicons 0.3.39, lm-pub-quiz 0.3.3 on a few items.

benchmarks/agreement_scorers.py asks them for many, and keeps what came of it.
"""

import pytest
import torch

from benchmarks import agreement_scorers as outside
from ritornello.evals.pairs import MinimalPair
from tests.hf.example_run import make_run

theirs = pytest.mark.filterwarnings("ignore")  # the scorers' own warnings are not ours to mend
PAIRS = {
    "first": [MinimalPair("The cat and the hat.", "The cat the and hat."), MinimalPair("Who ate it?", "Who ate, ate it, and slept?")],
    "second": [MinimalPair("the dog's dinner", "the dogs dinner"), MinimalPair("Où est l'été?", "Où est été l'?")] * 3,
}
TEXTS = [side for pair in (*PAIRS["first"], *PAIRS["second"][:2]) for side in pair[:2]]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    torch.manual_seed(0)
    out = tmp_path_factory.mktemp("models")
    return outside.models(make_run(out / "run"), out)


def agree(row: dict, numbers: int, decisions: int) -> None:
    assert (row["numbers"], row["decisions"]) == (numbers, decisions)
    assert row["beyond_tolerance"] == row["decided_otherwise"] == []


@pytest.mark.parity
@theirs
@pytest.mark.parametrize("model", ["ours", "llama"])
def test_lm_evaluation_harness(model, folders, tmp_path):
    pytest.importorskip("lm_eval")
    found = outside.by_lm_eval(folders[model], PAIRS, tmp_path)
    agree(outside.compared("lm_eval", found, outside.pairs_by_us(folders[model], PAIRS, "official-2024")), 16, 8)


@pytest.mark.parity
@theirs
@pytest.mark.parametrize(
    ("model", "metric", "protocol"),
    [
        ("ours", None, "ritornello"),
        ("llama", None, "ritornello"),
        ("bert", "original", "ritornello"),
        ("bert", "within_word_l2r", "within-word"),
    ],
)
def test_minicons(model, metric, protocol, folders):
    pytest.importorskip("minicons")
    pairs = {"pairs": [MinimalPair(*TEXTS[at : at + 2]) for at in range(0, len(TEXTS), 2)]}
    found = {"pairs": outside.by_minicons(folders[model], TEXTS, metric).view(-1, 2)}
    agree(outside.compared("minicons", found, outside.pairs_by_us(folders[model], pairs, protocol)), 8, 4)


@pytest.mark.parity
@theirs
@pytest.mark.parametrize("model", ["ours", "llama"])
def test_lm_pub_quiz(model, folders, real_data, tmp_path):
    pytest.importorskip("lm_pub_quiz")
    bear, relations = real_data / "bear" / "BEAR", ("P105", "P30")
    found = outside.by_lm_pub_quiz(folders[model], bear, relations, tmp_path, limit=4)
    agree(outside.compared("lm-pub-quiz", found, outside.bear_by_us(folders[model], bear, relations, limit=4)), 3 * 4 * (5 + 6), 3 * 8)


def test_every_disagreement_is_named():
    ours = {"a": torch.tensor([[1.0, 2.0], [4.0, 3.0]]), "b": torch.tensor([[0.0, -1.0]])}
    other = {"a": torch.tensor([[1.0, 2.0005], [4.0, 4.5]]), "b": torch.tensor([[0.0, float("nan")]])}
    row = outside.compared("torch", other, ours)
    assert row["beyond_tolerance"] == [["a", 1, 1], ["b", 0, 1]]
    assert row["decided_otherwise"] == [["a", 1], ["b", 0]]
    assert (row["numbers"], row["decisions"]) == (6, 3)
