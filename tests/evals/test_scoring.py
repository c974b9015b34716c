"""Every score against one computed by hand, or against the plainest way to compute it."""

import math

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from ritornello.errors import InputError
from ritornello.evals import scoring
from ritornello.evals.scoring import log_prob, stream_nats, token_nats

BOS, EOS = 1, 2


class Bigram(nn.Module):
    """p(next | this token): a table of logits."""

    def __init__(self, table: torch.Tensor):
        super().__init__()
        self.register_buffer("table", table)

    def init_state(self, batch):
        return ()

    def forward(self, tokens, state, reset=None):
        return self.table[tokens], state


class GRU(nn.Module):
    """A recurrent model written token by token, in float64; starts from a state that is not zero."""

    def __init__(self, vocabulary=11, dim=6):
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, dim)
        self.cell = nn.GRUCell(dim, dim)
        self.head = nn.Linear(dim, vocabulary)
        self.drop = nn.Dropout(0.5)
        self.double()

    def init_state(self, batch):
        return (torch.full((batch, 6), 0.3, dtype=torch.float64),)

    def forward(self, tokens, state, reset=None):
        (h,), out = state, []
        for t in range(tokens.shape[1]):
            if reset is not None:
                h = torch.where(reset[:, t, None], self.init_state(len(h))[0], h)
            h = self.cell(self.embedding(tokens[:, t]), h)
            out.append(self.head(self.drop(h)))
        return torch.stack(out, 1), (h,)


class Past(nn.Module):
    """Sees everything since its state began: logits from the mean of all tokens so far. Its state grows, like a KV cache."""

    def __init__(self, vocabulary=11):
        super().__init__()
        self.table = nn.Parameter(torch.randn(vocabulary, vocabulary, dtype=torch.float64))

    def init_state(self, batch):
        return torch.zeros(batch, 0, dtype=torch.int64)

    def forward(self, tokens, state, reset=None):
        assert reset is None, "windows start from fresh states; they never need a reset"
        seen = torch.cat([state, tokens], 1)
        counts = torch.arange(1, seen.shape[1] + 1)[:, None]
        return (self.table[seen].cumsum(1) / counts)[:, state.shape[1] :], seen


@pytest.fixture
def model():
    torch.manual_seed(0)
    return GRU()


def documents(sizes, vocabulary=11):
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(3, vocabulary, (sum(sizes),), generator=generator)
    return ids, torch.tensor(sizes).cumsum(0)


def alone(model, tokens):
    """-log p of each token after the first, the text run alone in one piece from a fresh state."""
    if len(tokens) < 2:
        return torch.zeros(0, dtype=torch.float64)
    with torch.inference_mode():
        logits, _ = model.eval()(tokens[None, :-1], model.init_state(1))
        return -logits[0].log_softmax(-1).gather(1, tokens[1:, None])[:, 0].clone()


def whole(ids, ends):
    """BOS t1..tn EOS of each document."""
    bounds = zip([0, *ends.tolist()], ends.tolist(), strict=False)
    return [torch.cat([torch.tensor([BOS]), ids[start:end], torch.tensor([EOS])]) for start, end in bounds]


def test_bigram_by_hand():
    p = torch.tensor([[0.5, 0.25, 0.25], [0.1, 0.2, 0.7], [0.6, 0.3, 0.1]])
    got = log_prob(Bigram(p.log()), [[0, 1, 2], [1, 2, 0, 0], [2], [0, 1, 2]])
    want = [math.log(0.25 * 0.7), math.log(0.7 * 0.6 * 0.5), 0.0, math.log(0.25 * 0.7)]
    assert got.dtype == torch.float64
    assert_close(got, torch.tensor(want, dtype=torch.float64), rtol=0, atol=1e-6)


@pytest.mark.parametrize("tokens_per_batch", [1, 7, 40, 16384])
def test_log_prob_equals_each_text_alone(model, tokens_per_batch):
    generator = torch.Generator().manual_seed(2)
    texts = [[BOS, *torch.randint(0, 11, (size,), generator=generator).tolist()] for size in (5, 0, 12, 1, 5, 30, 2)]
    want = torch.stack([-alone(model, torch.tensor(text)).sum() for text in texts])
    assert_close(log_prob(model, texts, tokens_per_batch=tokens_per_batch), want, rtol=0, atol=1e-9)


def test_equal_texts_are_scored_once_and_progress_counts_them_once(model):
    seen = []
    log_prob(model, [[1, 4, 5], [1, 4, 5], [1, 6]], tokens_per_batch=2, progress=lambda done, all: seen.append((done, all)))
    assert seen == [(2, 3), (3, 3)]


def test_dropout_is_off_and_the_modes_are_put_back(model):
    model.train()
    model.cell.eval()
    text = [BOS, *range(3, 11)]
    assert log_prob(model, [text]) == log_prob(model, [text])
    assert (model.training, model.drop.training, model.cell.training) == (True, True, False)


def test_scores_of_a_16_bit_model_are_not_rounded_to_16_bits():
    table = torch.randn(50, 50, generator=torch.Generator().manual_seed(3)).bfloat16()
    texts = [[0, *torch.randperm(50, generator=torch.Generator().manual_seed(seed)).tolist()] for seed in range(20)]
    exact = table.double().log_softmax(-1)
    want = torch.stack([exact[text[:-1], text[1:]].sum() for text in texts])
    assert_close(log_prob(Bigram(table), texts), want, rtol=0, atol=1e-4)


def test_permuted_texts_tie_exactly_for_a_model_blind_to_order():
    table = torch.randn(40, generator=torch.Generator().manual_seed(4)).expand(40, 40)
    texts = [[0, *torch.randperm(40, generator=torch.Generator().manual_seed(seed)).tolist()] for seed in range(30)]
    assert log_prob(Bigram(table), [*texts, [0, 3]], tokens_per_batch=90)[:30].unique().numel() == 1


def test_logits_stay_within_the_limit(monkeypatch):
    monkeypatch.setattr(scoring, "LOGITS_BYTES", 4 * 11 * 6)  # 6 tokens
    monkeypatch.setattr(scoring, "SOFTMAX_BYTES", 4 * 11 * 4)
    torch.manual_seed(0)
    model, shapes = GRU(), []
    model.register_forward_hook(lambda module, inputs, output: shapes.append(output[0].shape[:2].numel()))
    texts = [[BOS, *range(3, 11)] * 3, [BOS, 4, 5], [BOS, 5, 4]]
    ids, ends = documents((20, 3, 9))
    got = log_prob(model, texts), stream_nats(model, ids, ends, bos=BOS, eos=EOS, length=16, carry=True).nats
    assert max(shapes) <= 6
    monkeypatch.undo()
    want = log_prob(model, texts), stream_nats(model, ids, ends, bos=BOS, eos=EOS, length=16, carry=True).nats
    assert_close(got, want, rtol=0, atol=1e-9)


def test_state_stays_within_the_limit(monkeypatch):
    monkeypatch.setattr(scoring, "STATE_BYTES", 8 * 6 * 2)  # 2 rows
    torch.manual_seed(0)
    model, batches = GRU(), []
    model.register_forward_hook(lambda module, inputs, output: batches.append(len(output[0])))
    log_prob(model, [[BOS, token] for token in range(3, 11)])
    ids, ends = documents((4,) * 9)
    stream_nats(model, ids, ends, bos=BOS, eos=EOS, length=16, carry=True)
    assert max(batches) == 2


def test_token_nats_widens_each_block(monkeypatch):
    monkeypatch.setattr(scoring, "SOFTMAX_BYTES", 4 * 7 * 3)
    logits, targets = torch.randn(3, 5, 7).half(), torch.randint(0, 7, (3, 5))
    want = -logits.float().log_softmax(-1).gather(-1, targets[..., None])[..., 0]
    got = token_nats(logits, targets)
    assert got.dtype == torch.float32
    assert_close(got, want)


@pytest.mark.parametrize("rows", [1, 2, 3, 50])
@pytest.mark.parametrize("length", [2, 5, 64])
@pytest.mark.parametrize("sizes", [(17, 0, 4, 33, 1, 8, 8), (9, 8, 8)])
def test_carried_documents_equal_each_document_alone(model, sizes, rows, length):
    ids, ends = documents(sizes)
    stored = ids.numpy().astype("uint16")
    stored.flags.writeable = False  # as a corpus mapped from a file is
    found = stream_nats(model, stored, ends.numpy(), bos=BOS, eos=EOS, length=length, carry=True, rows=rows)
    texts = whole(ids, ends)
    assert_close(found.nats, torch.cat([alone(model, text) for text in texts]), rtol=0, atol=1e-9)
    assert found.targets.tolist() == torch.cat([text[1:] for text in texts]).tolist()
    assert found.documents.bincount().tolist() == [len(text) - 1 for text in texts]


@pytest.mark.parametrize("length", [2, 3, 8, 9, 34, 100])
def test_windows_score_each_token_once_with_half_a_window_of_past(length):
    torch.manual_seed(0)
    model = Past()
    ids, ends = documents((17, 0, 4, 33, 1, 8))
    found = stream_nats(model, ids, ends, bos=BOS, eos=EOS, length=length, carry=False, rows=3)
    want = []
    for text in whole(ids, ends):
        for target in range(1, len(text)):
            windows = [start for start in range(0, len(text), length // 2) if start < target <= start + length]
            start = windows[0]  # the earliest window that reaches the target gives it the longest past
            assert target - start >= min(target, length / 2)
            want.append(alone(model, text[start : target + 1])[-1])
    assert_close(found.nats, torch.stack(want), rtol=0, atol=1e-9)


def test_both_ways_agree_where_a_window_holds_the_document(model):
    ids, ends = documents((17, 3, 9))
    carried, windowed = (stream_nats(model, ids, ends, bos=BOS, eos=EOS, length=18, carry=carry) for carry in (True, False))
    assert_close(carried.nats, windowed.nats, rtol=0, atol=1e-9)


@pytest.mark.parametrize("carry", [True, False])
@pytest.mark.parametrize("limit", [1, 5, 6, 17, 1000])
def test_a_limit_scores_the_first_targets(model, carry, limit):
    ids, ends = documents((5, 9, 7))
    full = stream_nats(model, ids, ends, bos=BOS, eos=EOS, length=8, carry=carry)
    part = stream_nats(model, ids, ends, bos=BOS, eos=EOS, length=8, carry=carry, limit_tokens=limit)
    assert len(part.nats) == min(limit, 24)
    assert part.targets.tolist() == full.targets[:limit].tolist()
    assert part.documents.tolist() == full.documents[:limit].tolist()
    assert_close(part.nats, full.nats[:limit], rtol=0, atol=1e-9)


def test_a_piece_in_which_no_document_starts_has_no_reset(model):
    resets = []
    model.register_forward_pre_hook(lambda module, inputs: resets.append(inputs[2:]))
    ids, ends = documents((30, 30, 14))
    stream_nats(model, ids, ends, bos=BOS, eos=EOS, length=10, carry=True, rows=2)
    assert [reset is not None for (reset,) in resets[1:]] == [False, False, False, True, False]


def test_carried_rows_are_even_and_progress_ends_at_the_number_of_targets(model):
    ids, ends = documents((9, 9, 9, 9, 19, 19))
    seen, shapes = [], []
    model.register_forward_hook(lambda module, inputs, output: shapes.append(tuple(output[0].shape[:2])))
    stream_nats(model, ids, ends, bos=BOS, eos=EOS, length=10, carry=True, rows=4, progress=lambda done, all: seen.append((done, all)))
    assert seen == [(40, 80), (80, 80)]
    assert shapes == [(1, 1), (4, 10), (4, 10)]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: log_prob(m, [[1, 2], []]), "text 1 of 2 is empty"),
        (lambda m: log_prob(m, [[1, 11]]), "token id 11 is not among the model's 11"),
        (lambda m: log_prob(m, [[-1, 3]]), "token id -1 is not"),
        (lambda m: log_prob(m, [[1, 3]], tokens_per_batch=0), "at least 1 token, found 0"),
        (lambda m: stream_nats(m, *documents((3,)), bos=1, eos=2, length=1, carry=False), "length must be at least 2"),
        (lambda m: stream_nats(m, *documents((3,)), bos=1, eos=2, length=8, carry=True, rows=0), "rows must be at least 1"),
        (lambda m: stream_nats(m, *documents((3,)), bos=1, eos=2, length=8, carry=True, limit_tokens=0), "limit_tokens must be"),
        (lambda m: stream_nats(m, torch.tensor([3, 4]), [3, 2], bos=1, eos=2, length=8, carry=True), "a document ends at 3"),
        (lambda m: stream_nats(m, torch.tensor([3, 4]), [1], bos=1, eos=2, length=8, carry=True), "the last of 1 documents ends at 1"),
        (lambda m: stream_nats(m, torch.tensor([3, 4]), [], bos=1, eos=2, length=8, carry=True), "there is no document"),
        (lambda m: stream_nats(m, torch.tensor([3, 11]), [2], bos=1, eos=2, length=8, carry=True), "token id 11 is not among"),
    ],
)
def test_bad_input(model, call, message):
    with pytest.raises(InputError, match=message):
        call(model)
