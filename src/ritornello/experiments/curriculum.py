"""How hard each training document is, by the kinds of data/order.py that need a model to say so."""

import re

import numpy as np

from ritornello.data.cache import new_folder
from ritornello.data.corpus import Corpus
from ritornello.data.documents import mix
from ritornello.data.order import BY_RUN, check_order, easy_first
from ritornello.data.tokenizers import Tokenizer
from ritornello.data.tokens import Tokens
from ritornello.errors import InputError
from ritornello.evals.ngram import fit
from ritornello.experiments.subjects import of_run
from ritornello.folder import load

FORMAT = 1  # of the cached orders
BEGINNING = 1024  # characters of a document that a run's model is asked about
GROUP = 2000  # documents asked about at a time


def first_pass(kind: str, corpus: Corpus, tokens: Tokens, tokenizer: Tokenizer) -> np.ndarray | None:
    """The order of the training documents in the first pass, (n,) int64; None where it is to be mixed.

    What takes long is kept beside the corpus in the cache. Raises InputError for an unknown kind, and for a run that has changed.
    """
    check_order(kind)
    kind = settled(kind)
    if kind == "random":
        return None
    sizes = np.diff(tokens.ends, prepend=0)
    if kind == "corpus":
        return np.arange(len(sizes))
    if kind == "length":
        return easy_first(sizes)
    key = kind.rpartition("#")[2] if kind.startswith(BY_RUN) else f"trigrams-{tokenizer.sha256[:32]}"
    place = corpus.folder / f"order{FORMAT}-{key}"
    if not place.exists():
        with new_folder(place) as fresh:
            hard = _by_run(kind, corpus) if kind.startswith(BY_RUN) else _by_trigrams(tokens, sizes, tokenizer)
            (fresh / "order").write_bytes(easy_first(hard).astype("<i8").tobytes())
    raw = (place / "order").read_bytes()
    order = np.frombuffer(raw[: len(raw) // 8 * 8], "<i8").astype(np.int64)
    if not np.array_equal(np.sort(order), np.arange(len(sizes))):
        raise InputError(f"{place}: damaged; remove that folder of the cache")
    return order


def settled(kind: str) -> str:
    """The kind with the checksum of the run that it names, so that another one is not taken for it later. InputError if there is none."""
    if not kind.startswith(BY_RUN) or re.search("#[0-9a-f]{32}$", kind):
        return kind
    return f"{kind}#{of_run(load(kind.removeprefix(BY_RUN))).sha256[:32]}"


def _by_trigrams(tokens: Tokens, sizes: np.ndarray, tokenizer: Tokenizer) -> np.ndarray:
    """Mean nats of a document's tokens and its end under the trigrams of the other half: a model knows what it was fitted on too well."""
    second = mix(np.arange(len(sizes), dtype=np.uint64)) % np.uint64(2) == 1
    nats = np.zeros(len(sizes))
    if second.all() or not second.any():
        return nats
    for scored in (second, ~second):
        ids, ends = _chosen(tokens, sizes, ~scored)
        model = fit(ids, ends, tokenizer.size, 3, bos=tokenizer.bos, eos=tokenizer.eos)
        ids, ends = _chosen(tokens, sizes, scored)
        begins = np.append(0, (ends + np.arange(1, len(ends) + 1))[:-1])
        nats[scored] = np.add.reduceat(model.nats(ids, ends), begins) / (sizes[scored] + 1)
    return nats


def _chosen(tokens: Tokens, sizes: np.ndarray, chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return np.asarray(tokens.ids)[np.repeat(chosen, sizes)], np.cumsum(sizes[chosen])


def _by_run(kind: str, corpus: Corpus) -> np.ndarray:
    """Nats a byte of each document's beginning under the model of "surprisal:RUN#checksum"."""
    run, _, sha256 = kind.removeprefix(BY_RUN).rpartition("#")
    subject = of_run(load(run))
    if not subject.sha256.startswith(sha256):
        raise InputError(f"train.order: {run} is no longer the run that the order of documents was to come from; restore it")
    found = np.zeros(len(corpus.train))
    for at in range(0, len(found), GROUP):
        texts = [corpus.text(span)[:BEGINNING] for span in corpus.train[at : at + GROUP]]
        scored = subject.stream([np.array(subject.tokenizer.encode(text), np.int64) for text in texts])
        nats = np.bincount(scored.documents.numpy(), scored.nats.double().numpy(), minlength=len(texts))
        found[at : at + GROUP] = nats / [max(1, len(text.encode())) for text in texts]
    return found
