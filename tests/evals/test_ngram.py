"""The n-gram baseline: its laws, a slow twin that follows the paper word by word, numbers counted by hand."""

import tracemalloc
from collections import Counter, defaultdict
from fractions import Fraction
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from ritornello.errors import InputError
from ritornello.evals.ngram import NGram, choose_order, fit

BOS, EOS = 0, 1
START = "<s>"  # the slow twin's own name for BOS, so that bos == eos needs no special case there


def pack(documents):
    """Lists of ids as (ids, ends)."""
    ends = np.cumsum([len(document) for document in documents], dtype=np.int64)
    return np.array([token for document in documents for token in document], np.int64), ends


class Slow:
    """The same model from dictionaries of n-grams, by recursion from long to short contexts."""

    def __init__(self, documents, vocab, order, bos, eos):
        self.order, self.targets = order, [token for token in range(vocab) if token != bos or bos == eos]
        seen = Counter()
        for document in documents:
            text = [START, *document, eos]
            for length in range(1, order + 2):
                seen.update(tuple(text[place : place + length]) for place in range(len(text) - length + 1))
        seen.pop((START,), None)
        self.counts = {length: {gram: n for gram, n in seen.items() if len(gram) == length} for length in range(1, order + 1)}
        for length in range(1, order):
            before = defaultdict(set)
            for gram in seen:
                if len(gram) == length + 1:
                    before[gram[1:]].add(gram[0])
            self.counts[length] = {gram: n if gram[0] == START else len(before[gram]) for gram, n in self.counts[length].items()}
        self.discounts = {length: self.discount(list(counts.values())) for length, counts in self.counts.items()}

    @staticmethod
    def discount(counts):
        n = [counts.count(j) for j in range(5)]
        fallback = {1: Fraction(1, 2), 2: Fraction(1), 3: Fraction(3, 2)}
        if n[1] == 0 or n[2] == 0:
            return fallback
        y = Fraction(n[1], n[1] + 2 * n[2])
        estimates = {j: j - (j + 1) * y * Fraction(n[j + 1], n[j]) if n[j] else None for j in (1, 2, 3)}
        return {j: d if d is not None and 0 < d < j else fallback[j] for j, d in estimates.items()}

    def p(self, token, context):
        """Exactly, as a Fraction; `context` is at most order - 1 long and has START for BOS."""
        lower = self.p(token, context[1:]) if context else Fraction(1, len(self.targets))
        counts, discounts = self.counts[len(context) + 1], self.discounts[len(context) + 1]
        follow = {gram[-1]: n for gram, n in counts.items() if gram[:-1] == context}
        if not follow:
            return lower
        spare = sum(discounts[min(n, 3)] for n in follow.values())
        own = follow[token] - discounts[min(follow[token], 3)] if token in follow else 0
        return (own + spare * lower) / sum(follow.values())

    def document(self, document, eos):
        text = [START, *document, eos]
        return [self.p(text[place], tuple(text[max(0, place - self.order + 1) : place])) for place in range(1, len(text))]


@st.composite
def corpora(draw):
    """(training documents, other documents, vocab, order, bos, eos); the special ids lie below or above the words."""
    words, specials = draw(st.integers(1, 5)), draw(st.integers(1, 2))
    low = specials if draw(st.booleans()) else 0
    bos = 0 if low else words
    documents = st.lists(st.integers(low, low + words - 1), max_size=12)
    train, text = draw(st.lists(documents, min_size=1, max_size=6)), draw(st.lists(documents, max_size=3))
    return train, text, words + specials, draw(st.integers(1, 5)), bos, bos + specials - 1


@settings(max_examples=100, deadline=None)
@given(corpora())
def test_agrees_with_the_slow_twin(case):
    train, text, vocab, order, bos, eos = case
    model, slow = fit(*pack(train), vocab, order, bos=bos, eos=eos), Slow(train, vocab, order, bos, eos)
    want = [float(p) for document in text for p in slow.document(document, eos)]
    assert_allclose(np.exp(-model.nats(*pack(text))), want, rtol=1e-9)
    for document in [*train, *text]:
        for start, context in ([START], [bos, *document]), ([], document):
            past = tuple([*start, *document][max(0, len(start) + len(document) + 1 - order) :])
            want = [float(slow.p(token, past)) if token in slow.targets else 0 for token in range(vocab)]
            assert_allclose(model.probabilities(context), want, rtol=1e-9)


@settings(max_examples=50, deadline=None)
@given(corpora())
def test_probabilities_sum_to_one_for_every_context_and_are_positive(case):
    train, _, vocab, order, bos, eos = case
    model = fit(*pack(train), vocab, order, bos=bos, eos=eos)
    for length in range(4):
        for context in product(range(min(vocab, 5)), repeat=length):
            p = model.probabilities(list(context))
            assert_allclose(p.sum(), 1, rtol=1e-12)
            assert (p > 0).sum() == (vocab if eos == bos else vocab - 1)


def test_the_end_of_a_document_is_not_a_beginning():
    model = fit(*pack([[2], [2, 3]]), 4, 2, bos=EOS, eos=EOS)
    assert_allclose(model.probabilities([2, EOS]), model.probabilities([]), rtol=0)
    assert model.probabilities([EOS])[2] > model.probabilities([2, EOS])[2]


def test_hand_counted_bigrams():
    """Documents a b a | a | b b. Ids: a 2, b 3, and 4 that never occurs; targets are EOS, a, b, 4.

    Bigrams: (BOS a) 2, (BOS b) 1, (a b) 1, (b a) 1, (a EOS) 2, (b b) 1, (b EOS) 1: n_1 = 5, n_2 = 2, so Y = 5/9,
    D[1] = 1 - 2 Y 2/5 = 5/9 and D[2] = 2 - 3 Y 0/2 = 2, which would take all, so it is 1.
    Different tokens before: a 2 (BOS, b), b 3 (BOS, a, b), EOS 2 (a, b): n_1 = 0, so the discounts are 1/2, 1, 3/2.
    """
    model = fit(*pack([[2, 3, 2], [2], [3, 3]]), 5, 2, bos=BOS, eos=EOS)
    unigram = {EOS: Fraction(1, 7), 2: Fraction(1, 7), 3: Fraction(3, 14), 4: Fraction(0)}
    unigram = {token: own + Fraction(7, 2) / 7 * Fraction(1, 4) for token, own in unigram.items()}
    assert sum(unigram.values()) == 1
    spare = (Fraction(5, 9) + 1) / 3  # of BOS, and of a: one follower seen once, one seen twice
    after_start = [0, spare * unigram[EOS], Fraction(1, 3) + spare * unigram[2], Fraction(4, 27) + spare * unigram[3], spare * unigram[4]]
    after_a = [0, Fraction(1, 3) + spare * unigram[EOS], spare * unigram[2], Fraction(4, 27) + spare * unigram[3], spare * unigram[4]]
    assert_allclose(model.probabilities([BOS]), [float(p) for p in after_start], rtol=1e-12)
    assert_allclose(model.probabilities([3, 2]), [float(p) for p in after_a], rtol=1e-12)
    assert_allclose(model.probabilities([4]), [0, *(float(unigram[token]) for token in (EOS, 2, 3, 4))], rtol=1e-12)
    assert_allclose(model.nats(*pack([[2]])), [-np.log(float(after_start[2])), -np.log(float(after_a[EOS]))], rtol=1e-12)


def test_three_discounts_come_from_the_counts_of_counts():
    """Unigram counts: EOS 1, and ids seen 1, 1, 1, 2, 2, 3, 4, 5 times: n = 4, 2, 1, 1 and Y = 1/2."""
    tokens = [token for token, n in zip(range(2, 10), (1, 1, 1, 2, 2, 3, 4, 5), strict=True) for _ in range(n)]
    (level,) = fit(*pack([tokens]), 10, 1, bos=BOS, eos=EOS).levels
    assert_allclose(level.discounts, [0, 1 - 2 * 0.5 * 2 / 4, 2 - 3 * 0.5 * 1 / 2, 3 - 4 * 0.5 * 1 / 1])


def test_a_corpus_of_one_token():
    model = fit(*pack([[2]]), 3, 3, bos=BOS, eos=EOS)
    half = 0.5  # every discount is the fall-back for a count of 1
    unigram = (1 - half) / 2 + half * 0.5
    bigram = 1 - half + half * unigram
    assert_allclose(np.exp(-model.nats(*pack([[2]]))), [bigram, 1 - half + half * bigram], rtol=1e-12)


def test_contexts_do_not_cross_documents():
    split, joined = ([2, 3], [4, 5]), ([2, 3, 4, 5],)
    model = fit(*pack(split), 6, 3, bos=BOS, eos=EOS)
    other = fit(*pack(split[::-1]), 6, 3, bos=BOS, eos=EOS)
    assert_allclose(model.probabilities([2, 3]), other.probabilities([2, 3]), rtol=1e-12)
    assert model.probabilities([2, 3])[4] < model.probabilities([2, 3])[EOS]
    first, second = model.nats(*pack(split[:1])), model.nats(*pack(split[1:]))
    assert_allclose(model.nats(*pack(split)), [*first, *second], rtol=1e-12)
    assert len(model.nats(*pack(joined))) == 5


def test_empty_documents_and_no_text():
    model = fit(*pack([[], [2, 3], []]), 4, 3, bos=BOS, eos=EOS)
    assert model.probabilities([BOS])[EOS] > model.probabilities([BOS])[2]
    nats = model.nats(*pack([[], [2], []]))
    assert nats.shape == (4,)
    assert nats[0] == nats[3] == -np.log(model.probabilities([BOS])[EOS])
    assert model.nats(np.array([]), np.array([], np.int64)).shape == (0,)
    assert_allclose(fit(*pack([[]]), 4, 2, bos=BOS, eos=EOS).probabilities([2]).sum(), 1)


@pytest.mark.parametrize("dtype", [np.uint16, np.uint32, np.int64, np.uint64])
def test_the_type_of_the_ids_does_not_matter(dtype):
    ids, ends = pack([[65534, 65533, 65534], [65532]])
    model = fit(ids.astype(dtype), ends.astype(dtype), 65535, 3, bos=BOS, eos=BOS)
    assert_allclose(model.nats(ids.astype(dtype), ends.astype(dtype)), fit(ids, ends, 65535, 3, bos=BOS, eos=BOS).nats(ids, ends), rtol=0)


def text(seed, documents):
    """Documents of a second-order chain: the next token is mostly a function of the last two."""
    random = np.random.default_rng(seed)
    made = []
    for length in random.integers(5, 40, documents):
        document = [2, 3]
        for noise in random.random(length):
            document.append(2 + (3 * document[-1] + 5 * document[-2]) % 7 if noise < 0.9 else 2 + int(70 * noise) % 7)
        made.append(document)
    return made


def test_the_order_is_the_one_that_held_out_text_prefers():
    train, held = pack(text(1, 200)), pack(text(2, 50))
    choice = choose_order(train, held, 9, bos=BOS, eos=EOS, max_order=6)
    assert choice.model.order == 3
    assert list(choice.nats) == [1, 2, 3, 4]  # the fourth did worse, so it was the last
    for order, nats in choice.nats.items():
        assert_allclose(fit(*train, 9, order, bos=BOS, eos=EOS).nats(*held).mean(), nats, rtol=1e-12)
    assert_allclose(choice.model.nats(*held).mean(), min(choice.nats.values()), rtol=1e-12)


def test_bounds_on_order_and_memory():
    train, held = pack(text(1, 200)), pack(text(2, 50))
    assert list(choose_order(train, held, 9, bos=BOS, eos=EOS, max_order=2).nats) == [1, 2]
    choice = choose_order(train, held, 9, bos=BOS, eos=EOS, max_bytes=1)
    assert (choice.model.order, list(choice.nats)) == (1, [1])


def test_the_memory_bound_holds():
    random = np.random.default_rng(3)
    ids = random.integers(2, 60, 50_000)
    train, held = (ids, np.array([50_000])), (ids[:100], np.array([100]))  # seen text, so that longer is always better
    orders = set()
    for megabytes in (2, 3, 3.5, 5, 6, 6.5):
        tracemalloc.start()
        choice = choose_order(train, held, 60, bos=BOS, eos=EOS, max_bytes=int(megabytes * 2**20))
        orders.add(max(choice.nats))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak <= megabytes * 2**20
    assert orders == {2, 3, 4, 5}


def test_bytes_held_are_those_of_the_tables():
    model = fit(*pack([[2, 2]]), 3, 2, bos=BOS, eos=EOS)
    unigrams, bigrams = 4 + 1, 3 + 1  # ids and BOS, (BOS 2) (2 2) (2 EOS), and a sentinel each
    assert model.nbytes == unigrams * 12 + 4 * 8 + 1 * 16 + bigrams * 12 + 4 * 8 + unigrams * 16


GOOD = {"ids": [2, 3, 2], "ends": [2, 3], "vocab": 4, "order": 2, "bos": BOS, "eos": EOS}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"order": 0}, "expected 1 or more, found 0"),
        ({"ids": [2, 4, 2]}, "expected 0 to 3, found 2 to 4"),
        ({"ids": [2, -1, 2]}, "found -1 to 2"),
        ({"ids": [2, BOS, 2]}, "found BOS, 0,"),
        ({"ids": [2, EOS, 2]}, "found EOS, 1,"),
        ({"ids": [2.0, 3.0, 2.0]}, "whole numbers"),
        ({"ids": [[2, 3, 2]]}, "on one axis"),
        ({"ends": [2]}, "the number of ids, 3"),
        ({"ends": [3, 2, 3]}, "rising"),
        ({"ends": [-1, 3]}, "rising"),
        ({"ids": [], "ends": []}, "no documents"),
        ({"eos": 4}, "bos and eos from 0 to 3"),
    ],
)
def test_bad_input_is_refused(change, message):
    case = GOOD | change
    assert isinstance(fit(**{**GOOD, "ids": np.array(GOOD["ids"]), "ends": np.array(GOOD["ends"])}), NGram)
    with pytest.raises(InputError, match=message):
        fit(**{**case, "ids": np.array(case["ids"]), "ends": np.array(case["ends"])})


def test_bad_questions_are_refused():
    train = pack([[2, 3]])
    with pytest.raises(InputError, match="from 0 to 3"):
        fit(*train, 4, 2, bos=BOS, eos=EOS).probabilities([4])
    with pytest.raises(InputError, match="held-out text"):
        choose_order(train, pack([]), 4, bos=BOS, eos=EOS)
    with pytest.raises(InputError, match="max_order"):
        choose_order(train, train, 4, bos=BOS, eos=EOS, max_order=0)
