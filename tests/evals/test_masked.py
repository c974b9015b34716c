"""Pseudo-log-likelihoods by hand: a masked model that says which tokens it sees."""

import math

import pytest
import tokenizers
import torch
from tokenizers import models, pre_tokenizers, processors

from ritornello.data.tokenizers import LibraryTokenizer
from ritornello.errors import InputError
from ritornello.evals import masked
from ritornello.evals.masked import MaskedSubject
from ritornello.evals.subject import Request

WORDS = ["[CLS]", "[SEP]", "[MASK]", "a", "b", "c", "##b", "##c", "."]
CLS, SEP, MASK = range(3)


@pytest.fixture
def letters() -> LibraryTokenizer:
    """ "abc a." is a ##b ##c, a, full stop: three words."""
    raw = tokenizers.Tokenizer(models.WordPiece({word: index for index, word in enumerate(WORDS)}, unk_token="c"))
    raw.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    raw.add_special_tokens(WORDS[:3])
    raw.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=[("[CLS]", CLS), ("[SEP]", SEP)])
    return LibraryTokenizer(raw, (CLS, SEP))


class Seeing:
    """p(any token) is 2 to the power of minus the tokens that are hidden nowhere in the text; what it was asked is kept."""

    mask = MASK

    def __init__(self):
        self.asked = []

    def __call__(self, texts):
        self.asked += [text.tolist() for text in texts]
        logits = torch.zeros(len(texts), max(map(len, texts)), len(WORDS))
        for row, text in enumerate(texts):
            chance = 0.5 ** int((text != MASK).sum())
            for place in (text == MASK).nonzero().flatten().tolist():
                logits[row, place, 3:] = math.log(chance)
                logits[row, place, :3] = math.log((1 - 6 * chance) / 3)
        return logits


def subject(letters, protocol="ritornello", model=None) -> MaskedSubject:
    return MaskedSubject(model or Seeing(), letters, "seeing", "0", protocol)


def bits(found: torch.Tensor) -> list[float]:
    return (found / math.log(0.5)).tolist()


def test_one_token_at_a_time(letters):
    """Five tokens: each time one of [CLS] a ##b ##c a . [SEP] is hidden, and six are seen."""
    tried = subject(letters)
    assert bits(tried.log_probs([Request("abc a.")])) == pytest.approx([5 * 6])
    assert sorted(tried.model.asked) == sorted(
        [
            [CLS, MASK, 6, 7, 3, 8, SEP],
            [CLS, 3, MASK, 7, 3, 8, SEP],
            [CLS, 3, 6, MASK, 3, 8, SEP],
            [CLS, 3, 6, 7, MASK, 8, SEP],
            [CLS, 3, 6, 7, 3, MASK, SEP],
        ]
    )


def test_the_rest_of_a_word_is_hidden_with_it(letters):
    tried = subject(letters, "within-word")
    assert bits(tried.log_probs([Request("abc a.")])) == pytest.approx([4 + 5 + 6 + 6 + 6])
    assert [CLS, MASK, MASK, MASK, 3, 8, SEP] in tried.model.asked
    assert [CLS, 3, MASK, MASK, 3, 8, SEP] in tried.model.asked


def test_only_what_is_asked_for_is_hidden(letters):
    """From character 1 on, inside the first word; the token that has it counts whole."""
    tried = subject(letters)
    requests = [Request("abc a.", 1), Request("abc a.", 4), Request("ab")]
    assert bits(tried.log_probs(requests)) == pytest.approx([4 * 6, 2 * 6, 2 * 3])
    assert tried.counts(requests).tolist() == [4, 2, 2]


def test_equal_requests_are_scored_once(letters, monkeypatch):
    tried, shown = subject(letters), []
    requests = [Request("ab"), Request("abc a."), Request("ab"), Request("ab", 1)]
    monkeypatch.setattr(masked, "LOGITS_BYTES", 4 * len(WORDS) * 7 * 2)  # two rows of the longest text, three of the shorter ones
    assert bits(tried.log_probs(requests, lambda done, whole: shown.append((done, whole)))) == pytest.approx([6, 30, 6, 3])
    assert len(tried.model.asked) == 5 + 2 + 1
    assert shown == [(2, 8), (4, 8), (6, 8), (8, 8)]


def test_what_cannot_be_scored(letters):
    with pytest.raises(InputError, match="text 1 of 2 has no token to score"):
        subject(letters).log_probs([Request("a"), Request(" ")])
    with pytest.raises(InputError, match=r"unknown protocol 'within'\. Did you mean 'within-word'"):
        subject(letters, "within").counts([Request("a")])
    with pytest.raises(InputError, match="surrogate"):
        subject(letters).counts([Request("a\ud800")])
    with pytest.raises(InputError, match="a masked model, which does not write"):
        subject(letters).greedy([Request("a")])
    lost = subject(letters, model=lambda texts: torch.full((len(texts), 7, len(WORDS)), torch.nan))
    lost.model.mask = MASK
    assert lost.log_probs([Request("abc a.")]).isnan().all()


def test_the_2024_space(letters):
    """A space before a text that is scored whole: it makes no token here, and moves no place."""
    assert subject(letters, "official-2024").counts([Request("abc a."), Request("abc a.", 4)]).tolist() == [5, 2]
