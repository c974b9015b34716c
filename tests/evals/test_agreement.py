"""The pairs are what their design says: English words of the text, mirrored, out of reach of unigrams and mostly of bigrams."""

import gzip
import os
import re
from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from ritornello.data import builtin
from ritornello.evals.agreement import LEXICONS, PHENOMENA, _with_s, agreement_pairs, count_words
from ritornello.evals.choices import choice_rows
from ritornello.evals.means import means

DATA = Path(os.environ.get("RITORNELLO_DATA", Path(__file__).parents[2] / "../shared/data"))
GLUE = (
    "The the that and been is are was were has have this these that those every many each several one two another both "
    "can could may might must should will would itself himself herself themselves "
)
LOCAL = ("subject_verb", "determiner_noun")  # a bigram model can learn these


def vocabulary(lexicon, times=3):
    """A text's counts in which every word of a lexicon occurs."""
    bases = f"{lexicon.agents} {lexicon.things} {lexicon.verbs} {lexicon.reflexive}".split()
    words = [*bases, *map(_with_s, bases), *GLUE.split(), *" ".join(lexicon.starts).split()]
    words += f"{lexicon.participles} {lexicon.adjectives} {lexicon.prepositions}".split()
    return dict.fromkeys(words, times)


@pytest.fixture(params=LEXICONS, ids=lambda lexicon: lexicon.name)
def counts(request):
    return vocabulary(request.param)


@pytest.fixture(scope="module")
def documentation():
    """Counts of the default text: what this Python says about itself."""
    return count_words(text for part in builtin.parts() for text in part[2])


def words(sentence):
    return re.findall(r"\w+", sentence)


class Words:
    """A token a word."""

    bos, eos, lossless = 0, 1, True

    def __init__(self):
        self.ids = {}

    def encode(self, text):
        return [self.ids.setdefault(word, len(self.ids) + 2) for word in text.removesuffix(".").split()]


def accuracy(pairs, score, tokenizer=None):
    """By half credit: of each task, and of their means."""
    tokenizer, rows = tokenizer or Words(), []
    for task, part in pairs.items():
        scores = score([[0, *tokenizer.encode(side)] for pair in part for side in (pair.good, pair.bad)])
        rows += choice_rows("s", task, list(scores.view(-1, 2)), [0] * len(part))
    return {row.task: row.value for row in (*rows, *means(rows, "all pairs")) if row.metric == "accuracy (half credit)"}


def test_every_phenomenon_is_full_and_every_word_occurs(counts):
    found = agreement_pairs(counts)
    assert found.reason is None
    assert {name: len(pairs) for name, pairs in found.pairs.items()} == dict.fromkeys(PHENOMENA, 64)
    for pairs in found.pairs.values():
        assert len({pair.good for pair in pairs}) == len(pairs)
        for pair in pairs:
            assert set(words(pair.good) + words(pair.bad)) <= set(counts)


def test_members_differ_in_one_word_and_pairs_mirror_each_other(counts):
    for pairs in agreement_pairs(counts).pairs.values():
        assert [pair.tag for pair in pairs] == ["singular", "plural"] * 32
        for one, other in zip(pairs[::2], pairs[1::2], strict=True):
            changes = []
            for pair in (one, other):
                good, bad = words(pair.good), words(pair.bad)
                assert len(good) == len(bad)
                changes.append([(place, a, b) for place, (a, b) in enumerate(zip(good, bad, strict=True)) if a != b])
            ((place, a, b),), mirrored = changes
            assert mirrored == [(place, b, a)]
            assert re.fullmatch(r"[A-Z][a-z]*( [A-Za-z]+)+\.", one.good)
            assert not re.search(r"\b(\w+) \1\b", one.good)


def test_a_unigram_model_is_right_on_exactly_half(counts):
    weight = torch.randn(2000, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    pairs = agreement_pairs(counts).pairs
    found = accuracy(pairs, lambda texts: torch.stack([weight[text[1:]].sum() for text in texts]))
    assert found == dict.fromkeys((*PHENOMENA, "all", "all pairs"), 0.5)


def test_a_bigram_model_is_right_on_exactly_half_where_the_design_says_so(counts):
    table = torch.randn(2000, 2000, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    pairs = {name: part for name, part in agreement_pairs(counts).pairs.items() if name not in LOCAL}
    found = accuracy(pairs, lambda texts: torch.stack([table[text[:-1], text[1:]].sum() for text in texts]))
    assert found == dict.fromkeys((*pairs, "all", "all pairs"), 0.5)


def test_a_bigram_model_that_saw_the_good_sentences_solves_the_local_ones(counts):
    pairs = {name: part for name, part in agreement_pairs(counts).pairs.items() if name in LOCAL}
    tokenizer, seen = Words(), Counter()
    for part in pairs.values():
        for pair in part:
            ids = tokenizer.encode(pair.good)
            seen.update(pairwise(ids))

    def score(texts):
        return torch.tensor([float(sum(couple in seen for couple in pairwise(text))) for text in texts])

    assert min(accuracy(pairs, score, tokenizer).values()) > 0.9


def test_the_same_counts_give_the_same_pairs_in_any_order(counts):
    assert agreement_pairs(counts) == agreement_pairs(dict(reversed(counts.items())))


def test_a_couple_of_each_phenomenon_the_same_in_every_version_of_python():
    found = agreement_pairs(vocabulary(LEXICONS[0])).pairs
    assert {name: (pairs[0].good, pairs[1].good) for name, pairs in found.items()} == {
        "subject_verb": ("The widget has been added.", "The widgets have been added."),
        "subject_verb_across_phrase": ("The argument from the scripts was created.", "The arguments from the scripts were created."),
        "subject_verb_across_clause": (
            "The module that represents the options was needed.",
            "The modules that represent the options were needed.",
        ),
        "subject_verb_in_clause": ("You should use the error that is replaced.", "You should use the errors that are replaced."),
        "subject_verb_coordination": ("The element of the widget is defined.", "The element and the widget are defined."),
        "determiner_noun": ("You can use another option.", "You can use both options."),
        "determiner_adjective_noun": ("You can use that similar object.", "You can use those similar objects."),
        "reflexive": ("The method could test itself.", "The methods could test themselves."),
    }


def test_nouns_of_a_sentence_differ(counts):
    nouns = {
        form: noun for lexicon in LEXICONS for noun in (lexicon.agents + " " + lexicon.things).split() for form in (noun, _with_s(noun))
    }
    found = agreement_pairs(counts).pairs
    for name in ("subject_verb_across_phrase", "subject_verb_coordination"):
        for pair in found[name]:
            assert len({nouns[word] for word in words(pair.good) if word in nouns}) == 2


def test_rare_words_are_left_out():
    counts = vocabulary(LEXICONS[0]) | {"function": 1, "values": 1, "return": 1}
    found = agreement_pairs(counts, min_count=2)
    assert found.reason is None
    used = {word for pairs in found.pairs.values() for pair in pairs for side in pair[:2] for word in words(side)}
    assert not used & {"function", "functions", "value", "values", "return", "returns"}
    assert agreement_pairs(counts, min_count=4).pairs == {}


def test_the_frequent_words_are_taken():
    lexicon = LEXICONS[0]
    often = {form: 9 for noun in lexicon.things.split()[-16:] for form in (noun, _with_s(noun))}
    pairs = agreement_pairs(vocabulary(lexicon) | often).pairs
    used = {word for part in pairs.values() for pair in part for word in words(pair.good)}
    assert not used & set(lexicon.things.split()[:-16])


def test_the_lexicon_of_the_text_is_chosen():
    mixed = vocabulary(LEXICONS[0], 3) | vocabulary(LEXICONS[1], 9)
    assert "children" in " ".join(pair.good for pair in agreement_pairs(mixed).pairs["subject_verb"])


def test_a_text_in_lower_case_is_tested_in_lower_case():
    counts = {word.lower(): times for word, times in vocabulary(LEXICONS[0]).items()}
    found = agreement_pairs(counts)
    assert found.reason is None
    assert all(side == side.lower() for pairs in found.pairs.values() for pair in pairs for side in pair[:2])


def test_what_is_lacking_is_said():
    counts = vocabulary(LEXICONS[0])
    del counts["themselves"]
    found = agreement_pairs(counts)
    assert set(found.pairs) == set(PHENOMENA) - {"reflexive"}
    assert found.reason == "no agreement pairs of reflexive: the text holds too few words for them"
    del counts["that"], counts["this"], counts["every"], counts["each"], counts["one"]
    found = agreement_pairs(counts)
    assert found.pairs == {}
    assert found.reason.endswith("of common technical English words the text holds too few determiners")
    assert agreement_pairs({}).pairs == {}
    assert "English" in agreement_pairs({}).reason


def test_a_text_that_is_not_english_gives_none():
    path = DATA / "europeana_ner_de"
    if not path.is_dir():
        pytest.skip("no German text (RITORNELLO_DATA)")
    text = [line for file in sorted(path.glob("*.bio.gz")) for line in gzip.decompress(file.read_bytes()).decode().split("\n")]
    assert len(text) > 100_000
    found = agreement_pairs(count_words(text))
    assert found.pairs == {}
    assert "English" in found.reason


def test_the_default_text(documentation):
    found = agreement_pairs(documentation)
    assert found.reason is None
    assert {name: len(pairs) for name, pairs in found.pairs.items()} == dict.fromkeys(PHENOMENA, 64)
    said = " ".join(pair.good for pairs in found.pairs.values() for pair in pairs)
    assert {"function", "method", "object", "value", "argument", "string"} <= set(words(said))
    assert min(documentation[word] for word in words(said)) >= 2


@pytest.mark.parametrize(
    ("word", "form"),
    [
        ("process", "processes"),
        ("box", "boxes"),
        ("watch", "watches"),
        ("city", "cities"),
        ("boy", "boys"),
        ("child", "children"),
        ("key", "keys"),
    ],
)
def test_forms(word, form):
    assert _with_s(word) == form


def test_no_verb_looks_like_its_past_and_no_phrase_like_a_coordination():
    for lexicon in LEXICONS:
        assert not {"read", "set", "put", "cut", "let", "hit", "shut", "cost"} & set(lexicon.verbs.split())
        assert not {"with", "and", "or"} & set(lexicon.prepositions.split())
        nouns = lexicon.agents.split() + lexicon.things.split()
        assert len(set(nouns)) == len(nouns)
        assert set(" ".join(lexicon.selves.values()).split()) <= set(lexicon.agents.split())


def test_words_are_runs_of_letters():
    assert count_words(["The end. The_file2 isn't", "the"]) == {"The": 2, "end": 1, "file": 1, "isn": 1, "t": 1, "the": 1}
