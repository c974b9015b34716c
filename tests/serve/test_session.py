"""Sessions as values: split feeding, forks, seeds, stopping, and text that is exact to the byte."""

import math
import weakref
from dataclasses import replace
from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from ritornello.data.tokenizers import ByteTokenizer
from ritornello.errors import InputError
from ritornello.serve.session import PIECE, Session, start, stream, text_stream
from ritornello.state import flatten, nbytes, unflatten

BOS, EOS, VOCAB = 0, 1, 23


class Memory(NamedTuple):
    h: Tensor


class Tiny(nn.Module):
    """A CausalLM with a state that matters."""

    def __init__(self, vocab=VOCAB):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(3)
            self.embedding, self.gru, self.head = nn.Embedding(vocab, 16), nn.GRU(16, 16, batch_first=True), nn.Linear(16, vocab)
            self.gru.flatten_parameters()
            nn.init.normal_(self.head.weight, std=2)
        self.double().eval()

    def init_state(self, batch):
        return Memory(torch.full((batch, 16), 0.5, dtype=torch.float64))

    def forward(self, tokens, state, reset=None):
        y, h = self.gru(self.embedding(tokens), state.h[None])
        return self.head(y), Memory(h[0])


class Script(nn.Module):
    """Writes its text byte by byte, then EOS, whatever it is fed; the state counts."""

    def __init__(self, ids):
        super().__init__()
        self.ids = ids

    def init_state(self, batch):
        return torch.full((batch,), -1)

    def forward(self, tokens, state, reset=None):
        place = state[:, None] + 1 + torch.arange(tokens.shape[1])
        ids = torch.tensor([*self.ids, 256])[place.clamp(max=len(self.ids))]
        return nn.functional.one_hot(ids, 257).double().log(), place[:, -1]


def written(session, n=30, **options):
    return [token for token, _ in stream(session, max_tokens=n, stop=options.pop("stop", None), **options)]


@pytest.fixture
def session():
    return start(Tiny(), BOS, seed=7).feed([5, 6, 7])


TEXT = [int(id) for id in torch.randint(2, VOCAB, (PIECE * 2 + 30,), generator=torch.Generator().manual_seed(0))]


@pytest.mark.parametrize("cuts", [(1, 2, 27), (29, 1), (PIECE, 1), (PIECE + 1,), (PIECE * 2, 30)])
def test_split_feeding_equals_one_feeding_and_one_pass_of_the_model(session, cuts):
    text = TEXT[: sum(cuts)]
    with torch.no_grad():
        logits, state = session.engine(torch.tensor([text]), session.state)
    whole, parts = session.feed(text), session
    for size in cuts:
        parts, text = parts.feed(text[:size]), text[size:]
    for got in whole, parts:
        assert_close(got.logits, logits[0, -1])
        assert_close(got.state.h, state.h)
        assert got.count == 3 + sum(cuts)
        assert got.seed == 7


def test_start_is_the_model_after_bos():
    model = Tiny()
    got = start(model, BOS, seed=1)
    logits, _ = model(torch.tensor([[BOS]]), model.init_state(1))
    assert_close(got.logits, logits[0, 0].detach())
    assert (got.count, got.logits.requires_grad) == (0, False)


def test_feeding_nothing_changes_nothing_and_feeding_leaves_the_old_session(session):
    assert session.feed([]) is session
    logits, h = session.logits.clone(), session.state.h.clone()
    session.feed([9, 10])
    written(session)
    assert torch.equal(session.logits, logits)
    assert torch.equal(session.state.h, h)
    assert session.count == 3


def test_a_fork_is_independent_and_draws_what_its_origin_draws(session):
    want = written(session)
    other = session.feed([4])
    assert written(other) != want
    assert written(session) == want
    steps = list(stream(session, max_tokens=30, stop=None))
    for at in (0, 11, 28):
        assert written(steps[at][1], 29 - at) == want[at + 1 :]


def test_two_streams_of_one_session_may_take_turns(session):
    pairs = zip(stream(session, max_tokens=30, stop=None), stream(session, max_tokens=30, stop=None), strict=True)
    assert all(left[0] == right[0] for left, right in pairs)


def test_a_restored_session_draws_the_same(session):
    flat = {name: leaf.clone() for name, leaf in flatten(session.state).items()}
    model = Tiny()
    again = Session(model, unflatten(model.init_state(1), flat), session.logits.clone(), session.seed, session.count)
    assert written(again) == written(session)


def test_the_seed_and_the_place_decide_and_nothing_else(session):
    model = Tiny()
    want = written(start(model, BOS, seed=7).feed([5, 6, 7]))
    torch.manual_seed(99)
    assert written(session) == want
    assert len({tuple(written(start(model, BOS, seed=seed))) for seed in range(10)}) == 10
    uniform = [torch.rand(1, generator=replace(session, count=place).generator()).item() for place in range(200)]
    assert len(set(uniform)) == 200
    assert abs(sum(uniform) / 200 - 0.5) < 0.1


@pytest.mark.parametrize("seed", [-1, 0, 2**64, 10**30])
def test_any_whole_number_is_a_seed(seed):
    assert len(written(start(Tiny(), BOS, seed), 5)) == 5


def test_greedy_takes_the_largest_logit(session):
    at = session
    for token, after in stream(session, temperature=0, max_tokens=20, stop=None):
        assert token == int(at.logits.argmax())
        at = after


def test_the_drawn_tokens_follow_the_models_probabilities():
    model = Tiny()
    drawn = torch.tensor([written(start(model, BOS, seed), 1)[0] for seed in range(1500)])
    want = start(model, BOS, 0).logits.softmax(0)
    assert_close(torch.bincount(drawn, minlength=VOCAB) / 1500, want.float(), atol=5 * math.sqrt(0.25 / 1500), rtol=0)


def test_settings_reach_the_sampler(session):
    greedy = written(session, temperature=0)
    assert written(session) != greedy
    for options in {"temperature": 1e-9}, {"top_k": 1}, {"top_p": 1e-9}:
        assert written(session, **options) == greedy
    begin = start(Tiny(257), 256, 5)
    text = bytes(written(begin, temperature=0, stop=256)).decode("utf-8", "replace")
    for options in {"temperature": 0}, {"top_k": 1}, {"top_p": 1e-9}:
        assert "".join(text_stream(begin, ByteTokenizer(), max_tokens=30, **options)) == text


def test_stop_ends_the_stream_and_is_neither_yielded_nor_fed(session):
    free = written(session, 200)
    cut = free.index(EOS)
    steps = list(stream(session, max_tokens=200, stop=EOS))
    assert [token for token, _ in steps] == free[:cut]
    assert steps[-1][1].count == session.count + cut
    assert len(written(session, cut, stop=EOS)) == cut
    assert written(session, 0) == []


def test_memory_does_not_grow(session):
    first, size = None, set()
    for _, at in stream(session.feed(TEXT), max_tokens=200, stop=None):
        first = first or weakref.ref(at)
        size.add(nbytes(at.state) + at.logits.untyped_storage().nbytes())
    assert first() is None
    assert size == {16 * 8 + VOCAB * 8}
    assert session.feed(TEXT).logits.untyped_storage().nbytes() == VOCAB * 8


def test_streaming_leaves_the_callers_gradients_alone(session):
    steps = stream(session, max_tokens=3, stop=None)
    next(steps)
    assert torch.is_grad_enabled()
    assert not next(steps)[1].state.h.requires_grad


def says(data, n=100, prompt=""):
    tokenizer = ByteTokenizer()
    return list(text_stream(start(Script([*([0] * len(prompt.encode())), *data]), tokenizer.bos, 0), tokenizer, prompt, max_tokens=n))


@pytest.mark.parametrize("text", ["plain", "naïve Füße", "שלום עולם", "日本語。", "🙂👩‍👩‍👧 e\u0301", "a\x00b\r\n\u2028"])
def test_characters_of_many_bytes_come_whole(text):
    assert says(text.encode()) == list(text)
    assert says(text.encode(), prompt="ש<|endoftext|>") == list(text)


def test_bytes_that_are_no_text_become_the_replacement_character():
    for data in (b"a\xffb", b"\xe2\x82", b"x\xf0\x9f\x99", b"\xc3(", b"\x80\x80"):
        assert "".join(says(data)) == data.decode("utf-8", "replace")
    assert says("é".encode(), n=1) == ["\ufffd"]
    assert says(b"") == []


class Words:
    """A tokenizer whose ids are whole pieces of bytes, cut within characters, with BOS apart from EOS."""

    token_bytes = (b"", b"", b"\xe2", b"\x82\xac!", b" caf\xc3", b"\xa9", b"ok")
    size, bos, eos = 7, 0, 1

    def encode(self, text):
        return [6] * len(text)


class Table(nn.Module):
    """A bigram model that follows one path; it has no state at all."""

    def init_state(self, batch):
        return ()

    def forward(self, tokens, state, reset=None):
        follow = torch.tensor([6, 0, 3, 4, 5, 1, 2])
        return nn.functional.one_hot(follow[tokens], 7).double().log(), state


def test_pieces_cut_within_characters_and_special_ids_give_no_text():
    tokenizer = Words()
    assert list(text_stream(start(Table(), 0, 0), tokenizer, max_tokens=9)) == ["ok", "€!", " caf", "é"]
    assert list(text_stream(start(Table(), 0, 0), tokenizer, "p", max_tokens=9)) == ["€!", " caf", "é"]
    assert list(text_stream(start(Table(), 1, 0), tokenizer, max_tokens=3)) == ["ok", "\ufffd"]  # BOS, ok, half a character


def test_a_special_name_in_a_prompt_is_text():
    model, tokenizer = Tiny(257), ByteTokenizer()
    begin = start(model, tokenizer.bos, 5)
    fed = begin.feed(list(b"<|endoftext|>"))
    want = bytes(written(fed, 40, stop=256)).decode("utf-8", "replace")
    assert "".join(text_stream(begin, tokenizer, "<|endoftext|>", max_tokens=40)) == want


def test_bad_input_is_refused_at_once(session):
    for token in (-1, VOCAB):
        with pytest.raises(InputError, match="ids from 0 to 22"):
            session.feed([2, token])
    with pytest.raises(InputError, match="max tokens"):
        stream(session, max_tokens=-1, stop=None)
    with pytest.raises(InputError, match="temperature"):
        stream(session, temperature=-1, max_tokens=1, stop=None)
    with pytest.raises(InputError, match="the model knows 23 ids, the tokenizer 257"):
        text_stream(session, ByteTokenizer(), max_tokens=1)
    with pytest.raises(InputError, match="top-p"):
        text_stream(start(Tiny(257), 256, 0), ByteTokenizer(), top_p=2.0, max_tokens=1)
