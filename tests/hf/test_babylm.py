"""What the official BabyLM pipelines do with a model folder, as they document it: 2024 (lm-evaluation-harness, Trainer) and 2025.

Both load by AutoModel..., AutoTokenizer or AutoProcessor with `trust_remote_code=True`, and say nothing of recurrent models.
"""

import copy
import warnings

import pytest
import torch
from example_run import WORDS, make_run
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoProcessor,
    AutoTokenizer,
    Trainer,
    TrainingArguments,
)

from ritornello.evals.subject import CausalSubject, Request
from ritornello.folder import load
from ritornello.hf.export import export_model

SENTENCES = ["the cat and the dog", "the hat", "a dog, the cat and the hat"]
OPENED = {"trust_remote_code": True}


@pytest.fixture
def run(tmp_path):
    return make_run(tmp_path / "run")


def opened(cls, out, **options):
    return cls.from_pretrained(out, **OPENED, **options)


def scored_in_2025(out, sentences: list[str], completions: list[str]) -> list[float]:
    """Tokens by the tokenizer's defaults, padded on the right; those that reach into the completion are summed, shifted by one."""
    words, model = opened(AutoProcessor, out, padding_side="right"), opened(AutoModelForCausalLM, out).eval()
    batch = words(sentences, padding=True, return_tensors="pt", return_offsets_mapping=True)
    starts = torch.tensor([len(text) - len(end) for text, end in zip(sentences, completions, strict=True)])
    wanted = (batch["offset_mapping"][..., 1] > starts[:, None]) & (batch["attention_mask"] == 1)
    with torch.no_grad():
        logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    found = logits[:, :-1].log_softmax(-1).gather(-1, batch["input_ids"][:, 1:, None])[..., 0]
    return (found * wanted[:, 1:]).sum(1).tolist()


def test_minimal_pairs_of_2025_are_scored_behind_bos(run):
    """The tokenizer puts BOS there, so the first token is scored too, as in our own protocol."""
    completions = ["dog", "the hat", "cat and the hat"]
    requests = [Request(text, len(text) - len(end)) for text, end in zip(SENTENCES, completions, strict=True)]
    ours = load(run)
    wanted = CausalSubject(ours.model, ours.tokenizer, "", "").log_probs(requests)
    found = scored_in_2025(export_model(run), SENTENCES, completions)
    torch.testing.assert_close(torch.tensor(found), wanted.float(), rtol=1e-5, atol=1e-5)


def test_minimal_pairs_of_2024_find_a_bos_to_condition_on(run):
    """An empty context becomes BOS, or EOS; the sentence is encoded behind a space without special tokens."""
    words = opened(AutoTokenizer, export_model(run))
    assert words.bos_token_id == words.eos_token_id == WORDS["bpe"].bos
    assert words.encode(" the cat", add_special_tokens=False) == WORDS["bpe"].encode(" the cat")


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("side", ["left", "right"])
def test_the_features_that_2025_classifies(run, side, causal):
    """AutoModel is called with ids and mask by place, (B, T, T) for causal models; the output has features and no logits."""
    out = export_model(run)
    words, model = opened(AutoTokenizer, out, padding_side=side), opened(AutoModel, out).eval()
    batch = words([(text, "the dog") for text in SENTENCES], padding=True, truncation=True, max_length=16, return_tensors="pt")
    mask = batch["attention_mask"]
    given = mask.unsqueeze(1).repeat(1, mask.shape[1], 1).tril(diagonal=0) if causal else mask
    output = copy.deepcopy(model)(batch["input_ids"], given)
    assert not hasattr(output, "logits")
    assert output.last_hidden_state.shape == (*mask.shape, opened(AutoConfig, out).hidden_size)
    for row, text in enumerate(SENTENCES):
        alone = model(words(text, "the dog", return_tensors="pt", truncation=True, max_length=16)["input_ids"]).last_hidden_state[0]
        torch.testing.assert_close(output.last_hidden_state[row][mask[row] == 1], alone)


def test_every_block_is_shown_in_hidden_states(run):
    out = export_model(run)
    found = opened(AutoModel, out)(torch.tensor([[1, 2]]), output_hidden_states=True)
    assert len(found.hidden_states) == opened(AutoConfig, out).num_hidden_layers + 1
    assert torch.equal(found.hidden_states[-1], found.last_hidden_state)


@pytest.mark.parity
@pytest.mark.parametrize("cls", [AutoModelForSequenceClassification, AutoModelForCausalLM])
def test_a_step_of_transformers_trainer(cls, run, tmp_path):
    """Fine-tuning in 2024: padded to a fixed length, accuracy from the logits; the weights that were trained are saved and read."""
    pytest.importorskip("accelerate")
    out = export_model(run)
    words, model = opened(AutoTokenizer, out), opened(cls, out)
    rows = [dict(words(text, padding="max_length", max_length=24)) for text in SENTENCES]
    for number, row in enumerate(rows):
        hidden = [token if real else -100 for token, real in zip(row["input_ids"], row["attention_mask"], strict=True)]
        row["labels"] = number % 2 if cls is AutoModelForSequenceClassification else hidden
    options = TrainingArguments(tmp_path / "out", max_steps=2, per_device_train_batch_size=2, use_cpu=True, report_to=[], disable_tqdm=True)
    before = model.get_input_embeddings().weight.clone()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what the libraries say of each other
        trainer = Trainer(model, options, train_dataset=rows, eval_dataset=rows)
        trainer.train()
        assert trainer.evaluate()["eval_loss"] > 0
        assert trainer.predict(rows).predictions.shape[0] == 3
        trainer.save_model(tmp_path / "tuned")
    assert not torch.equal(model.get_input_embeddings().weight, before)
    again = opened(cls, tmp_path / "tuned")
    batch = {name: torch.tensor([row[name] for row in rows]) for name in rows[0]}
    torch.testing.assert_close(again(**batch).loss, model.eval()(**batch).loss)
