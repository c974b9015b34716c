"""Any language model of transformers, opened to be evaluated or to teach.

    opened = open_model("folder")                   or a name on the Hugging Face hub
    logits, state = opened.model(tokens, state)     (B, T, V) float32, if it is a causal one

The state of a causal model is the tokens it has seen, and every call reads them again. That is slow for writing, and right for every
architecture: no cache is asked to be cut, moved or reset. A reset begins a sequence of its own, so padding is on the right only, where a
causal model cannot see it.

Weights are read from safetensors only, as float32. No code that lies in a model's folder is run.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import torch
from huggingface_hub import try_to_load_from_cache
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForMaskedLM, AutoTokenizer
from transformers.utils import logging

from ritornello.data.tokenizers import LibraryTokenizer
from ritornello.errors import InputError, expect_shape
from ritornello.folder import digest
from ritornello.hf.files import need_safetensors
from ritornello.hf.modeling import RitornelloForCausalLM
from ritornello.hub import reach
from ritornello.model import LM

CAUSAL, MASKED = ("ForCausalLM", "LMHeadModel"), ("ForMaskedLM", "ForPreTraining")  # how architectures are called
ELSEWHERE = ("_name_or_path", "transformers_version", "dtype", "architectures")  # in a config, but no part of what it computes


class Seen(NamedTuple):
    tokens: Tensor  # (B, n) int64, newest last, those before a reset zeroed
    seen: Tensor  # (B,) int64, how many of a row's last tokens are of its document


class HFModel(nn.Module):
    """A causal language model of transformers as a CausalLM of ours."""

    grows = True  # the state grows with time

    def __init__(self, net: nn.Module, length: int):
        super().__init__()
        self.net, self.length = net, length  # length: tokens it can read at most

    def init_state(self, batch: int) -> Seen:
        """A fresh state for `batch` rows."""
        device = next(self.parameters()).device
        return Seen(torch.zeros(batch, 0, dtype=torch.int64, device=device), torch.zeros(batch, dtype=torch.int64, device=device))

    def forward(self, tokens: Tensor, state: Seen, reset: Tensor | None = None) -> tuple[Tensor, Seen]:
        """Ids (B, T) to float32 logits (B, T, V) for the token after each, and the state. InputError for more tokens than it can read."""
        whole, new = [], []  # each document of each row, as far as it is known; how many of its tokens are in this piece
        last = []
        for row, past in enumerate(_documents(state)):
            begins = [] if reset is None else reset[row].nonzero().flatten().tolist()
            for begin, end in pairwise(sorted({0, *begins, tokens.shape[1]})):
                past = torch.cat([past[: 0 if begin in begins else None], tokens[row, begin:end]])
                whole.append(past)
                new.append(end - begin)
            last.append(past)
        logits = read(self.net, whole, self.length)
        after = torch.cat([logits[row, len(text) - n : len(text)] for row, (text, n) in enumerate(zip(whole, new, strict=True))])
        return after.unflatten(0, tokens.shape), _seen(last)


class HFMaskedModel(nn.Module):
    """A masked language model of transformers."""

    def __init__(self, net: nn.Module, length: int, mask: int):
        super().__init__()
        self.net, self.length, self.mask = net, length, mask  # mask: the id that stands for a hidden token

    def forward(self, texts: list[Tensor]) -> Tensor:
        """Ids (T,) of each text, special tokens included, to float32 logits (B, T, V) for the token at each place, padded on the right."""
        return read(self.net, texts, self.length)


class Opened(NamedTuple):
    """A model in eval mode on the CPU, and what belongs to it."""

    model: LM | HFModel | HFMaskedModel  # LM: a folder that we have exported
    tokenizer: LibraryTokenizer
    name: str
    sha256: str  # of weights, config and tokenizer: a copy has the same
    length: int  # tokens that the model reads at most


def open_model(spec: str) -> Opened:
    """The causal or masked language model in a folder, or of that name on the hub. InputError, in one line, for what cannot be used."""
    if Path(spec).is_dir():
        need_safetensors(Path(spec))
    elif not isinstance(try_to_load_from_cache(spec, "config.json"), str):
        reach(spec, "no folder of that name here")
    with _as_one_line(spec), _quiet():
        config = AutoConfig.from_pretrained(spec, trust_remote_code=False)
        masked = _is_masked(config, spec)
        net, report = (AutoModelForMaskedLM if masked else AutoModelForCausalLM).from_pretrained(
            spec, config=config, dtype=torch.float32, use_safetensors=True, trust_remote_code=False, output_loading_info=True
        )
        words = AutoTokenizer.from_pretrained(spec, trust_remote_code=False)
    if lost := sorted(report["missing_keys"]):
        raise InputError(f"{spec}: its files lack {len(lost)} weights of a {type(net).__name__}, the first {lost[0]}; get the whole model")
    net.eval()
    tokenizer = _tokenizer(words, spec)
    _check(net, tokenizer, spec, causal=not masked)
    length = int(min(limit for limit in (getattr(config, "max_position_embeddings", None), words.model_max_length) if limit))
    table = {name: value for name, value in config.to_diff_dict().items() if name not in ELSEWHERE}
    about = [table, tokenizer.sha256, tokenizer.bos, tokenizer.eos, words.mask_token_id]
    sha256 = digest(net.state_dict(), json.dumps(about, sort_keys=True, default=str))
    name = Path(spec).resolve().name if Path(spec).is_dir() else spec
    if masked and words.mask_token_id is None:
        raise InputError(f"{spec}: a masked model whose tokenizer has no mask token; name one in its tokenizer_config.json")
    model: LM | HFModel | HFMaskedModel
    if masked:
        model = HFMaskedModel(net, length, words.mask_token_id)
    else:
        model = net.model.lm if isinstance(net, RitornelloForCausalLM) else HFModel(net, length)
    return Opened(model, tokenizer, name, sha256, length)


def read(net: nn.Module, texts: list[Tensor], length: int) -> Tensor:
    """Ids (T,) of each text to float32 logits (B, T, V), padded on the right. InputError for a text of more than `length` tokens."""
    longest = max(map(len, texts))
    if longest > length:
        raise InputError(f"a text has {longest:,} tokens with what stands before it, and the model reads {length:,} at most")
    ids = pad_sequence(texts, batch_first=True)
    real = pad_sequence([torch.ones_like(text) for text in texts], batch_first=True)
    logits = net(input_ids=ids, attention_mask=real).logits.float()
    expect_shape(logits, (*ids.shape, None), f"logits of {type(net).__name__}")
    return logits


def _documents(state: Seen) -> list[Tensor]:
    """What each row has seen of its document."""
    return [tokens[len(tokens) - seen :] for tokens, seen in zip(state.tokens, state.seen.tolist(), strict=True)]


def _seen(documents: list[Tensor]) -> Seen:
    """The state of rows that have seen these."""
    counts = torch.tensor([len(document) for document in documents], device=documents[0].device)
    return Seen(pad_sequence(documents, batch_first=True, padding_side="left"), counts)


def _is_masked(config: Any, spec: str) -> bool:
    """Whether the architecture that a config names is a masked language model rather than a causal one."""
    for name in config.architectures or []:
        if name.endswith(CAUSAL):
            return False
        if name.endswith(MASKED):
            return True
    found = ", ".join(config.architectures or []) or "no architecture"
    raise InputError(f"{spec}: its config.json names {found}; a language model is needed, ...{', ...'.join((*CAUSAL, *MASKED))}")


def _tokenizer(words: Any, spec: str) -> LibraryTokenizer:
    """The tokenizer as ours. Before a text stands its BOS token; where it has none EOS, CLS, or else its first special one."""
    raw = getattr(words, "backend_tokenizer", None)
    if raw is None or not set(words.get_vocab()) - set(words.all_special_tokens):  # where files are missing transformers makes an empty one
        raise InputError(f"{spec}: there is no tokenizer.json, and nothing else to make a tokenizer of; put the model's own there")
    bos, eos = (
        [words.bos_token_id, words.eos_token_id, words.cls_token_id, *words.all_special_ids],
        [words.eos_token_id, words.sep_token_id],
    )
    begin = next((index for index in bos if index is not None), None)
    if begin is None:
        raise InputError(f"{spec}: its tokenizer has no special token to put before a text; name a bos_token in tokenizer_config.json")
    return LibraryTokenizer(raw, (begin, next((index for index in eos if index is not None), begin)))


def _check(net: nn.Module, tokenizer: LibraryTokenizer, spec: str, causal: bool) -> None:
    """InputError unless the model knows all ids of the tokenizer, and a causal one predicts a token without having seen it."""
    with torch.inference_mode():
        logits = read(net, [torch.tensor([0, 0, last]) for last in (0, 1)], 3)
    if logits.shape[-1] < tokenizer.size:
        raise InputError(
            f"{spec}: the tokenizer has {tokenizer.size:,} ids, the model knows {logits.shape[-1]:,}; give it its own tokenizer"
        )
    if causal and not torch.allclose(logits[0, :2], logits[1, :2], rtol=1e-3, atol=1e-3, equal_nan=True):
        raise InputError(f"{spec}: {type(net).__name__} sees the tokens that it should predict, so its probabilities mean nothing")


@contextmanager
def _as_one_line(spec: str) -> Iterator[None]:
    """Whatever transformers makes of a folder, or of a name that it cannot find, in one line."""
    try:
        yield
    except InputError:
        raise
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RuntimeError, ImportError, SafetensorError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        if "trust_remote_code" in reason:
            reason = "it comes with code of its own, which is not run here"
        found = "no language model that transformers opens" if Path(spec).exists() else "no folder, and no model that the hub gives"
        raise InputError(f"{spec}: {found}: {reason[:300]}") from error


@contextmanager
def _quiet() -> Iterator[None]:
    """No bars and no advice from transformers while this is open."""
    before, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(before)
        if bars:
            logging.enable_progress_bar()
