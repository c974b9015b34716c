"""Models of transformers 5.23 as ours: the laws on tiny ones of several architectures, opening, and what is refused."""

import json
import shutil

import pytest
import tokenizers
import torch
import transformers
from example_run import make_run
from safetensors.torch import load_file, save_file
from tokenizers import models, pre_tokenizers, processors
from torch import nn

from ritornello import folder
from ritornello.errors import InputError
from ritornello.evals.masked import MaskedSubject
from ritornello.evals.scoring import log_prob
from ritornello.evals.subject import CausalSubject, Request
from ritornello.experiments.subjects import open_subject
from ritornello.hf.export import export_model
from ritornello.hf.model import HFModel, open_model
from ritornello.state import rows

WORDS = ["<s>", "</s>", "[MASK]", *"abcdefghijklmnopqrstuvwxyz", ".", ",", "!"]
VOCAB = len(WORDS) + 1
SIZES = {"vocab_size": VOCAB, "hidden_size": 16, "num_hidden_layers": 2}
CONFIGS = {
    "gpt2": transformers.GPT2Config(vocab_size=VOCAB, n_embd=16, n_layer=2, n_head=2, n_positions=24),
    "llama": transformers.LlamaConfig(**SIZES, num_attention_heads=2, intermediate_size=32),
    "opt": transformers.OPTConfig(**SIZES, num_attention_heads=2, ffn_dim=32, word_embed_proj_dim=16),
    "bloom": transformers.BloomConfig(vocab_size=VOCAB, hidden_size=16, n_layer=2, n_head=2),
    "mamba": transformers.MambaConfig(**SIZES, state_size=4),
    "rwkv": transformers.RwkvConfig(**SIZES),
}
BERT = transformers.BertConfig(**SIZES, num_attention_heads=2, intermediate_size=32, max_position_embeddings=20)
TEXT = torch.tensor([[5, 3, 8, 9, 2, 6, 4, 1], [7, 1, 8, 8, 3, 2, 5, 6]])


def lively(net: nn.Module) -> nn.Module:
    """Weights at random, so large that every token matters."""
    with torch.no_grad():
        for weight in net.parameters():
            weight.add_(torch.randn(weight.shape) * 0.3)
    return net.eval()


def words(**ends) -> transformers.PreTrainedTokenizerFast:
    """A tokenizer of letters, with whatever special tokens."""
    raw = tokenizers.Tokenizer(models.WordLevel({word: index for index, word in enumerate(WORDS)}, unk_token=","))
    raw.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    raw.add_special_tokens(list(ends.values()))
    raw.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 1)])
    return transformers.PreTrainedTokenizerFast(tokenizer_object=raw, **ends)


def saved(path, net: nn.Module, tokenizer=None) -> str:
    net.save_pretrained(path)
    (tokenizer or words(bos_token="<s>", eos_token="</s>", mask_token="[MASK]")).save_pretrained(path)
    return str(path)


@pytest.fixture(params=sorted(CONFIGS))
def net(request) -> nn.Module:
    return lively(transformers.AutoModelForCausalLM.from_config(CONFIGS[request.param]))


@pytest.fixture
def gpt2() -> nn.Module:
    return lively(transformers.AutoModelForCausalLM.from_config(CONFIGS["gpt2"]))


@pytest.fixture
def bert() -> nn.Module:
    return lively(transformers.BertForMaskedLM(BERT))


def alone(net: nn.Module, text: torch.Tensor) -> torch.Tensor:
    """Logits (T, V) of one text, asked of transformers itself."""
    return net(input_ids=text[None]).logits[0].detach()


def same(found, wanted):
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("cuts", [(8,), (3, 5), (2, 2, 4)])
@torch.inference_mode()
def test_split_and_reset(net, cuts):
    """Cut anywhere, from a state that is not fresh, rows reset at different places: each document as transformers reads it alone."""
    model = HFModel(net, 24)
    reset = torch.zeros(2, 8, dtype=torch.bool)
    reset[0, [0, 5]] = True
    reset[1, 3] = True
    _, state = model(TEXT.flip(1), model.init_state(2))
    found = []
    for tokens, begins in zip(TEXT.split(cuts, 1), reset.split(cuts, 1), strict=True):
        logits, state = model(tokens, state, begins)
        found.append(logits)
    logits = torch.cat(found, 1)
    assert logits.dtype == torch.float32
    same(logits[0, :5], alone(net, TEXT[0, :5]))
    same(logits[0, 5:], alone(net, TEXT[0, 5:]))
    same(logits[1, :3], alone(net, torch.cat([TEXT[1].flip(0), TEXT[1, :3]]))[8:])
    same(logits[1, 3:], alone(net, TEXT[1, 3:]))
    assert state.seen.tolist() == [3, 5]
    assert state.tokens.tolist() == [[0, 0, *TEXT[0, 5:].tolist()], TEXT[1, 3:].tolist()]
    after, _ = model(TEXT[:1, :2], rows(state, slice(0, 1)))
    same(after[0], alone(net, torch.cat([TEXT[0, 5:], TEXT[0, :2]]))[3:])


def test_log_prob_is_the_sum_by_hand(net):
    texts = [[0, 5, 3, 8], [0, 7], [0, 9, 9, 4, 2, 6]]
    found = log_prob(HFModel(net, 24), texts)
    for text, value in zip(texts, found.tolist(), strict=True):
        chances = alone(net, torch.tensor(text)).log_softmax(-1)
        assert value == pytest.approx(sum(float(chances[at, token]) for at, token in enumerate(text[1:])), rel=1e-4)


def test_logits_are_float32_and_carry_gradients(gpt2):
    model = HFModel(gpt2.bfloat16(), 24)
    logits, _ = model(TEXT, model.init_state(2))
    assert logits.dtype == torch.float32
    logits.sum().backward()
    assert gpt2.transformer.wte.weight.grad.abs().sum() > 0


def test_logits_of_another_shape_are_refused():
    """As transformers' RWKV gives for several rows of one token."""
    net = lively(transformers.AutoModelForCausalLM.from_config(CONFIGS["rwkv"]))
    model = HFModel(net, 24)
    with pytest.raises(InputError, match=r"logits of RwkvForCausalLM: expected shape \(2, 1, any\), found \(2, 2, 33\)"):
        model(TEXT[:, :1], model.init_state(2))


def test_too_long_a_text(gpt2):
    model = HFModel(gpt2, 24)
    _, state = model(TEXT.repeat(1, 3), model.init_state(2))
    with pytest.raises(InputError, match="25 tokens with what stands before it, and the model reads 24 at most"):
        model(TEXT[:, :1], state)


def test_opened_from_a_folder(gpt2, tmp_path):
    spec = saved(tmp_path / "small", gpt2.bfloat16())
    subject = open_subject(spec)
    assert isinstance(subject, CausalSubject)
    assert (subject.name, subject.window) == ("small", 24)
    assert {weight.dtype for weight in subject.model.parameters()} == {torch.float32}
    assert not subject.model.net.training
    chances = alone(subject.model.net, torch.tensor([0, 3, 4, 5])).log_softmax(-1)
    by_hand = [float(chances[at, token]) for at, token in enumerate([3, 4, 5])]
    found = subject.log_probs([Request("abc"), Request("abc", 1)])
    assert found.tolist() == pytest.approx([sum(by_hand), sum(by_hand[1:])], rel=1e-4)


def test_a_copy_is_the_same_subject_and_a_changed_one_is_not(gpt2, tmp_path):
    first = open_model(saved(tmp_path / "first", gpt2)).sha256
    shutil.copytree(tmp_path / "first", tmp_path / "second")
    assert open_model(str(tmp_path / "second")).sha256 == first
    ends = words(bos_token="</s>", eos_token="</s>")
    assert open_model(saved(tmp_path / "ends", gpt2, ends)).sha256 != first
    gpt2.config.layer_norm_epsilon = 0.1
    assert open_model(saved(tmp_path / "config", gpt2)).sha256 != first
    gpt2.config.layer_norm_epsilon = 1e-5
    gpt2.transformer.ln_f.bias.data[0] += 1e-3
    assert open_model(saved(tmp_path / "weights", gpt2)).sha256 != first


def test_a_masked_folder_is_a_masked_subject(bert, tmp_path):
    subject = open_subject(saved(tmp_path / "bert", bert), "within-word")
    assert isinstance(subject, MaskedSubject)
    assert (subject.name, subject.protocol, subject.model.mask, subject.model.length) == ("bert", "within-word", 2, 20)
    assert not subject.model.net.training
    assert subject.log_probs([Request("abc")]).item() < 0


def test_our_own_export_is_our_own_model(tmp_path):
    run = make_run(tmp_path / "run")
    subject, ours = open_subject(str(export_model(run))), folder.load(run)
    assert type(subject.model) is type(ours.model)
    requests = [Request("Once upon a time."), Request("A tale.", 2)]
    torch.testing.assert_close(subject.log_probs(requests), open_subject(str(run)).log_probs(requests))


@pytest.mark.parametrize(
    ("ends", "begin", "end"),
    [
        ({"eos_token": "</s>"}, "</s>", "</s>"),
        ({"cls_token": "<s>", "sep_token": "</s>"}, "<s>", "</s>"),
        ({"unk_token": ","}, ",", ","),
    ],
)
def test_what_stands_before_a_text_without_a_bos(gpt2, tmp_path, ends, begin, end):
    tokenizer = open_model(saved(tmp_path / "m", gpt2, words(**ends))).tokenizer
    assert (WORDS[tokenizer.bos], WORDS[tokenizer.eos]) == (begin, end)


def refused(spec: str) -> str:
    with pytest.raises(InputError) as error:
        open_subject(spec)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_refused_tokenizers(gpt2, bert, tmp_path):
    assert "no special token to put before a text; name a bos_token" in refused(saved(tmp_path / "none", gpt2, words()))
    assert "tokenizer has no mask token" in refused(saved(tmp_path / "mask", bert, words(bos_token="<s>")))
    more = words(bos_token="<s>", pad_token="<pad>", unk_token="<more>")
    assert f"the tokenizer has {VOCAB + 1} ids, the model knows {VOCAB}" in refused(saved(tmp_path / "more", gpt2, more))
    spec = saved(tmp_path / "gone", gpt2)
    for file in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / "gone" / file).unlink()
    assert "there is no tokenizer.json" in refused(spec)


def test_refused_weights(gpt2, tmp_path):
    path = tmp_path / "m"
    spec = saved(path, gpt2)
    weights = load_file(path / "model.safetensors")
    part = {name: weight for name, weight in weights.items() if "h.1.mlp" not in name}
    save_file(part, path / "model.safetensors", {"format": "pt"})
    assert "lack 4 weights of a GPT2LMHeadModel, the first transformer.h.1.mlp.c_fc.bias" in refused(spec)
    (path / "model.safetensors").write_bytes(b"not tensors")
    assert "no language model that transformers opens" in refused(spec)
    (path / "model.safetensors").rename(path / "pytorch_model.bin")
    assert "can run code hidden in it" in refused(spec)


def test_refused_models(gpt2, tmp_path):
    path = tmp_path / "m"
    spec = saved(path, gpt2)
    config = json.loads((path / "config.json").read_text())

    def with_config(**changes) -> str:
        (path / "config.json").write_text(json.dumps(config | changes))
        return refused(spec)

    assert "names GPT2ForSequenceClassification; a language model is needed" in with_config(architectures=["GPT2ForSequenceClassification"])
    assert "names no architecture" in with_config(architectures=None)
    assert "no language model that transformers opens" in with_config(model_type="none_such")
    code = {"AutoConfig": "code.Config", "AutoModelForCausalLM": "code.Model"}
    (path / "code.py").write_text("raise SystemExit('code of a folder was run')")
    assert "code of its own, which is not run here" in with_config(model_type="none_such", auto_map=code)
    seeing = transformers.BertLMHeadModel(transformers.BertConfig(**SIZES, num_attention_heads=2, intermediate_size=32, is_decoder=False))
    assert "BertLMHeadModel sees the tokens that it should predict" in refused(saved(tmp_path / "bert", lively(seeing)))


def test_neither_folder_nor_model(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert "no such run folder" in refused(str(tmp_path / "none"))
    (tmp_path / "empty").mkdir()
    assert "no run folder" in refused(str(tmp_path / "empty"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert refused("nobody/no-model").startswith("nobody/no-model: no folder, and no model that the hub gives")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:1")
    assert refused("nobody/no-model").startswith("nobody/no-model: no folder of that name here: the Hugging Face hub does not answer")
