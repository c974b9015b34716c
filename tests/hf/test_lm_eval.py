"""lm-evaluation-harness 0.4.13 runs an exported folder from its command line and finds what we find, item by item."""

import gzip
import json
import os
import subprocess
import sys

import pytest
import torch
from example_run import make_run

from ritornello.evals.subject import CausalSubject, Request
from ritornello.folder import load
from ritornello.hf.export import export_model

TASKS = ("adjunct_island", "anaphor_gender_agreement")
ITEMS = 100
YAML = """task: {task}
dataset_path: json
dataset_kwargs: {{data_files: {{validation: {file}}}}}
validation_split: validation
output_type: multiple_choice
doc_to_text: ""
doc_to_target: 0
doc_to_choice: "{{{{[sentence_good, sentence_bad]}}}}"
metric_list: [{{metric: acc}}]
"""


@pytest.mark.parity
@pytest.mark.parametrize("layers", [("hgrn2",) * 2, ("lstm", "attention")])
def test_the_same_log_probabilities(layers, real_data, tmp_path):
    """Protocol official-2024: a sentence behind a space, conditioned on BOS."""
    pytest.importorskip("lm_eval")
    run, items = make_run(tmp_path / "run", layers=layers), {}
    for task in TASKS:
        with gzip.open(real_data / "blimp" / "data" / f"{task}.jsonl.gz", "rt", encoding="utf-8") as file:
            lines = file.readlines()[:ITEMS]
        items[task], path = [json.loads(line) for line in lines], tmp_path / f"{task}.jsonl"
        path.write_text("".join(lines))
        (tmp_path / f"{task}.yaml").write_text(YAML.format(task=f"local_{task}", file=path))
    words = [sys.executable, "-m", "lm_eval", "run", "--model", "hf", "--device", "cpu", "--batch_size", "16", "--log_samples"]
    words += ["--model_args", f"pretrained={export_model(run)},trust_remote_code=True,dtype=float32", "--include_path", str(tmp_path)]
    words += ["--tasks", *(f"local_{task}" for task in TASKS), "--output_path", str(tmp_path / "out")]
    offline = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_HOME": str(tmp_path / "home")}
    done = subprocess.run(words, env=os.environ | offline, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    ours = load(run)
    subject = CausalSubject(ours.model, ours.tokenizer, "", "", "official-2024")
    (summary,) = (tmp_path / "out").glob("*/results_*.json")
    for task in TASKS:
        (samples,) = (tmp_path / "out").glob(f"*/samples_local_{task}_*.jsonl")
        rows = sorted(map(json.loads, samples.read_text().splitlines()), key=lambda row: row["doc_id"])
        found = torch.tensor([[float(answer[0][0]) for answer in row["resps"]] for row in rows], dtype=torch.float64)
        sentences = [item[side] for item in items[task] for side in ("sentence_good", "sentence_bad")]
        wanted = subject.log_probs([Request(text) for text in sentences]).view(ITEMS, 2)
        assert (found - wanted).abs().max() < 1e-3
        accuracy = (wanted[:, 0] >= wanted[:, 1]).double().mean()
        assert json.loads(summary.read_text())["results"][f"local_{task}"]["acc,none"] == pytest.approx(float(accuracy))
