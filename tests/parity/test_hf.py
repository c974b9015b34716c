"""Models in the Hugging Face layouts give the same logits here, and what is written is what was read: transformers 5.23.0, fla-core 0.6.0.

The default suite compares with golden tensors; `parity` opens the folders that we write with transformers itself.
"""

import json
from pathlib import Path

import make_hf
import outside
import pytest
import torch
from safetensors.torch import load_file, save_file

from ritornello.data.tokenizers import ByteTokenizer
from ritornello.folder import load
from ritornello.hf.convert import export_run, import_folder

KINDS = ["hgrn2", "llama", "mamba", "mamba2", "recurrent_gemma", "rwkv"]
OURS = {"bos_token_id", "eos_token_id", "dtype", "rescale_every"}  # what a written folder says in its own way


def folder_of(path: Path, table: dict, weights: dict) -> Path:
    path.mkdir()
    (path / "config.json").write_text(json.dumps(table))
    save_file({name: weight.contiguous() for name, weight in weights.items()}, path / "model.safetensors", {"format": "pt"})
    ByteTokenizer().save(path / "tokenizer.json")
    return path


@pytest.fixture(params=KINDS)
def gold(request):
    return outside.golden(f"hf_{request.param}")


def parts(gold: dict) -> tuple[dict, dict]:
    """config.json and the weights."""
    weights = {name.removeprefix("in."): value for name, value in gold.items() if name.startswith("in.") and name != "in.tokens"}
    return json.loads(bytes(gold["config"].tolist())), weights


def logits(run: Path, tokens: torch.Tensor) -> torch.Tensor:
    model = load(run).model
    with torch.no_grad():
        return model(tokens, model.init_state(len(tokens)))[0]


def test_imported_logits_are_the_outsides(gold, tmp_path):
    run = import_folder(folder_of(tmp_path / "theirs", *parts(gold)), tmp_path / "run")
    outside.close(logits(run, gold["in.tokens"]), gold["out.logits"], 1e-5)


def test_what_is_written_is_what_was_read(gold, tmp_path):
    """Names, shapes, values and settings; read again it gives the same logits."""
    table, weights = parts(gold)
    run = import_folder(folder_of(tmp_path / "theirs", table, weights), tmp_path / "run")
    back = export_run(run, tmp_path / "back")
    found = load_file(back / "model.safetensors")
    assert found.keys() == weights.keys()
    for name, weight in weights.items():
        torch.testing.assert_close(found[name], weight, rtol=1e-6, atol=1e-6)
    written = json.loads((back / "config.json").read_text())
    assert {name: value for name, value in written.items() if name not in OURS and value != table.get(name)} == {}
    outside.close(logits(import_folder(back, tmp_path / "again"), gold["in.tokens"]), logits(run, gold["in.tokens"]), 1e-6)


def test_hgrn2_of_2024_holds_gate_and_up_map_as_one(tmp_path):
    gold = outside.golden("hf_hgrn2")
    table, weights = parts(gold)
    del table["norm_eps"], table["attn"], table["attnres_block_size"], table["use_l2warp"], table["fuse_norm"], table["fuse_swiglu"]
    table |= {"rms_norm_eps": 1e-6, "share_conv_kernel": True, "attn_mode": "fused_chunk"}
    for layer in (0, 1):
        name = f"model.layers.{layer}.mlp.{{}}_proj.weight"
        weights[name.format("gate")] = torch.cat([weights[name.format("gate")], weights.pop(name.format("up"))])
    run = import_folder(folder_of(tmp_path / "theirs", table, weights), tmp_path / "run")
    outside.close(logits(run, gold["in.tokens"]), gold["out.logits"], 1e-5)


OTHERS = {
    "llama": {"attention_bias": True, "tie_word_embeddings": True, "rope_parameters": {"rope_theta": 50.0, "rope_type": "default"}},
    "mamba": {"use_bias": True, "use_conv_bias": False, "tie_word_embeddings": False, "time_step_rank": 3, "expand": 3, "conv_kernel": 3},
    "mamba2": {"use_bias": True, "n_groups": 1, "time_step_limit": (0.0, float("inf")), "layer_norm_epsilon": 1e-3},
    "rwkv": {"tie_word_embeddings": True, "rescale_every": 1},
    "recurrent_gemma": {"lru_width": 48, "block_types": ["attention", "recurrent"], "logits_soft_cap": 3.0, "conv1d_width": 2},
}


@pytest.mark.parity
@pytest.mark.parametrize("other", [False, True])
@pytest.mark.parametrize("kind", sorted(OTHERS))
def test_transformers_opens_what_is_written(kind, other, tmp_path):
    """Its own saved folder comes in, and the folder written from that gives it the same logits and the same tokens."""
    transformers = pytest.importorskip("transformers")
    theirs = make_hf.random_model(kind, make_hf.MODELS[kind] | (OTHERS[kind] if other else {}))
    theirs.save_pretrained(tmp_path / "theirs")
    ByteTokenizer().save(tmp_path / "theirs" / "tokenizer.json")
    run = import_folder(tmp_path / "theirs", tmp_path / "run")
    back = export_run(run, tmp_path / "back")
    opened = transformers.AutoModelForCausalLM.from_pretrained(back).eval()
    tokens = torch.randint(0, 260, (1, 40), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        wanted, found = (model(tokens, use_cache=False).logits for model in (theirs, opened))
    outside.close(logits(run, tokens), wanted, 2e-5)
    outside.close(found, wanted, 2e-5)
    words, ours = transformers.AutoTokenizer.from_pretrained(back), load(run).tokenizer
    assert words.encode("Ein \U0001f600 für 2") == ours.encode("Ein \U0001f600 für 2")
    assert (words.bos_token_id, words.eos_token_id) == (ours.bos, ours.eos)
