"""lm-evaluation-harness 0.4.13 runs an exported folder from its command line and finds what we find, item by item."""

import json
import os
import subprocess
import sys

import pytest
from example_run import make_run

from benchmarks.harness import of_samples, write_tasks
from ritornello.evals.pairs import read_pairs
from ritornello.evals.subject import CausalSubject, Request
from ritornello.folder import load
from ritornello.hf.export import export_model

TASKS = ("adjunct_island", "anaphor_gender_agreement")
ITEMS = 100


@pytest.mark.parity
@pytest.mark.parametrize("layers", [("hgrn2",) * 2, ("lstm", "attention")])
def test_the_same_log_probabilities(layers, real_data, tmp_path):
    """Protocol official-2024: a sentence behind a space, conditioned on BOS."""
    pytest.importorskip("lm_eval")
    run = make_run(tmp_path / "run", layers=layers)
    items = {task: read_pairs(real_data / "blimp" / "data" / f"{task}.jsonl.gz")[task][:ITEMS] for task in TASKS}
    write_tasks(items, tmp_path)
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
        found = of_samples([json.loads(line) for line in samples.read_text().splitlines()])
        wanted = subject.log_probs([Request(side) for pair in items[task] for side in (pair.good, pair.bad)]).view(ITEMS, 2)
        assert (found - wanted).abs().max() < 1e-3
        accuracy = (wanted[:, 0] >= wanted[:, 1]).double().mean()
        assert json.loads(summary.read_text())["results"][f"local_{task}"]["acc,none"] == pytest.approx(float(accuracy))
