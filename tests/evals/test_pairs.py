"""Pairs read from real and from broken files; scores against hand-made models; aggregation against a published run."""

import gzip
import json
import lzma
import math
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from ritornello.errors import InputError
from ritornello.evals.choices import choice_rows
from ritornello.evals.means import means
from ritornello.evals.pairs import MinimalPair, count_tokens, pair_rows, read_pairs, requests
from ritornello.evals.subject import CausalSubject, Request, tokenized

DATA = Path(os.environ.get("RITORNELLO_DATA", Path(__file__).parents[2] / "../shared/data"))
needs_data = pytest.mark.skipif(not (DATA / "babylm_eval").is_dir(), reason="no evaluation data (RITORNELLO_DATA)")


class Letters:
    """A token a character: BOS 0, EOS 1, then by code point."""

    bos, eos, size, lossless = 0, 1, 130, True

    def encode(self, text):
        return [ord(letter) + 2 for letter in text]

    def encode_from(self, texts, starts):
        return [(np.array(self.encode(text)), start) for text, start in zip(texts, starts, strict=True)]


class Same:
    """Every text is one and the same token."""

    bos, eos, size, lossless = 0, 0, 1, True

    def encode_from(self, texts, starts):
        return [(np.zeros(5, np.int64), 0)] * len(texts)


class Table(nn.Module):
    """p(next | this token) from a table of logits."""

    def __init__(self, table):
        super().__init__()
        self.register_buffer("table", table)

    def init_state(self, batch):
        return ()

    def forward(self, tokens, state, reset=None):
        return self.table[tokens], state


def unigram(letters):
    """Gives each letter its weight, whatever came before, and all else -9."""
    logits = torch.full((130,), -9.0)
    for letter, weight in letters.items():
        logits[ord(letter) + 2] = weight
    return Table(logits.repeat(130, 1)), logits.log_softmax(0)


def subject(model, tokenizer=None, protocol="ritornello"):
    return CausalSubject(model, tokenizer or Letters(), "", "", protocol)


def graded(margins):
    """Rows as if good sentences had these scores, and bad ones 0."""
    rows = [
        row
        for task, margin in margins.items()
        for row in choice_rows("s", task, list(torch.stack([margin, torch.zeros(len(margin))], 1)), [0] * len(margin))
    ]
    return (*rows, *means(rows, "all pairs"))


def value(rows, task, metric):
    (row,) = [row for row in rows if (row.task, row.metric) == (task, metric)]
    return row.value


def write(path, records, opener=open):
    with opener(path, "wt", encoding="utf-8") as file:
        file.write("".join(json.dumps(record) + "\n" for record in records))
    return path


def test_protocols_by_hand():
    model, logp = unigram({"a": 1.0, "b": 2.0, " ": 3.0})
    model.table[0] = 0.0  # after BOS: everything alike
    a, b = (float(logp[ord(letter) + 2]) for letter in "ab")
    flat = -math.log(130)
    pairs = [MinimalPair("ab", "bba"), MinimalPair("a", "b", context="b ")]

    found = []
    for protocol, want in {
        "ritornello": [(flat + b) - (flat + b + a), a - b],
        "official-2024": [(a + b) - (b + b + a), a - b],
        "official-2025": [b - (b + a), a - b],
    }.items():
        sums = subject(model, protocol=protocol).log_probs(requests(pairs)).view(-1, 2)
        assert sums.dtype == torch.float64
        assert (sums[:, 0] - sums[:, 1]).tolist() == pytest.approx(want, abs=1e-5)
        found.append(tokenized(Letters(), requests(pairs), protocol)[0])
    first, second = Letters().encode("ab"), Letters().encode(" ab")
    assert [texts[0] for texts in found] == [[0, *first], [0, *second], first]
    assert [texts[2] for texts in found] == [[0, *Letters().encode("b a")], [0, *Letters().encode(" b a")], Letters().encode("b a")]


def test_accuracy_ties_and_means_by_hand():
    rows = graded({"easy": torch.tensor([1.0, 2.0, 0.0, -1.0]), "hard": torch.tensor([-1.0, 0.0])})
    assert [row.task for row in rows] == ["easy"] * 3 + ["hard"] * 3 + ["all", "all pairs"] * 3
    want = {
        "accuracy (official)": (3 / 4, 1 / 2, 5 / 8, 4 / 6),
        "accuracy (half credit)": (2.5 / 4, 1 / 4, 3.5 / 8, 3 / 6),
        "ties": (1 / 4, 1 / 2, 3 / 8, 2 / 6),
    }
    for metric, values in want.items():
        assert [row.value for row in rows if row.metric == metric] == pytest.approx(values)
    easy, hard, every, pairs = (row for row in rows if row.metric == "accuracy (official)")
    assert easy.stderr == pytest.approx(math.sqrt(0.75 * 0.25 / 4))
    assert every.stderr == pytest.approx(math.sqrt(easy.stderr**2 + hard.stderr**2) / 2)
    assert pairs.stderr == pytest.approx(math.sqrt(4 / 6 * 2 / 6 / 6))
    assert [row.n for row in (easy, hard, every, pairs)] == [4, 2, 6, 6]
    assert {row.chance for row in rows if row.metric != "ties"} == {0.5}
    half = next(row for row in rows if row.metric == "accuracy (half credit)")
    assert half.stderr == pytest.approx(math.sqrt(((1 - 0.625) ** 2 * 2 + (0.5 - 0.625) ** 2 + 0.625**2) / 4 / 4))


def test_a_model_blind_to_order_ties_on_permutations():
    model, _ = unigram({"a": 1.3, "b": 0.2, "c": -0.7})
    pairs = {"order": [MinimalPair("aabc", "cbaa"), MinimalPair("abcabc", "ccbbaa"), MinimalPair("a", "b")]}
    rows = pair_rows(subject(model), "s", pairs)
    assert value(rows, "order", "ties") == pytest.approx(2 / 3)
    assert value(rows, "order", "accuracy (half credit)") == pytest.approx(2 / 3)
    assert value(rows, "order", "accuracy (official)") == 1


def test_a_score_that_is_not_a_number_has_a_reason():
    rows = graded({"x": torch.tensor([1.0, math.nan]), "y": torch.tensor([1.0])})
    assert value(rows, "x", "accuracy (official)") is value(rows, "all", "ties") is None
    assert value(rows, "y", "accuracy (official)") == 1
    reasons = {row.task: row.reason for row in rows}
    assert reasons["x"] == "1 of 2 items have no finite score"
    assert reasons["all"] == "no value for x"


def test_count_tokens_is_what_is_scored():
    model, _ = unigram({"a": 1.0})
    pairs = {"x": [MinimalPair("ab", "abc"), MinimalPair("abc", "cd")], "y": [MinimalPair("a", "b", context="c ")]}
    for protocol, want in {"ritornello": 13, "official-2024": 18, "official-2025": 8}.items():
        seen = []
        for part in pairs.values():
            subject(model, protocol=protocol).log_probs(requests(part), lambda done, all, seen=seen: seen.append((done, all)))
        assert count_tokens(Letters(), pairs, protocol) == want == sum(all for done, all in seen if done == all)


def test_a_text_without_a_token_to_score():
    model, _ = unigram({"a": 1.0})
    with pytest.raises(InputError, match="text 1 of 2 has no token to score; its first token conditions, under official-2025"):
        subject(model, protocol="official-2025").log_probs([Request("ab"), Request("a")])
    with pytest.raises(InputError, match=r"text 0 of 1 has no token to score$"):
        subject(model).log_probs([Request("ab", 2)])


def test_an_impossible_text_has_no_score_rather_than_an_infinite_one():
    model, _ = unigram({"a": 1.0, "b": -math.inf})
    found = subject(model).log_probs([Request("a"), Request("ab")])
    assert found.isfinite().tolist() == [True, False]
    assert found.isnan().tolist() == [False, True]


def test_unknown_protocol():
    with pytest.raises(InputError, match=r"Did you mean 'official-2024'\?"):
        count_tokens(Letters(), {"x": [MinimalPair("a", "b")]}, "official-24")
    with pytest.raises(InputError, match="unknown protocol of a causal model 'within-word'"):
        subject(unigram({"a": 1.0})[0], protocol="within-word")  # before anything is read


def test_files_and_folders(tmp_path):
    ours = [{"good": "He is.", "bad": "He are.", "context": "So ", "tag": "singular"}, {"good": "a\u2028b", "bad": "c"}]
    write(tmp_path / "one.jsonl", ours)
    write(tmp_path / "two.v2.jsonl.gz", [{"sentence_good": "x", "sentence_bad": "y", "UID": "u"}], gzip.open)
    write(tmp_path / "three.jsonl.xz", [{"good": "x", "bad": "y"}], lzma.open)
    (tmp_path / "README.md").write_text("about")
    (tmp_path / "more").mkdir()
    said = []
    suites = read_pairs(tmp_path, said.append)
    assert list(suites) == ["one", "three", "two.v2"]
    assert suites["one"] == [MinimalPair("He is.", "He are.", "So ", "singular"), MinimalPair("a\u2028b", "c")]
    assert suites["two.v2"] == [MinimalPair("x", "y")]
    assert said == [f"{tmp_path}: left out README.md, more"]
    assert list(read_pairs(write(tmp_path / "pairs.txt", ours))) == ["pairs"]
    assert list(read_pairs(tmp_path / "two.v2.jsonl.gz")) == ["two.v2"]


def test_line_ends_empty_lines_and_a_byte_order_mark(tmp_path):
    (tmp_path / "x.jsonl").write_bytes(b'\xef\xbb\xbf{"good": "a\\u2028", "bad": "b"}\r\n\r\n{"good": "c", "bad": "\xe2\x80\xa8"}')
    assert read_pairs(tmp_path)["x"] == [MinimalPair("a\u2028", "b"), MinimalPair("c", "\u2028")]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b'{"good": "a", "bad": "b"}\n{"good": "a"}\n', r"x.jsonl:2: bad missing; found good$"),
        (b'{"sentence_good": "a", "UID": "u"}', r"x.jsonl:1: sentence_bad missing; found sentence_good, UID$"),
        (b'{"sentence": "a", "label": 1}', r"x.jsonl:1: good and bad missing; found sentence, label$"),
        (b"{}", r"x.jsonl:1: good and bad missing; found nothing$"),
        (b'{"good": "a", "bad": 3}', r"x.jsonl:1: bad must be a text, found 3$"),
        (b'{"good": "", "bad": "b"}', r"x.jsonl:1: good must be a text, found ''$"),
        (b'{"good": "a", "bad": "b", "context": null}', r"x.jsonl:1: context must be a text, found None$"),
        (b"\n[1, 2]", r"x.jsonl:2: expected an object, found list$"),
        (b"good,bad", r"x.jsonl:1: not JSON: "),
        (b"[" * 100_000, r"x.jsonl:1: not JSON: "),
        (b"9" * 10_000, r"x.jsonl:1: not JSON: "),
        (b"\n\n", r"x.jsonl: is empty$"),
        (b'{"good": "\xff"}', r"x.jsonl: not UTF-8 text \(invalid start byte at byte 10\)$"),
    ],
)
def test_broken_files(tmp_path, text, message):
    (tmp_path / "x.jsonl").write_bytes(text)
    with pytest.raises(InputError, match=message) as caught:
        read_pairs(tmp_path)
    assert "\n" not in str(caught.value)


def test_broken_folders(tmp_path):
    with pytest.raises(InputError, match="no such file or folder"):
        read_pairs(tmp_path / "none")
    (tmp_path / "data").mkdir()
    with pytest.raises(InputError, match=r"holds no \.jsonl, \.jsonl\.gz or \.jsonl\.xz file$"):
        read_pairs(tmp_path)
    write(tmp_path / "data" / "x.jsonl", [{"good": "a", "bad": "b"}])
    with pytest.raises(InputError, match=r"give one of its folders: data$"):
        read_pairs(tmp_path)
    write(tmp_path / "data" / "x.jsonl.gz", [{"good": "a", "bad": "b"}], gzip.open)
    with pytest.raises(InputError, match="two files hold the subtask x"):
        read_pairs(tmp_path / "data")


@pytest.mark.parametrize(("suffix", "content"), [(".gz", b"plain"), (".xz", b"plain"), (".gz", gzip.compress(b"x" * 99)[:-9])])
def test_broken_archives(tmp_path, suffix, content):
    (tmp_path / f"x.jsonl{suffix}").write_bytes(content)
    with pytest.raises(InputError, match=f"x.jsonl{suffix}: cannot be read: "):
        read_pairs(tmp_path)


@needs_data
@pytest.mark.parametrize(
    ("folder", "files", "pairs"),
    [
        ("blimp/data", 67, 67_000),
        ("babylm_eval/blimp_filtered", 67, 59_875),
        ("babylm_eval/supplement_filtered", 5, 5_218),
        ("babylm_eval/blimp_fast", 67, 13_400),
        ("babylm_eval/supplement_fast", 5, 250),
    ],
)
def test_published_files(folder, files, pairs):
    suites = read_pairs(DATA / folder)
    assert len(suites) == files
    assert sum(map(len, suites.values())) == pairs


@needs_data
def test_a_constant_scorer_is_perfect_by_the_official_rule_only():
    suites = read_pairs(DATA / "babylm_eval/supplement_filtered")
    rows = pair_rows(subject(Table(torch.zeros(1, 1)), Same(), "official-2024"), "s", suites)
    for task in (*suites, "all", "all pairs"):
        assert value(rows, task, "accuracy (official)") == 1
        assert value(rows, task, "accuracy (half credit)") == 0.5
        assert value(rows, task, "ties") == 1


@needs_data
@pytest.mark.parametrize(
    ("size", "suite", "macro", "micro"),
    [
        ("10M", "blimp", 72.11, 71.93),
        ("100M", "blimp", 77.53, 77.36),
        ("10M", "blimp_supplement", 58.57, 79.53),
        ("100M", "blimp_supplement", 58.51, 75.83),
    ],
)
def test_published_decisions_give_the_published_scores(size, suite, macro, micro):
    """Two BabyHGRN models (arXiv:2412.15978): their decisions on the filtered pairs, averaged as the challenge averages."""
    decisions = json.loads(gzip.decompress((DATA / f"babyhgrn_predictions/babyhgrn_{size}.json.gz").read_bytes()))[suite]
    suites = read_pairs(DATA / f"babylm_eval/{suite.removeprefix('blimp_')}_filtered")
    assert {task: len(made) for task, made in decisions.items()} == {task: len(pairs) for task, pairs in suites.items()}
    rows = graded({task: torch.tensor([1.0 if made == "1" else -1.0 for made in line]) for task, line in decisions.items()})
    assert 100 * value(rows, "all", "accuracy (official)") == pytest.approx(macro, abs=0.005)
    assert 100 * value(rows, "all pairs", "accuracy (official)") == pytest.approx(micro, abs=0.005)
    expected = {"blimp": 0.2, "blimp_supplement": 1.63}[suite]
    (row,) = [row for row in rows if (row.task, row.metric) == ("all", "accuracy (official)")]
    assert row.stderr * 100 < expected
