"""What a run works on: the text, its tokenizer, and the text as tokens. The same request gives the same material."""

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from ritornello import folder
from ritornello.config import from_dict
from ritornello.data.batches import Batches
from ritornello.data.corpus import Corpus, cached, read_corpus, verify_sources
from ritornello.data.tokenizers import ByteTokenizer, Tokenizer, load_tokenizer, loss_on, train_bpe
from ritornello.data.tokens import Tokens, encode_corpus
from ritornello.errors import InputError
from ritornello.experiments.console import Console
from ritornello.experiments.curriculum import first_pass
from ritornello.experiments.lessons import School, enrol
from ritornello.experiments.machine import pick_device
from ritornello.experiments.settings import Request, RunConfig
from ritornello.model import LM, LMConfig
from ritornello.train.distill import TeachConfig
from ritornello.train.loop import TrainConfig
from ritornello.train.losses import NextToken

BYTES_BELOW = 1_000_000  # words; a smaller text is read byte by byte
LEAST_TOKENS = 64  # of training text


class Sample(NamedTuple):
    """Some of the held-out text."""

    ids: np.ndarray  # (M,) flat
    ends: np.ndarray  # (documents,) int64
    whole: np.ndarray  # (documents,) bool: whether the document's own end is in the sample


@dataclass(frozen=True)
class Material:
    corpus: Corpus
    tokenizer: Tokenizer
    train: Tokens
    held_out: Tokens
    kind: str  # of the tokenizer: "bytes", "bpe", or the file it came from
    parent: LMConfig | None = None  # of the run whose weights this one begins with
    school: School | None = None  # teachers, if there are any

    @property
    def unique(self) -> int:
        """Positions in one pass over the training text: its tokens and one end for each document."""
        return len(self.train.ids) + len(self.train.ends)

    @property
    def bytes_per_token(self) -> float:
        """UTF-8 bytes of the corpus for each of its tokens."""
        return self.corpus.nbytes / max(1, len(self.train.ids) + len(self.held_out.ids))

    @property
    def bytes_per_target(self) -> float:
        """UTF-8 bytes of the corpus for each position a model is trained on: tokens and the ends of documents."""
        return self.corpus.nbytes / self._targets

    @property
    def words_per_target(self) -> float:
        """Words of the corpus, by its own count, for each position a model is trained on. A pass over all is all its words."""
        return self.corpus.words / self._targets

    @property
    def _targets(self) -> int:
        return max(1, self.unique + len(self.held_out.ids) + len(self.held_out.ends))

    def batches(self, config: TrainConfig) -> Batches:
        return Batches(
            self.train,
            bos=self.tokenizer.bos,
            eos=self.tokenizer.eos,
            batch=config.batch,
            length=config.length,
            seed=config.seed,
            pieces=config.pieces,
            first=first_pass(config.order, self.corpus, self.train, self.tokenizer),
        )

    def loss(self, model: LM, config: TrainConfig) -> nn.Module:
        """What trains the model: the next token, and the teachers' opinion of it if there are any."""
        return self.school.loss(model, config) if self.school else NextToken(model, config.loss_chunk, config.objective)

    def sample(self, limit: int) -> Sample:
        """About `limit` held-out tokens, the same for everyone: the beginnings of documents in a fixed mixed order, or all there is.

        Of one document at most a twentieth of the limit is taken, or 1,024 tokens, so that many sources take part.
        """
        ids, ends = self.held_out
        starts = np.concatenate([[0], ends[:-1]])
        if len(ids) <= limit:
            return Sample(np.asarray(ids), ends, np.ones(len(ends), bool))
        most = max(1024, limit // min(20, len(ends)))
        chosen, sizes, left = [], [], limit
        for row in np.random.default_rng(0).permutation(len(ends)).tolist():
            if left <= 0:
                break
            size = min(int(ends[row] - starts[row]), most, left)
            if size == 0:
                continue
            chosen.append(row)
            sizes.append(size)
            left -= size
        parts = [ids[starts[row] : starts[row] + size] for row, size in zip(chosen, sizes, strict=True)]
        whole = np.array([starts[row] + size == ends[row] for row, size in zip(chosen, sizes, strict=True)])
        return Sample(np.concatenate(parts), np.cumsum(sizes), whole)

    def nbytes(self, targets: Tensor) -> Tensor:
        """UTF-8 bytes behind each id, (N,) float64; for a tokenizer that loses text, the corpus's bytes a token, the same for all."""
        if self.tokenizer.lossless:
            return self.tokenizer.nbytes(targets).double()
        special = torch.tensor([self.tokenizer.bos, self.tokenizer.eos])
        return torch.where(torch.isin(targets, special), 0.0, self.bytes_per_token).double()


def gather(request: Request, console: Console) -> Material:
    """Read the corpus, make or load the tokenizer, encode. InputError for anything that cannot be used."""
    corpus = read_corpus(
        request.corpus, documents=request.documents, encoding=request.encoding, column=request.column, progress=console.progress
    )
    train, held_out = len(corpus.train), len(corpus.held_out)
    documents = f"{train:,} training document{'s' * (train != 1)} (each a {corpus.documents})"
    console.say(f"{corpus.name}: {corpus.words:,} words, {documents}, {held_out:,} held out")
    parent = None
    if request.start_from is not None:
        parent = from_dict(LMConfig, folder.read_config(Path(request.start_from)).get("model"), "model")
        for name in ("mixer", "channel", "dim", "layers", "tokenizer", "vocab"):
            if getattr(request, name) is not None:
                raise InputError(f"--{name} cannot go with --from: {request.start_from} brings its model and tokenizer")
        tokenizer, kind = load_tokenizer(Path(request.start_from) / "tokenizer.json"), "from " + request.start_from
    else:
        tokenizer, kind = _tokenizer(request, corpus, console)
    return _encode(corpus, tokenizer, kind, parent, request.taught, console, pick_device(request.device))


def gather_again(path: Path, config: RunConfig, console: Console) -> Material:
    """The material of a run that goes on: its tokenizer, and its corpus from the cache or read anew; InputError if that has changed."""
    spec, key = config.corpus.spec, config.corpus.key
    verify_sources(spec, config.corpus.sources, key=key)
    corpus = cached(key)
    if corpus is None:
        if spec == "-":
            raise InputError(f"{path}: its text came from standard input and is no longer in the cache; start anew with --from {path}")
        options = config.corpus
        corpus = read_corpus(spec, documents=options.documents, encoding=options.encoding, column=options.column, progress=console.progress)
    if corpus.key != key:
        raise InputError(f"{path}: the corpus {config.corpus.name} is not what it was when the run began; start anew with --from {path}")
    tokenizer = load_tokenizer(path / "tokenizer.json")
    if tokenizer.sha256 != config.tokenizer.sha256:
        raise InputError(f"{path / 'tokenizer.json'}: not the tokenizer this run began with; restore it")
    return _encode(corpus, tokenizer, config.tokenizer.kind, None, config.teach, console, config.train.device)


def _tokenizer(request: Request, corpus: Corpus, console: Console) -> tuple[Tokenizer, str]:
    kind = request.tokenizer or ("bytes" if corpus.words < BYTES_BELOW and request.vocab is None else "bpe")
    if kind == "bytes":
        if request.vocab is not None:
            raise InputError("--vocab goes with --tokenizer bpe; the bytes are 256 and cannot be more")
        return ByteTokenizer(), kind
    if kind == "bpe":
        vocab = request.vocab or vocabulary(corpus.words)
        console.say(f"training a byte-level BPE of {vocab:,} tokens")
        return train_bpe((text for _, text in corpus.pieces("train")), vocab, nbytes=corpus.nbytes), kind
    tokenizer = load_tokenizer(Path(kind))
    if (lost := loss_on(tokenizer, corpus.pieces("held_out"))) is not None:
        console.say(f"{kind} does not keep this text: {lost}; bits per byte are counted on the text itself")
    return tokenizer, kind


def vocabulary(words: int) -> int:
    """The default size of a BPE vocabulary, larger for more words."""
    sizes = ((500_000, 2048), (3_000_000, 4096), (30_000_000, 8192))
    return next((size for limit, size in sizes if words < limit), 16384)


def _encode(
    corpus: Corpus, tokenizer: Tokenizer, kind: str, parent: LMConfig | None, teach: TeachConfig | None, console: Console, device: str
) -> Material:
    train, held_out = (encode_corpus(corpus, split, tokenizer, progress=console.progress) for split in ("train", "held_out"))
    if len(train.ids) < LEAST_TOKENS:
        raise InputError(f"{corpus.name}: {len(train.ids)} tokens of training text are too few; the least is {LEAST_TOKENS}")
    if not len(held_out.ids):
        raise InputError(f"{corpus.name}: nothing is left to hold out; give more text")
    school = enrol(teach, corpus, tokenizer, train, console, device) if teach else None
    return Material(corpus, tokenizer, train, held_out, kind, parent, school)
