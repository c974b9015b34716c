"""Do outside scorers find what we find, on the same models and the same items, number by number?

    python -m benchmarks.agreement_scorers RUN --data FOLDER [--only minicons] [--limit 30] [--keep]

RUN is a trained run. It is exported, and beside it stand a LLaMA and a BERT of transformers with weights at random and its vocabulary.

    lm_eval      lm-evaluation-harness, every pair of filtered BLiMP, a space before each sentence (protocol official-2024)
    minicons     sums of 2,000 of these sentences, and the BERT's pseudo-log-likelihoods of 200: one mask at a time, and within words
    lm_pub_quiz  BEAR: all statements of five relations, in all their templates, and the answers chosen

A row says how many numbers were compared, the largest difference in nats, and names every item that differs by more than 1e-3 nats or is
decided otherwise. `--keep` adds the rows to docs/results/agreement.jsonl.
"""

import argparse
import gzip
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

import tokenizers
import torch
import transformers
from tokenizers.processors import TemplateProcessing
from torch import Tensor

from benchmarks.harness import log_probs, write_tasks
from ritornello.config import to_dict
from ritornello.evals.bear import SUITE as BEAR
from ritornello.evals.pairs import MinimalPair, read_pairs
from ritornello.evals.subject import Request, Subject
from ritornello.evals.suite import spread
from ritornello.experiments.subjects import open_subject
from ritornello.folder import load
from ritornello.hf.export import export_model
from ritornello.provenance import collect

TOLERANCE = 1e-3  # nats
RELATIONS = ("P105", "P30", "P412", "P403", "P177")
OUT = Path(__file__).resolve().parents[1] / "docs" / "results" / "agreement.jsonl"


def models(run: Path, out: Path) -> dict[str, Path]:
    """Folders of the run's model and of two of transformers with its vocabulary."""
    ours, words = export_model(run, out / "ours"), load(run).tokenizer
    sizes = {"hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 96}
    llama = transformers.LlamaForCausalLM(transformers.LlamaConfig(vocab_size=words.size, **sizes))
    _at_random(llama).save_pretrained(out / "llama")
    transformers.AutoTokenizer.from_pretrained(ours).save_pretrained(out / "llama")
    bert = transformers.BertForMaskedLM(transformers.BertConfig(vocab_size=words.size + 1, max_position_embeddings=256, **sizes))
    _at_random(bert).save_pretrained(out / "bert")
    raw = tokenizers.Tokenizer.from_file(str(ours / "tokenizer.json"))
    raw.add_special_tokens(["[MASK]"])
    ends = {id: token.content for id, token in raw.get_added_tokens_decoder().items()}
    bos, eos = ends[words.bos], ends[words.eos]
    raw.post_processor = TemplateProcessing(single=f"{bos} $A {eos}", special_tokens=[(bos, words.bos), (eos, words.eos)])
    special = {"cls_token": bos, "sep_token": eos, "pad_token": eos, "mask_token": "[MASK]"}
    transformers.PreTrainedTokenizerFast(tokenizer_object=raw, **special).save_pretrained(out / "bert")
    return {name: out / name for name in ("ours", "llama", "bert")}


def _at_random(net: torch.nn.Module) -> Any:
    """Weights so large that no two texts are alike."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, weight in net.named_parameters():
            if weight.dim() > 1:
                weight.copy_(torch.randn(weight.shape, generator=generator) * (0.5 if "embed" in name else weight.shape[1] ** -0.5))
    return net.eval()


def _opened(path: Path) -> tuple[Any, Any]:
    """A causal model and its tokenizer, as an outside scorer is given them."""
    words = transformers.AutoTokenizer.from_pretrained(path)
    words.padding_side = "right"
    return transformers.AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval(), words


def by_lm_eval(path: Path, tasks: dict[str, list[MinimalPair]], scratch: Path) -> dict[str, Tensor]:
    """log p of good and bad, (pairs, 2) a task, by lm-evaluation-harness."""
    write_tasks(tasks, scratch)
    return log_probs(*_opened(path), scratch, batch_size=64)


def by_minicons(path: Path, texts: Sequence[str], metric: str | None = None) -> Tensor:
    """Sums of log p, (texts,), by minicons; `metric`: of a masked model."""
    from minicons.scorer import IncrementalLMScorer, MaskedLMScorer

    if metric is None:
        net, words = _opened(path)
        scorer, more = IncrementalLMScorer(net, "cpu", tokenizer=words), {}
    else:
        words = transformers.AutoTokenizer.from_pretrained(path)
        words.batch_encode_plus = words.__call__  # transformers 5 has it no more, and minicons 0.3.39 asks for it
        scorer, more = MaskedLMScorer(transformers.BertForMaskedLM.from_pretrained(path), "cpu", tokenizer=words), {"PLL_metric": metric}
    sums: list[float] = []
    for start in range(0, len(texts), 32):
        sums += scorer.sequence_score(list(texts[start : start + 32]), reduction=lambda each: each.sum().item(), **more)
    return torch.tensor(sums, dtype=torch.float64)


def by_lm_pub_quiz(path: Path, bear: Path, relations: Sequence[str], scratch: Path, limit: int | None = None) -> dict[str, Tensor]:
    """Scores (templates, instances, answers) of each relation, by lm-pub-quiz."""
    from lm_pub_quiz import Dataset, Evaluator

    with gzip.open(bear / "metadata_relations.json.gz", "rt", encoding="utf-8") as file:
        about = json.load(file)
    (scratch / "metadata_relations.json").write_text(json.dumps({name: about[name] for name in relations}))
    for name in relations:
        with gzip.open(bear / f"{name}.jsonl.gz", "rt", encoding="utf-8") as file:
            (scratch / f"{name}.jsonl").write_text("".join(spread(file.readlines(), limit)), encoding="utf-8")
    net, words = _opened(path)
    scorer = Evaluator.from_model(net, model_type="CLM", tokenizer=words, device="cpu")
    found = {}
    for relation in scorer.evaluate_dataset(Dataset.from_path(scratch), batch_size=64):
        table = relation.instance_table.sort_values(["template_index", "instance_index"], kind="stable")
        templates = table["template_index"].nunique()
        found[relation.relation_code] = torch.tensor(table["pll_scores"].tolist(), dtype=torch.float64).unflatten(0, (templates, -1))
    return found


@dataclass
class Kept:
    """A subject whose answers are kept."""

    subject: Subject
    answers: list[Tensor] = field(default_factory=list)

    def log_probs(self, requests: Sequence[Request], progress: Any = None) -> Tensor:
        self.answers.append(self.subject.log_probs(requests, progress))
        return self.answers[-1]

    def counts(self, requests: Sequence[Request]) -> Tensor:
        return self.subject.counts(requests)


def bear_by_us(path: Path, bear: Path, relations: Sequence[str], limit: int | None = None) -> dict[str, Tensor]:
    """Our scores (templates, instances, answers) of each relation, as the suite asks for them."""
    scores, subject = {}, open_subject(str(path))
    for task in BEAR.tasks(bear, limit):
        if task.name in relations:
            kept = Kept(subject)
            made = task.run(kept, None).predictions  # type: ignore[arg-type]
            scores[task.name] = torch.stack(kept.answers).unflatten(1, (len(made), -1))
    return scores


def pairs_by_us(path: Path, tasks: dict[str, list[MinimalPair]], protocol: str) -> dict[str, Tensor]:
    """Our log p of good and bad, (pairs, 2) a task."""
    subject = open_subject(str(path), protocol)
    requests = [Request(side) for pairs in tasks.values() for pair in pairs for side in (pair.good, pair.bad)]
    found = subject.log_probs(requests).view(-1, 2)
    return dict(zip(tasks, found.split([len(pairs) for pairs in tasks.values()]), strict=True))


def compared(package: str, theirs: dict[str, Tensor], ours: dict[str, Tensor]) -> dict[str, Any]:
    """A row: scores (..., candidates) of the same items from two sides, by task. The first of the best candidates is the one chosen."""
    beyond, otherwise, largest, numbers, items = [], [], 0.0, 0, 0
    for task in theirs.keys() | ours.keys():
        difference = (theirs[task] - ours[task]).abs()
        largest = max(largest, float(difference.max()))
        numbers, items = numbers + difference.numel(), items + difference[..., 0].numel()
        beyond += [[task, *place] for place in (~(difference <= TOLERANCE)).nonzero().tolist()]
        otherwise += [[task, *place] for place in (theirs[task].argmax(-1) != ours[task].argmax(-1)).nonzero().tolist()]
    found = {"scorer": package, "version": metadata.version(package), "numbers": numbers, "largest_difference_nats": largest}
    found |= {"tolerance_nats": TOLERANCE, "beyond_tolerance": sorted(beyond)}
    return found | {"decisions": items, "decided_otherwise": sorted(otherwise)}


Part = Callable[[dict[str, Path], Path, Path, int | None], Iterator[dict[str, Any]]]


def lm_eval(folders: dict[str, Path], data: Path, scratch: Path, limit: int | None) -> Iterator[dict[str, Any]]:
    tasks = {name: list(spread(pairs, limit)) for name, pairs in read_pairs(data / "babylm_eval" / "blimp_filtered").items()}
    for name in ("ours", "llama"):
        theirs = by_lm_eval(folders[name], tasks, scratch)
        about = {"model": name, "items": "blimp_filtered", "protocol": "official-2024"}
        yield compared("lm_eval", theirs, pairs_by_us(folders[name], tasks, "official-2024")) | about


def minicons(folders: dict[str, Path], data: Path, scratch: Path, limit: int | None) -> Iterator[dict[str, Any]]:
    pairs = [pair for found in read_pairs(data / "babylm_eval" / "blimp_filtered").values() for pair in found]
    for name, metric, protocol, count in (
        ("ours", None, "ritornello", 1000),
        ("llama", None, "ritornello", 1000),
        ("bert", "original", "ritornello", 100),
        ("bert", "within_word_l2r", "within-word", 100),
    ):
        chosen = list(spread(pairs, min(count, limit or count)))
        texts = [side for pair in chosen for side in (pair.good, pair.bad)]
        theirs = {"pairs": by_minicons(folders[name], texts, metric).view(-1, 2)}
        about = {"model": name, "items": "pairs of blimp_filtered, evenly spaced", "protocol": protocol}
        yield compared("minicons", theirs, pairs_by_us(folders[name], {"pairs": chosen}, protocol)) | about


def lm_pub_quiz(folders: dict[str, Path], data: Path, scratch: Path, limit: int | None) -> Iterator[dict[str, Any]]:
    bear = data / "bear" / "BEAR"
    for name in ("ours", "llama"):
        theirs = by_lm_pub_quiz(folders[name], bear, RELATIONS, scratch, limit)
        about = {"model": name, "items": f"BEAR: {', '.join(RELATIONS)}", "protocol": "ritornello"}
        yield compared("lm-pub-quiz", theirs, bear_by_us(folders[name], bear, RELATIONS, limit)) | about


PARTS: dict[str, Part] = {"lm_eval": lm_eval, "minicons": minicons, "lm_pub_quiz": lm_pub_quiz}


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.agreement_scorers", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--only", choices=tuple(PARTS))
    parser.add_argument("--limit", type=int, help="at most so many items of each task or relation: to try the script")
    parser.add_argument("--keep", action="store_true", help="add the rows to docs/results/agreement.jsonl")
    options = parser.parse_args()
    os.environ |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
    words = [word for word in sys.argv[1:] if word not in ("--data", str(options.run), str(options.data))]
    made_by = to_dict(collect()) | {"command": " ".join(["python -m benchmarks.agreement_scorers RUN --data FOLDER", *words])}
    made_by["versions"]["transformers"] = transformers.__version__
    made_by["run"] = load(options.run).config["plan"]
    with tempfile.TemporaryDirectory() as name:
        folders = models(options.run, Path(name))
        for part, run in PARTS.items():
            scratch = Path(name) / part
            scratch.mkdir()
            for row in run(folders, options.data, scratch, options.limit) if options.only in (None, part) else ():
                print(json.dumps(row), flush=True)
                if options.keep:
                    with OUT.open("a", encoding="utf-8") as file:
                        file.write(json.dumps(row | {"made_by": made_by}) + "\n")


if __name__ == "__main__":
    main()
