"""Round trips over all of Unicode, special names as text, one file format for every kind, and what imported ones lose."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import tokenizers
import torch
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors

from ritornello.data import tokenizers as ours
from ritornello.data.tokenizers import ByteTokenizer, LibraryTokenizer, load_tokenizer, loss_on, train_bpe
from ritornello.errors import InputError

TRAINING = [
    "The cat sat on the mat.\n\nThe dog sat on the log, 1234 times!\n" * 20,
    "שָׁלוֹם עוֹלָם, 你好世界 naïve café\t\r\n" * 20,
    "<|endoftext|> is text <|endoftext|>\n" * 20,
]
TEXT = st.one_of(
    st.text(), st.lists(st.sampled_from(["<|endoftext|>", "<s>", "</s>", "the cat", " ", "\n", "\0", "é", "[CLS]"])).map("".join)
)


def bpe() -> LibraryTokenizer:
    return train_bpe(TRAINING, 300)


BUILT_IN = {"bytes": ByteTokenizer(), "bpe": bpe()}


@pytest.fixture(params=BUILT_IN)
def built_in(request):
    return BUILT_IN[request.param]


@given(text=TEXT)
@pytest.mark.parametrize("kind", BUILT_IN)
def test_every_text_comes_back_and_none_reaches_a_special_token(kind, text):
    tokenizer = BUILT_IN[kind]
    ids = tokenizer.encode(text)
    assert tokenizer.lossless
    assert tokenizer.decode(ids) == text
    assert tokenizer.decode([tokenizer.bos, *ids, tokenizer.eos]) == text
    assert not {tokenizer.bos, tokenizer.eos} & set(ids)
    assert all(0 <= index < tokenizer.size for index in ids)
    assert b"".join(tokenizer.token_bytes[index] for index in ids) == text.encode()
    lengths = tokenizer.nbytes(torch.tensor([ids], dtype=torch.int64))
    assert (lengths.shape, lengths.dtype) == ((1, len(ids)), torch.int64)
    assert int(lengths.sum()) == len(text.encode())
    assert [array.tolist() for array in tokenizer.encode_many([text, "a"])] == [ids, tokenizer.encode("a")]


def test_sizes(built_in):
    assert len(built_in.token_bytes) == built_in.size
    assert built_in.nbytes(torch.tensor([built_in.bos])).item() == 0
    assert (ByteTokenizer().size, ByteTokenizer().bos, ByteTokenizer().eos) == (257, 256, 256)
    assert (bpe().size, train_bpe(TRAINING, 257).size) == (300, 257)
    assert train_bpe(["ab"], 300).size == 257  # nothing occurs twice
    assert len(bpe().encode("The cat sat")) < len("The cat sat") / 2


def test_lone_surrogates(built_in):
    for encode in (built_in.encode, lambda text: built_in.encode_many([text])):
        with pytest.raises(InputError, match=r"^text: holds the lone surrogate U\+D83D at character 1"):
            encode("a\ud83d")
    with pytest.raises(InputError, match="lone surrogate"):
        train_bpe(["a\ud83d"], 300)


def test_broken_bytes_are_shown_as_replacements(built_in):
    euro = built_in.encode("€")
    assert built_in.decode(euro[:1]) in ("\ufffd", "€")
    assert ByteTokenizer().decode([0xE2, 0x82, 0x41, 0xFF]) == "\ufffdA\ufffd"


def test_save_and_load(built_in, tmp_path):
    path = tmp_path / "tokenizer.json"
    built_in.save(path)
    again = load_tokenizer(path)
    text = "The cat <|endoftext|> שָׁ\0\n  x"
    assert (type(again), again.kind, again.size, again.bos, again.eos, again.lossless, again.sha256) == (
        (type(built_in), built_in.kind, built_in.size, built_in.bos, built_in.eos, True, built_in.sha256)
    )
    assert again.encode(text) == built_in.encode(text)
    assert [path.name for path in tmp_path.iterdir()] == ["tokenizer.json"]


def test_other_tools_read_our_files(built_in, tmp_path):
    built_in.save(tmp_path / "tokenizer.json")
    raw = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    text = "The cat sat. שָׁלוֹם\n\n"
    assert raw.encode(text).ids == built_in.encode(text)
    assert raw.decode(raw.encode(text).ids) == text
    assert raw.token_to_id("<|endoftext|>") == built_in.eos
    assert raw.get_vocab_size() == built_in.size


def test_training_is_the_same_in_another_process_with_other_threads():
    code = f"from ritornello.data.tokenizers import train_bpe\nprint(train_bpe({TRAINING!r}, 300).sha256)"
    environment = {**os.environ, "RAYON_NUM_THREADS": "3"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.split() == [bpe().sha256]


def test_vocabulary_too_small():
    with pytest.raises(InputError, match=r"vocabulary of 256: .* use 257 or more"):
        train_bpe(TRAINING, 256)


def test_training_cuts_long_runs_and_takes_only_so_much(monkeypatch):
    assert list(ours._sample(["x" * 250], 1)) == ["x" * 100 + "\n" + "x" * 100 + "\n" + "x" * 50]
    assert list(ours._sample("abcdefg", 3)) == ["a", "d", "g"]
    monkeypatch.setattr(ours, "SAMPLE", 20)
    assert len(list(ours._sample(["a b c d e "] * 9, 1))) == 3
    assert len(list(ours._sample(["abcdefghij"] * 9, 1))) == 1


@given(words=st.lists(st.sampled_from(["the", " cat", " ", "\n", "שלום", "1", ".", "'s"]), min_size=1, max_size=60))
def test_long_texts_are_encoded_in_pieces_with_the_same_result(words):
    text = " a".join(["".join(words)] * 4)
    tokenizer = BUILT_IN["bpe"]
    whole = tokenizer.encode(text)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ours, "PIECE", 400)
        pieces = tokenizer.encode(text)
    assert pieces == whole


# imported ones


def saved(raw: tokenizers.Tokenizer, tmp_path):
    raw.save(str(tmp_path / "tokenizer.json"))
    return load_tokenizer(tmp_path / "tokenizer.json")


def word_level(**options) -> tokenizers.Tokenizer:
    vocab = {word: index for index, word in enumerate(["[UNK]", "[CLS]", "[SEP]", "the", "cat", "sat"])}
    raw = tokenizers.Tokenizer(models.WordLevel(vocab, unk_token="[UNK]"))
    raw.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    raw.add_special_tokens(["[UNK]", "[CLS]", "[SEP]"])
    raw.post_processor = processors.TemplateProcessing(
        single="[UNK] [CLS] $A [SEP]", special_tokens=[("[UNK]", 0), ("[CLS]", 1), ("[SEP]", 2)]
    )
    raw.enable_truncation(2)
    raw.enable_padding(length=9)
    return raw


def test_an_imported_tokenizer_adds_nothing_cuts_nothing_and_keeps_special_tokens_to_itself(tmp_path):
    tokenizer = saved(word_level(), tmp_path)
    assert (tokenizer.kind, tokenizer.lossless, tokenizer.bos, tokenizer.eos, tokenizer.size) == ("imported", False, 1, 2, 6)
    assert tokenizer.encode("the cat sat the") == [3, 4, 5, 3]
    assert tokenizer.encode("[CLS] the [SEP] cat") == [3, 4]
    assert [ids.tolist() for ids in tokenizer.encode_many(["[CLS] the", ""])] == [[3], []]
    assert tokenizer.decode([1, 3, 4, 2]) == "the cat"
    assert tokenizer.token_bytes == [b"", b"", b"", b" the", b" cat", b" sat"]


@pytest.mark.parametrize("known", [True, False])
def test_a_token_for_the_end_is_added_where_there_is_none(tmp_path, known):
    vocab = {"a": 0, "[UNK]": 1, **({"<|endoftext|>": 2} if known else {})}
    raw = tokenizers.Tokenizer(models.WordLevel(vocab, unk_token="[UNK]"))
    raw.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = saved(raw, tmp_path)
    assert (tokenizer.bos, tokenizer.eos, tokenizer.size) == (2, 2, 3)
    assert tokenizer.encode("a <|endoftext|>") == ([0] if known else [0, 1])
    tokenizer.save(tmp_path / "again.json")
    assert load_tokenizer(tmp_path / "again.json").sha256 == tokenizer.sha256


def test_a_token_that_is_added_and_not_special_becomes_so(tmp_path):
    (tmp_path / "tokenizer.json").write_text(json.dumps(byte_level(added_tokens=[{**END, "special": False}])))
    tokenizer = load_tokenizer(tmp_path / "tokenizer.json")
    assert (tokenizer.bos, tokenizer.size, tokenizer.lossless) == (0, 300, True)
    assert tokenizer.decode(tokenizer.encode("a<|endoftext|>")) == "a<|endoftext|>"


END = json.loads(bpe().json)["added_tokens"][0]


def byte_level(**changes) -> dict:
    return {**json.loads(bpe().json), **changes}


def model(**changes) -> dict:
    return {"model": {**json.loads(bpe().json)["model"], **changes}}


VOCAB, MERGES = (json.loads(bpe().json)["model"][key] for key in ("vocab", "merges"))


@pytest.mark.parametrize(
    "changes",
    [
        {"normalizer": {"type": "NFC"}},
        {"pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}},
        {"decoder": None},
        model(continuing_subword_prefix="##", merges=[]),
        model(end_of_word_suffix="</w>", merges=[]),
        model(vocab={sign: index for sign, index in VOCAB.items() if sign != "!"}),
        model(vocab={**VOCAB, "<|": 300, "<|endoftext": 301}, merges=[*MERGES, ["<|endoftext", "|>"]]),
        model(ignore_merges=True),
        {"added_tokens": [END, {**END, "id": 300, "content": "<x>", "special": False, "lstrip": True}]},
    ],
)
def test_what_may_lose_something_is_not_called_lossless(tmp_path, changes):
    (tmp_path / "tokenizer.json").write_text(json.dumps(byte_level(**changes)))
    assert not load_tokenizer(tmp_path / "tokenizer.json").lossless


def test_a_split_before_the_bytes_is_lossless(tmp_path):
    last = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    split = {"type": "Split", "pattern": {"Regex": r"\s+"}, "behavior": "Isolated", "invert": False}
    for behavior, lossless in (("Isolated", True), ("Removed", False)):
        steps = {"type": "Sequence", "pretokenizers": [{**split, "behavior": behavior}, last]}
        (tmp_path / "tokenizer.json").write_text(json.dumps(byte_level(pre_tokenizer=steps)))
        assert load_tokenizer(tmp_path / "tokenizer.json").lossless is lossless


def test_dropout_is_taken_out(tmp_path):
    spec = byte_level()
    spec["model"]["dropout"] = 0.5
    (tmp_path / "tokenizer.json").write_text(json.dumps(spec))
    assert load_tokenizer(tmp_path / "tokenizer.json").sha256 == bpe().sha256


def test_bytes_behind_tokens_of_a_sentencepiece_vocabulary(tmp_path):
    vocab = {"<unk>": 0, "<s>": 1, "</s>": 2, "<0x0A>": 3, "▁a": 4, "b": 5, "▁": 6, "a": 7}
    raw = tokenizers.Tokenizer(models.BPE(vocab, [("▁", "a")], unk_token="<unk>", byte_fallback=True))
    raw.pre_tokenizer = pre_tokenizers.Metaspace()
    raw.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace()])
    raw.add_special_tokens(["<unk>", "<s>", "</s>"])
    tokenizer = saved(raw, tmp_path)
    assert (tokenizer.bos, tokenizer.eos) == (1, 2)
    assert tokenizer.token_bytes == [b"", b"", b"", b"\n", b" a", b"b", b" ", b"a"]


def test_loss_on(tmp_path):
    raw = bpe().raw
    lower = tokenizers.Tokenizer.from_str(raw.to_str())
    lower.normalizer = normalizers.Lowercase()
    loss = loss_on(saved(lower, tmp_path), [(0, "one\nTwo\n"), (1, "three\nfour")])
    assert (loss.share, loss.text, loss.back) == (0.25, "Two\n", "two\n")
    assert str(loss) == "25.0% of lines do not come back, the first 'Two\\n' as 'two\\n'"
    assert loss_on(saved(lower, tmp_path), [(0, "one\u2028two")]) is None
    assert loss_on(bpe(), [(0, "One\nTwo")]) is None
    assert loss_on(saved(word_level(), tmp_path), [(0, "the\n")]).back == "the"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "not a tokenizer.json: Expecting property name"),
        (b"\xff", "not a tokenizer.json: 'utf-8' codec"),
        (b"[" * 100_000, "not a tokenizer.json: maximum recursion"),
        (b"[]", "not a usable tokenizer.json"),
        (b"{}", "not a usable tokenizer.json"),
        (b'{"model": {"type": "BPE", "vocab": {"a": "b"}, "merges": []}}', "not a usable tokenizer.json"),
        (b'{"model": {"type": "BPE", "vocab": {}, "merges": []}}', "its vocabulary is empty"),
        (None, "cannot be read: No such file"),
    ],
)
def test_a_file_that_is_none(tmp_path, content, message):
    if content is not None:
        (tmp_path / "tokenizer.json").write_bytes(content)
    with pytest.raises(InputError, match=message) as caught:
        load_tokenizer(tmp_path / "tokenizer.json")
    assert "\n" not in str(caught.value)


def test_errors_of_other_kinds_are_not_taken_for_the_librarys():
    with pytest.raises(RuntimeError, match="mine"), ours._Foreign("x"):
        raise RuntimeError("mine")


def test_arrays_are_integers(built_in):
    assert all(np.issubdtype(ids.dtype, np.integer) for ids in built_in.encode_many(["", "a"]))
