"""Folders in and out: what is taken over, what is refused by name, and that nothing untrusted is run, followed or dropped."""

import json
import os
from dataclasses import replace

import pytest
import tokenizers
import torch
from safetensors.torch import load_file, save_file

import ritornello
from ritornello import cli, folder
from ritornello.config import from_dict, to_dict
from ritornello.data.tokenizers import ByteTokenizer
from ritornello.errors import InputError
from ritornello.experiments.run import request, resume
from ritornello.experiments.settings import RunConfig
from ritornello.hf.convert import LAYOUTS, export_run, import_folder
from ritornello.mixers import mixer
from ritornello.model import LM, LMConfig

GRIFFIN = {"channel": "geglu", "embedding_scale": True, "softcap": 30.0}
MODELS = {  # what each layout can say, in sizes of its own
    "hgrn2": {"layers": ("hgrn2",) * 2},
    "llama": {"layers": ("attention",) * 2, "norm_eps": 1e-5, "tied": False},
    "mamba": {"layers": ("mamba",) * 2, "channel": None},
    "mamba2": {"layers": ("mamba2",) * 2, "channel": None},
    "recurrent_gemma": {"layers": ("rglru", "rglru", "window"), **GRIFFIN},
    "rwkv": {"layers": ("rwkv4",) * 2, "channel": "rwkv_channel", "norm": "layer", "embedding_norm": True},
}
SIZES = {
    "attention": {"head_dim": 8, "kv_heads": 1},
    "rglru": {"head_dim": 8},
    "window": {"head_dim": 8, "window": 5},
    "hgrn2": {"head_dim": 8},
}


def config(**changes) -> LMConfig:
    return LMConfig(**{"vocab": 257, "dim": 16, "mixers": {name: mixer(name).Config(**sizes) for name, sizes in SIZES.items()}} | changes)


def run_folder(path, model: LM):
    """A run folder as training leaves it."""
    path.mkdir(parents=True)
    words = ByteTokenizer()
    words.save(path / "tokenizer.json")
    folder.write_tensors(path / "model.safetensors", folder.weights(model), {"step": 1})
    table = {
        "format": 1,
        "plan": "",
        "corpus": {},
        "tokenizer": {},
        "model": to_dict(model.config),
        "train": {"length": 16},
        "evaluate": {},
    }
    folder.write_json(path / "config.json", table)
    return path


@pytest.fixture
def theirs(tmp_path):
    """A folder in the Llama layout."""
    return export_run(run_folder(tmp_path / "source", LM(config(**MODELS["llama"]))), tmp_path / "theirs")


def change(path, **settings):
    """Other settings in a config.json; `...` takes one out."""
    table = json.loads((path / "config.json").read_text()) | settings
    (path / "config.json").write_text(json.dumps({name: value for name, value in table.items() if value is not ...}))


def change_weights(path, function):
    weights = load_file(path / "model.safetensors")
    function(weights)
    save_file(weights, path / "model.safetensors")


def logits(path):
    model = folder.load(path).model
    with torch.no_grad():
        return model(torch.arange(24)[None] * 10, model.init_state(1))[0]


@pytest.mark.parametrize("kind", sorted(MODELS))
def test_out_and_in_again_is_the_same_model(kind, tmp_path):
    model = LM(config(**MODELS[kind]))
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.2 * torch.randn_like(weight))
    source = run_folder(tmp_path / "source", model)
    out = export_run(source)
    assert out == source / "hf-layout"
    assert json.loads((out / "config.json").read_text())["model_type"] == kind
    back = import_folder(out, tmp_path / "back")
    torch.testing.assert_close(logits(back), logits(source), rtol=1e-5, atol=1e-5)
    ours, again = (folder.load(path).model.config for path in (source, back))
    used = {*ours.layers, ours.channel} - {None}
    assert replace(again, mixers={}) == replace(ours, mixers={})
    assert set(again.mixers) <= used | {"window"}


def test_hgrn2_with_short_convolutions_goes_out_and_in(tmp_path):
    ours = {"hgrn2": mixer("hgrn2").Config(head_dim=8, conv=3)}
    source = run_folder(tmp_path / "source", LM(config(layers=("hgrn2",) * 2, mixers=ours, word_dropout=0.1, locked_dropout=True)))
    out = export_run(source)
    table = json.loads((out / "config.json").read_text())
    assert (table["use_short_conv"], table["conv_size"]) == (True, 3)
    assert load_file(out / "model.safetensors")["model.layers.1.attn.i_conv1d.weight"].shape == (16, 1, 3)
    back = import_folder(out, tmp_path / "back")
    assert folder.load(back).model.config.mixers["hgrn2"] == ours["hgrn2"]
    torch.testing.assert_close(logits(back), logits(source), rtol=1e-5, atol=1e-5)
    change(out, use_short_conv=False)
    with pytest.raises(InputError, match=r"not part of the model model.layers.0.attn.f_conv1d.weight"):
        import_folder(out, tmp_path / "other")


def test_an_import_is_a_run_like_any_other(theirs, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["import", str(theirs)]) == 0
    out = capsys.readouterr().out
    assert "Imported from theirs (llama layout): 0.02M parameters (attention*2, 16 wide)." in out
    assert "ritornello run TEXT --from runs/theirs" in out
    assert from_dict(RunConfig, folder.read_config(tmp_path / "runs/theirs")).imported == "theirs (llama layout)"
    assert cli.main(["runs"]) == 0
    assert "imported" in capsys.readouterr().out
    assert cli.main(["generate", "runs/theirs", "--prompt", "a", "--tokens", "3"]) == 0
    (tmp_path / "text.txt").write_text("to be or not to be\n\n" * 40)
    assert cli.main(["evaluate", "runs/theirs", "--text", "text.txt"]) == 0
    assert "bits per byte" in capsys.readouterr().out
    with pytest.raises(
        InputError, match="imported, so there is nothing to resume; go on learning from it with: ritornello run TEXT --from"
    ):
        resume(tmp_path / "runs/theirs")
    with pytest.raises(InputError, match="exists; choose another --out"):
        import_folder(theirs)
    small = {"steps": 1, "batch": 2, "length": 16, "evaluate": {"validations": 1, "sample_tokens": 4}}
    path = ritornello.run("text.txt", start_from="runs/theirs", quiet=True, **small)
    assert ritornello.load(path).config["model"]["layers"] == ["attention"] * 2


def test_export_prints_where_it_wrote(tmp_path, capsys):
    run = run_folder(tmp_path / "run", LM(config(**MODELS["mamba"])))
    assert cli.main(["export", str(run), "--to", "hf-layout", "--out", str(tmp_path / "out"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"path": str(tmp_path / "out")}
    assert {each.name for each in (tmp_path / "out").iterdir()} == {
        *("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")
    }
    assert cli.main(["export", str(run), "--to", "hf-layout", "--out", str(tmp_path / "out")]) == 2


def test_a_request_for_no_steps_is_still_refused():
    with pytest.raises(InputError, match=r"train\.steps: 0 is less than 1"):
        request(train={"steps": 0})


UNLIKE = {
    "layers": ({"layers": ("lstm",)}, "no Hugging Face layout has layers of lstm; there is hgrn2 of hgrn2; llama of attention"),
    "mixed": ({"layers": ("hgrn2", "attention")}, "no Hugging Face layout has layers of attention, hgrn2"),
    "channel": (
        {"layers": ("hgrn2",), "channel": None},
        "the hgrn2 layout cannot say this model: model.channel is None, there it is swiglu",
    ),
    "wiring": ({"wiring": "dense"}, "model.wiring is dense, there it is residual"),
    "norm": ({"norm": "layer"}, "model.norm is layer, there it is rms"),
    "cap": ({"softcap": 3.0}, "model.softcap is 3.0, there it is None"),
    "scale": ({"embedding_scale": True}, "model.embedding_scale is True, there it is False"),
    "two epsilons": (
        {**MODELS["mamba2"], "norm_eps": 1e-5},
        "the mamba2 layout cannot say this model: model.norm_eps is 1e-05, there it is 1e-06",
    ),
    "two head sizes": (
        {**MODELS["recurrent_gemma"], "mixers": {"rglru": mixer("rglru").Config(head_dim=4), "window": mixer("window").Config(head_dim=8)}},
        "model.mixers.window.head_dim is 8, there it is 4",
    ),
    "no cap": ({**MODELS["recurrent_gemma"], "softcap": None}, "model.softcap is None, there it is 30.0"),
}


@pytest.mark.parametrize("name", sorted(UNLIKE))
def test_a_model_that_no_layout_can_say_is_refused_in_one_line(name, tmp_path):
    changes, message = UNLIKE[name]
    run = run_folder(tmp_path / "run", LM(config(**{"layers": ("attention",)} | changes)))
    with pytest.raises(InputError) as caught:
        export_run(run)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (run / "hf-layout").exists()


SETTINGS = {
    "another kind": ({"model_type": "gpt2"}, "unknown model_type 'gpt2'"),
    "no kind": ({"model_type": ...}, "unknown model_type 'None'"),
    "a list": ({"model_type": ["llama"]}, "unknown model_type"),
    "another head": ({"architectures": ["LlamaForSequenceClassification"]}, "a language model of this layout is LlamaForCausalLM"),
    "unknown key": ({"quantization_config": {"bits": 4}}, "quantization_config: not known in this layout"),
    "own code": ({"auto_map": {"AutoModel": "evil.Model"}}, "auto_map: not known in this layout"),
    "lines": ({"a\nb": 1}, r"a\nb: not known in this layout"),
    "old scaling": (
        {"rope_scaling": {"type": "linear", "factor": 2.0}},
        "rope_scaling is {'type': 'linear', 'factor': 2.0}; such a model is read only without it",
    ),
    "scaling": (
        {"rope_parameters": {"rope_type": "llama3", "factor": 8.0}},
        "rope_type is 'llama3'; such a model is read only with 'default'",
    ),
    "scaling's key": ({"rope_parameters": {"rope_theta": 1e4, "factor": 8.0}}, "rope_parameters: factor: not known"),
    "two thetas": ({"rope_theta": 5.0}, "rope_theta: not known"),
    "activation": ({"hidden_act": "gelu"}, "hidden_act is 'gelu'; such a model is read only with 'silu' or 'swish'"),
    "bias": ({"mlp_bias": True}, "mlp_bias is True; such a model is read only with False"),
    "no number": ({"mlp_bias": 0}, "mlp_bias is 0"),
    "text": ({"hidden_size": "16"}, "hidden_size is '16'; such a model is read only with a whole number from 1 to 16,777,216"),
    "too large": ({"vocab_size": 10**12}, "vocab_size is 1000000000000"),
    "too deep": (
        {"num_hidden_layers": 10**6},
        "num_hidden_layers is 1000000; such a model is read only with a whole number from 1 to 1,000",
    ),
    "no epsilon": ({"rms_norm_eps": 0}, "rms_norm_eps is 0; such a model is read only with a positive number"),
    "truth": ({"tie_word_embeddings": "yes"}, "tie_word_embeddings is 'yes'; such a model is read only with true or false"),
    "heads": ({"num_attention_heads": 3}, "hidden_size over num_attention_heads: 16 does not divide into parts of 3"),
    "missing": ({"hidden_size": ...}, "hidden_size is None"),
    "larger": (
        {"vocab_size": 2**24, "hidden_size": 2**24, "head_dim": ...},
        "lm_head.weight has shape (257, 16), config.json makes it (16777216, 16777216)",
    ),
    "deeper": ({"num_hidden_layers": 3}, "missing model.layers.2.input_layernorm.weight, model.layers.2.mlp.down_proj.weight"),
    "shallower": ({"num_hidden_layers": 1}, "not part of the model model.layers.1.input_layernorm.weight"),
    "tied": ({"tie_word_embeddings": True}, "lm_head.weight and model.embed_tokens.weight differ, though config.json ties them"),
}


@pytest.mark.parametrize("name", sorted(SETTINGS))
def test_settings_that_are_not_known_exactly_are_refused_by_name(theirs, tmp_path, name):
    settings, message = SETTINGS[name]
    change(theirs, **settings)
    with pytest.raises(InputError) as caught:
        import_folder(theirs, tmp_path / "run")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("hgrn2", {"use_lower_bound": False}),
        ("hgrn2", {"attn": {"layers": [1], "num_heads": 2}}),
        ("hgrn2", {"elementwise_affine": False}),
        ("hgrn2", {"rms_norm_eps": 1e-3}),
        ("hgrn2", {"hidden_act": "powlu"}),
        ("hgrn2", {"num_heads": 4}),
        ("mamba", {"hidden_act": "gelu"}),
        ("mamba", {"d_model": 32}),
        ("mamba", {"ssm_cfg": {"layer": "Mamba2"}}),
        ("mamba", {"rms_norm": False}),
        ("mamba2", {"head_dim": 32}),
        ("mamba2", {"time_step_limit": [1.0, 0.5]}),
        ("mamba2", {"time_step_limit": ["0", "1"]}),
        ("mamba2", {"num_heads": 7}),
        ("rwkv", {"attention_hidden_size": 32}),
        ("recurrent_gemma", {"attention_bias": True}),
        ("recurrent_gemma", {"hidden_activation": "gelu"}),
        ("recurrent_gemma", {"embeddings_scale_by_sqrt_dim": False}),
        ("recurrent_gemma", {"block_types": ["recurrent", ["x"]]}),
        ("recurrent_gemma", {"intermediate_size": 95}),
    ],
)
def test_every_layout_refuses_what_it_does_not_compute(kind, settings, tmp_path):
    out = export_run(run_folder(tmp_path / "source", LM(config(**MODELS[kind]))), tmp_path / "theirs")
    change(out, **settings)
    with pytest.raises(InputError, match=next(iter(settings))):
        import_folder(out, tmp_path / "run")


def test_every_layout_has_an_example():
    assert set(MODELS) == set(LAYOUTS)


def test_weights_that_do_not_fit_are_named_in_one_line(theirs, tmp_path):
    change_weights(theirs, lambda weights: weights.update({"extra.weight": torch.ones(2), "lm_bias": weights.pop("lm_head.weight")}))
    with pytest.raises(InputError) as caught:
        import_folder(theirs, tmp_path / "run")
    assert str(caught.value) == (
        f"{theirs}: weights do not fit config.json: missing lm_head.weight; not part of the model extra.weight, lm_bias"
    )


def test_half_precision_comes_in_and_whole_numbers_do_not(theirs, tmp_path):
    def halve(weights):
        weights |= {name: weight.to(torch.bfloat16 if "norm" in name else torch.float16) for name, weight in weights.items()}

    def quantise(weights):
        weights["model.norm.weight"] = torch.ones(16, dtype=torch.int8)

    change_weights(theirs, halve)
    loaded = folder.load(import_folder(theirs, tmp_path / "run"))
    assert {weight.dtype for weight in loaded.model.parameters()} == {torch.float32}
    change_weights(theirs, quantise)
    with pytest.raises(InputError, match=r"model\.norm\.weight is stored as I8; only BF16, F16, F32 are read"):
        import_folder(theirs, tmp_path / "other")


def test_what_earlier_files_hold_besides_is_known(theirs, tmp_path):
    """The rates of rotation, and a tied head's copy of the embedding."""
    change_weights(theirs, lambda weights: weights.update({"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(4)}))
    change_weights(theirs, lambda weights: weights.update({"lm_head.weight": weights["model.embed_tokens.weight"].clone()}))
    change(theirs, tie_word_embeddings=True, rope_parameters=..., rope_theta=10000.0, rope_scaling=None)
    assert folder.load(import_folder(theirs, tmp_path / "run")).model.config.tied


def test_a_pickled_file_is_refused_by_name_with_the_way_out(theirs, tmp_path):
    os.rename(theirs / "model.safetensors", theirs / "pytorch_model.bin")
    (theirs / "optimizer.pt").write_bytes(b"")
    with pytest.raises(
        InputError, match=r"pytorch_model\.bin: not read, because loading such a file can run code .*save_pretrained\(NEW\)"
    ):
        import_folder(theirs, tmp_path / "run")
    os.remove(theirs / "pytorch_model.bin")
    os.remove(theirs / "optimizer.pt")
    with pytest.raises(InputError, match=r"no model\.safetensors and no model\.safetensors\.index\.json"):
        import_folder(theirs, tmp_path / "run")


@pytest.fixture
def parted(theirs):
    """The folder with its weights in two files."""
    weights = load_file(theirs / "model.safetensors")
    names = sorted(weights)
    places = {name: f"model-0000{1 + (name in names[::2])}-of-00002.safetensors" for name in names}
    for place in set(places.values()):
        save_file({name: weights[name] for name in names if places[name] == place}, theirs / place)
    os.remove(theirs / "model.safetensors")
    (theirs / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))
    return theirs, places


def test_weights_in_several_files(parted, tmp_path):
    assert torch.equal(logits(import_folder(parted[0], tmp_path / "run")), logits(tmp_path / "source"))


@pytest.mark.parametrize(("places", "message"), [
    ({"model.norm.weight": "../source/model.safetensors"}, "'../source/model.safetensors' is not the name of a safetensors file beside it"),
    ({"model.norm.weight": "/etc/passwd"}, "'/etc/passwd' is not the name"),
    ({"model.norm.weight": "..\\x.safetensors"}, "is not the name"),
    ({"model.norm.weight": "weights.bin"}, "'weights.bin' is not the name"),
    ({"model.norm.weight": "gone.safetensors"}, "gone.safetensors: no such file, though model.safetensors.index.json names it"),
    ({"other": "model-00001-of-00002.safetensors"}, "the index and the file differ on other"),
    ({"model.norm.weight": 3}, "its weight_map is no table of tensors and files"),
])  # fmt: skip
def test_an_index_is_not_trusted(parted, tmp_path, places, message):
    path, named = parted
    (path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": named | places}))
    with pytest.raises(InputError) as caught:
        import_folder(path, tmp_path / "run")
    assert message in str(caught.value)


def test_damaged_files_are_one_line(theirs, tmp_path):
    whole = (theirs / "model.safetensors").read_bytes()
    for data in (b"", b"\x80\x04.", whole[:-1], whole[:100], b"\xff" * 8 + whole[8:], whole[:8] + b"\n" + whole[9:]):
        (theirs / "model.safetensors").write_bytes(data)
        with pytest.raises(InputError, match=r"model\.safetensors: damaged or no safetensors file") as caught:
            import_folder(theirs, tmp_path / "run")
        assert "\n" not in str(caught.value)


def test_folders_that_are_none(tmp_path):
    with pytest.raises(InputError, match="no such folder"):
        import_folder(tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"no config\.json; give the folder of a model"):
        import_folder(tmp_path)


def test_the_tokenizer_may_lie_elsewhere_and_must_fit(theirs, tmp_path):
    os.rename(theirs / "tokenizer.json", tmp_path / "mine.json")
    with pytest.raises(InputError, match=r"tokenizer\.json: no such file; a model needs its tokenizer: .* --tokenizer"):
        import_folder(theirs, tmp_path / "run")
    assert folder.load(import_folder(theirs, tmp_path / "run", tmp_path / "mine.json")).tokenizer.kind == "bytes"
    words = tokenizers.Tokenizer.from_file(str(tmp_path / "mine.json"))
    words.add_tokens(["one more"])
    words.save(str(tmp_path / "large.json"))
    with pytest.raises(InputError, match="the tokenizer needs 258 ids with those around a document, the model has 257"):
        import_folder(theirs, tmp_path / "other", tmp_path / "large.json")


def test_ids_that_the_tokenizer_does_not_know_have_no_text(tmp_path):
    """Vocabularies are often rounded up: the logits stay, and what is drawn among the rest reads as nothing."""
    out = export_run(run_folder(tmp_path / "source", LM(config(vocab=257, **MODELS["llama"]))), tmp_path / "theirs")
    change(out, vocab_size=264)
    change_weights(
        out,
        lambda weights: weights.update(
            {name: torch.nn.functional.pad(weights[name], (0, 0, 0, 7)) for name in ("model.embed_tokens.weight", "lm_head.weight")}
        ),
    )
    loaded = folder.load(import_folder(out, tmp_path / "run"))
    assert loaded.tokenizer.size == loaded.model.config.vocab == 264
    assert loaded.tokenizer.token_bytes[257:] == [b""] * 7
    assert loaded.tokenizer.encode("aé<|unused 260|>") == ByteTokenizer().encode("aé<|unused 260|>")
    assert (loaded.tokenizer.bos, loaded.tokenizer.lossless) == (256, True)
    assert len(ritornello.generate(loaded, "a", max_tokens=5)) >= 1
    assert torch.equal(logits(tmp_path / "run")[..., :257], logits(tmp_path / "source"))
