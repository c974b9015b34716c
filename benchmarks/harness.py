"""lm-evaluation-harness on minimal pairs that lie in local files: nothing is fetched."""

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ritornello.evals.pairs import MinimalPair

TASK = """task: local_{task}
dataset_path: json
dataset_kwargs: {{data_files: {{validation: {file}}}}}
validation_split: validation
output_type: multiple_choice
doc_to_text: ""
doc_to_target: 0
doc_to_choice: "{{{{[sentence_good, sentence_bad]}}}}"
metric_list: [{{metric: acc}}]
"""


def write_tasks(tasks: dict[str, list[MinimalPair]], folder: Path) -> None:
    """A file of pairs for each task, and one that tells the harness of it."""
    folder.mkdir(exist_ok=True)
    for task, pairs in tasks.items():
        file = folder / f"{task}.jsonl"
        file.write_text("".join(json.dumps({"sentence_good": pair.good, "sentence_bad": pair.bad}) + "\n" for pair in pairs))
        file.with_suffix(".yaml").write_text(TASK.format(task=task, file=file))


def log_probs(net: Any, words: Any, folder: Path, batch_size: int) -> dict[str, Tensor]:
    """log p of good and bad, (pairs, 2) float64 a task, of all tasks in the folder, under a model of transformers and its tokenizer."""
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    tasks = [file.stem for file in sorted(folder.glob("*.jsonl"))]
    found: Any = simple_evaluate(
        HFLM(pretrained=net, tokenizer=words, batch_size=batch_size, device="cpu"),
        tasks=[f"local_{task}" for task in tasks],
        task_manager=TaskManager(include_path=str(folder), include_defaults=False),
        bootstrap_iters=0,
    )
    return {task: of_samples(found["samples"][f"local_{task}"]) for task in tasks}


def of_samples(samples: list[dict[str, Any]]) -> Tensor:
    """log p of good and bad, (pairs, 2) float64, from what the harness logs of each pair."""
    ordered = sorted(samples, key=lambda sample: sample["doc_id"])
    return torch.tensor([[float(answer[0][0]) for answer in sample["resps"]] for sample in ordered], dtype=torch.float64)
