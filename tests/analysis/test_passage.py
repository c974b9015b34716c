import math
import unicodedata
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from ritornello.analysis.passage import passage, surprisal, visible
from ritornello.errors import InputError

WRITTEN = st.text(
    st.one_of(st.sampled_from("aב שָׁ\n\u200d👩🏽🇫🇷é\u0301\u05b0नि"), st.characters(exclude_categories=["Cs"])), min_size=1, max_size=40
)


def cut(text: str, cuts: list[int]) -> list[bytes]:
    raw = text.encode()
    ends = sorted({*(at % len(raw) for at in cuts), 0, len(raw)})
    return [raw[start:end] for start, end in pairwise(ends)]


def draw(spelled: list[bytes]) -> dict:
    nats = [0.1 + 0.37 * index for index in range(len(spelled))]
    return passage(nats, range(len(spelled)), spelled, [[(index, 0.5)] for index in range(len(spelled))])


@settings(deadline=None)
@given(WRITTEN, st.lists(st.integers(0, 1000), max_size=60))
def test_pieces_spell_the_text_and_keep_every_bit(text, cuts):
    spelled = cut(text, cuts)
    shown = draw(spelled)
    pieces = shown["pieces"]
    assert "".join(piece[0] for piece in pieces) == text
    assert sum(piece[1] for piece in pieces) == len(spelled) == shown["tokens"]
    total = sum(0.1 + 0.37 * index for index in range(len(spelled)))
    assert math.isclose(sum(piece[2] for piece in pieces), total / math.log(2), rel_tol=1e-12)
    assert math.isclose(shown["nats_per_token"] * shown["tokens"], total, rel_tol=1e-12)
    assert math.isclose(shown["bits_per_byte"] * len(text.encode()), total / math.log(2), rel_tol=1e-12)


@settings(deadline=None)
@given(WRITTEN, st.lists(st.integers(0, 1000), max_size=60))
def test_no_piece_begins_with_a_mark(text, cuts):
    pieces = [piece[0] for piece in draw(cut(text, cuts))["pieces"]]
    for before, after in pairwise(pieces):
        assert before.endswith("\n") or not unicodedata.category(after[0]).startswith("M")
        assert not before.endswith("\u200d")


@settings(deadline=None)
@given(WRITTEN, st.lists(st.integers(0, 1000), max_size=60))
def test_guesses_are_those_of_the_first_token(text, cuts):
    spelled = cut(text, cuts)
    first = 0
    for piece in draw(spelled)["pieces"]:
        assert piece[3] == [[visible(spelled[first]), 0.5]]
        first += piece[1]


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("שָׁלוֹם", ["שָׁ", "ל", "וֹ", "ם"]),
        ("नमस्ते", ["न", "म", "स्", "ते"]),
        ("👩‍👩‍👧!", ["👩‍👩‍👧", "!"]),
        ("👍🏽👍", ["👍🏽", "👍"]),
        ("🇫🇷🇩🇪", ["🇫🇷", "🇩🇪"]),
        ("❤️a", ["❤️", "a"]),
        ("\n\u05b0a", ["\n", "\u05b0", "a"]),
    ],
)
@pytest.mark.parametrize("unit", ["bytes", "characters"])
def test_characters_stay_whole(text, pieces, unit):
    spelled = [bytes([byte]) for byte in text.encode()] if unit == "bytes" else [char.encode() for char in text]
    assert [piece[0] for piece in draw(spelled)["pieces"]] == pieces


@pytest.mark.parametrize(
    ("spelled", "pieces"),
    [
        ([b"a", b"\xff", b"b"], [("a", 1), ("\\xff", 1), ("b", 1)]),
        ([b"a", b"\xe2", b"\x82"], [("a", 1), ("\\xe2\\x82", 2)]),
        ([b"\xe2", b"a"], [("\\xe2a", 2)]),
        ([b"a", b"", b"\xd6", b"", b"\xb0"], [("a", 1), ("", 1), ("\\xd6", 1), ("", 1), ("\\xb0", 1)]),
    ],
)
def test_broken_bytes_are_spelled_and_special_tokens_stand_alone(spelled, pieces):
    assert [(piece[0], piece[1]) for piece in draw(spelled)["pieces"]] == pieces


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (b" the", "␣the"),
        (b"\n\n", "↵↵"),
        (b"\t", "⇥"),
        (b"\xff", "\\xff"),
        (b"", "∎"),
        ("\u05b0".encode(), "◌\u05b0"),
        ("\u200f".encode(), "\\u200f"),
    ],
)
def test_visible(raw, text):
    assert visible(raw) == text


@pytest.mark.parametrize(("nats", "tokens", "guesses"), [([], [], []), ([1.0], [0, 0], [[], []]), ([1.0, 1.0], [0, 0], [[]])])
def test_unequal_lengths_are_refused(nats, tokens, guesses):
    with pytest.raises(InputError, match="need as many of each"):
        passage(nats, tokens, [b"a"], guesses)


class Decaying(nn.Module):
    """A model whose state is a decayed sum of embeddings, (1, D)."""

    def __init__(self, dtype: torch.dtype = torch.float32):
        super().__init__()
        generator = torch.Generator().manual_seed(3)
        self.embed = nn.Parameter(torch.randn(11, 6, generator=generator))
        self.dtype = dtype

    def init_state(self, batch: int) -> torch.Tensor:
        return torch.full((batch, 6), 0.3)

    def forward(self, tokens: torch.Tensor, state: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        logits = []
        for token in tokens[0]:
            state = 0.8 * state + self.embed[token]
            logits.append(state @ self.embed.T)
        return torch.stack(logits, 1).to(self.dtype), state


class Tokens:
    bos = 10


IDS = [3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8, 9]


@pytest.mark.parametrize("length", [1, 4, 13, 512])
def test_surprisal_is_minus_log_p_however_it_is_cut(length):
    model = Decaying()
    nats, guesses = surprisal(model, Tokens, IDS, length=length)
    with torch.no_grad():
        log_p = model(torch.tensor([[Tokens.bos, *IDS[:-1]]]), model.init_state(1))[0][0].log_softmax(-1)
    assert nats == pytest.approx([-log_p[at, token].item() for at, token in enumerate(IDS)], abs=1e-5)
    for at, likely in enumerate(guesses):
        want = log_p[at].exp().topk(5)
        assert [token for token, _ in likely] == want.indices.tolist()
        assert [p for _, p in likely] == pytest.approx(want.values.tolist(), abs=1e-5)


def test_surprisal_of_rounded_logits_is_not_rounded_again():
    nats, _ = surprisal(Decaying(torch.bfloat16), Tokens, IDS)
    model = Decaying(torch.bfloat16)
    with torch.no_grad():
        logits = model(torch.tensor([[Tokens.bos, *IDS[:-1]]]), model.init_state(1))[0][0].double()
    assert nats == pytest.approx([-logits.log_softmax(-1)[at, token].item() for at, token in enumerate(IDS)], abs=1e-5)


def test_surprisal_needs_tokens_and_has_no_more_guesses_than_the_vocabulary():
    with pytest.raises(InputError, match="at least one token"):
        surprisal(Decaying(), Tokens, [])
    assert [len(likely) for likely in surprisal(Decaying(), Tokens, [1], top=99)[1]] == [11]
