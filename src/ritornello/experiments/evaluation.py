"""The evaluation stage of a run: what the trained model knows, what it costs, and how it writes."""

import time
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ritornello import provenance
from ritornello.analysis.passage import passage, surprisal
from ritornello.evals.agreement import agreement_pairs, count_words
from ritornello.evals.ngram import choose_order
from ritornello.evals.pairs import MinimalPair, pair_rows, read_pairs
from ritornello.evals.perplexity import difference, held_out
from ritornello.evals.report import Row
from ritornello.evals.scoring import Scored, stream_nats
from ritornello.evals.subject import CausalSubject
from ritornello.experiments.console import Console
from ritornello.experiments.machine import matrix_products
from ritornello.experiments.material import Material, Sample
from ritornello.experiments.scaling import model_config
from ritornello.experiments.settings import EvaluateConfig, RunConfig
from ritornello.model import LM, parameters, state_nbytes
from ritornello.serve.native import fastest
from ritornello.serve.session import Engine, start, text_stream

TEMPERATURES = (0.5, 0.8, 1.0)
PASSAGE_TOKENS = 1200
PASSAGE_BYTES = 4000  # at least, so that a passage of bytes is more than a few lines
COUNTED = 20_000  # pieces of text whose words agreement pairs may use
LENGTHS = (1_000, 1_000_000)  # tokens at which the state's bytes are told

Suites = dict[str, dict[str, list[MinimalPair]]]


def suites(config: EvaluateConfig, material: Material, console: Console) -> Suites:
    """The minimal pairs of a run by suite: the files it names, or pairs made of the corpus's own words."""
    if config.pairs:
        return {Path(name).name.removesuffix(".jsonl"): read_pairs(Path(name), console.say) for name in config.pairs}
    texts = (text for _, text in islice(material.corpus.pieces("train"), COUNTED))
    made, reason = agreement_pairs(count_words(texts))
    if reason:
        console.say(reason)
    return {"agreement": made} if made else {}


def score_sample(model: LM, config: RunConfig, material: Material, sample: Sample) -> tuple[Scored, np.ndarray]:
    """Per-token nats of a held-out sample, without the ends of documents that the sample cut short; and which targets were kept."""
    tokenizer, train = material.tokenizer, config.train
    scored = stream_nats(
        model,
        torch.from_numpy(np.asarray(sample.ids, dtype=np.int64)),
        sample.ends.tolist(),
        bos=tokenizer.bos,
        eos=tokenizer.eos,
        length=max(2, train.length),
        carry=not model.grows,
        rows=max(8, train.batch),
    )
    last = sample.ends + np.arange(len(sample.ends))  # where each document's end stands among the targets
    keep = np.ones(len(scored.nats), bool)
    keep[last[~sample.whole]] = False
    return Scored(*(part[torch.from_numpy(keep)] for part in scored)), keep


def report(model: LM, config: RunConfig, material: Material, pairs: Suites, console: Console) -> dict[str, Any]:
    """Everything of results.json that the model has to do with."""
    model.eval()
    torch.set_num_threads(config.train.threads)
    with matrix_products(config.train.gemm):
        rows, headline = _held_out(model, config, material, console)
        subject = CausalSubject(model, material.tokenizer, "", "", config.evaluate.protocol)
        for suite, subtasks in pairs.items():
            console.progress(f"scoring {sum(map(len, subtasks.values())):,} minimal pairs of {suite}")
            rows += pair_rows(subject, suite, subtasks)
        console.progress("writing samples")
        engine = fastest(model.to("cpu"))  # a token at a time: no work for a GPU
        samples = [_write(engine, config, material, temperature) for temperature in TEMPERATURES]
        return {
            "rows": [asdict(row) for row in rows],
            "headline": headline,
            "passage": _passage(model, config, material),
            "samples": samples,
            "cost": _cost(config) | {"generate_tokens_per_second": samples[1]["tokens_per_second"]},
        }


def _held_out(model: LM, config: RunConfig, material: Material, console: Console) -> tuple[list[Row], dict[str, Any]]:
    """Rows for the model and the n-gram baseline on the same held-out tokens, and the two figures that go on top of the page."""
    sample = material.sample(config.evaluate.held_out_tokens)
    console.progress(f"scoring {len(sample.ids):,} held-out tokens")
    scored, keep = score_sample(model, config, material, sample)
    nbytes = material.nbytes(scored.targets)
    rows = list(held_out(scored.nats, scored.documents, nbytes))
    console.progress("fitting the n-gram baseline")
    name, nats = _ngram(config, material, sample)
    baseline = nats[torch.from_numpy(keep)]
    rows += held_out(baseline, scored.documents, nbytes, by=name)
    rows.append(difference(scored.nats, baseline, scored.documents, nbytes, than=name))
    bits, bits_ngram = rows[0], rows[2]
    return rows, {"bits_per_byte": bits.value, "stderr": bits.stderr, "baseline_bits_per_byte": bits_ngram.value, "baseline": name}


def _ngram(config: RunConfig, material: Material, sample: Sample) -> tuple[str, Tensor]:
    """The baseline's name and its nats (N,) of the sample, fitted on all training text or on documents spread over it."""
    ids, ends = material.train
    limit, part = config.evaluate.ngram_tokens, ""
    if len(ids) > limit:
        # whole documents from places spread over the corpus, the same share of every source
        share = limit / len(ids)
        chosen = np.flatnonzero(np.floor(np.arange(1, len(ends) + 1) * share) > np.floor(np.arange(len(ends)) * share))
        starts = np.concatenate([[0], ends[:-1]])
        parts = [ids[starts[row] : ends[row]] for row in chosen.tolist()]
        if parts:
            ids, ends = np.concatenate(parts), np.cumsum([len(each) for each in parts])
            part = f" on {(len(ids) + len(ends)) * material.words_per_target / 1e6:.1f}M words"
    tokenizer = material.tokenizer
    most = 10 if tokenizer.size <= 300 else 5
    held = (np.asarray(sample.ids), sample.ends)
    chosen_model = choose_order((ids, ends), held, tokenizer.size, bos=tokenizer.bos, eos=tokenizer.eos, max_order=most).model
    return f"{chosen_model.order}-gram{part} (modified Kneser-Ney)", torch.from_numpy(chosen_model.nats(*held))


def _passage(model: LM, config: RunConfig, material: Material) -> dict[str, Any]:
    """The beginning of the first held-out document that is long enough, or of the longest there is."""
    ids, ends = material.held_out
    sizes = np.diff(ends, prepend=0)
    wanted = max(PASSAGE_TOKENS, round(PASSAGE_BYTES / material.bytes_per_token))
    enough = np.flatnonzero(sizes >= wanted)
    row = int(enough[0]) if len(enough) else int(sizes.argmax())
    begin = int(ends[row] - sizes[row])
    tokens = np.asarray(ids[begin : begin + min(wanted, int(sizes[row]))]).tolist()
    later = row + 1
    while len(tokens) < 1000 and later < len(ends):  # short documents: read on into the next ones
        tokens += np.asarray(ids[ends[later - 1] : ends[later]]).tolist()
        later += 1
    nats, guesses = surprisal(model, material.tokenizer, tokens[: 4 * wanted])
    name = f"held-out document {row + 1:,} of {len(ends):,}" + (f" to {later:,}" if later > row + 1 else "")
    return passage(nats, tokens[: 4 * wanted], material.tokenizer.token_bytes, guesses, name)


def _write(engine: Engine, config: RunConfig, material: Material, temperature: float) -> dict[str, Any]:
    seed, limit = config.train.seed, config.evaluate.sample_tokens
    if config.tokenizer.kind == "bytes":
        limit *= 3
    session = start(engine, material.tokenizer.bos, seed)
    before = time.perf_counter()
    text = "".join(text_stream(session, material.tokenizer, "", temperature=temperature, max_tokens=limit))
    seconds = time.perf_counter() - before
    count = len(material.tokenizer.encode(text)) + 1
    return {
        "temperature": temperature,
        "seed": seed,
        "prompt": "",
        "text": text,
        "tokens": count,
        "tokens_per_second": round(count / seconds, 1),
    }


def _cost(config: RunConfig) -> dict[str, Any]:
    """Sizes, memory, and the bytes of a sequence's state beside the keys and values of a transformer of the same width and depth."""
    model = config.model
    even = model.dim + model.dim % 2  # rotary positions turn pairs of channels
    twin = model_config(model.vocab, even, ("attention",) * len(model.layers))
    return {
        "parameters": parameters(model),
        "parameters_without_embedding": parameters(model, embedding=False),
        "peak_memory_bytes": provenance.peak_memory(),
        "state_bytes": {str(length): state_nbytes(model, length) for length in LENGTHS},
        "kv_bytes": {str(length): state_nbytes(twin, length) for length in LENGTHS},
    }
