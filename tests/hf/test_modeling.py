"""Our models as classes of transformers 5.23: padding, cache, writing, training, and what is refused."""

import copy
import json

import pytest
import torch
from laws import assert_same, lively
from safetensors.torch import load_file, save_file
from torch.nn.functional import cross_entropy, mse_loss
from transformers import AutoModel, AutoModelForCausalLM, AutoModelForSequenceClassification, DynamicCache

from ritornello.config import to_dict
from ritornello.errors import InputError
from ritornello.hf.cache import StateCache
from ritornello.hf.modeling import RitornelloConfig, RitornelloForCausalLM, RitornelloForSequenceClassification
from ritornello.hf.padding import resets
from ritornello.hf.remote import AUTO_MAP
from ritornello.mixers.base import Context
from ritornello.model import LM, LMConfig
from ritornello.state import named_leaves

KINDS = {
    "hgrn2": ("hgrn2",) * 2,
    "lstm": ("lstm",),
    "attention": ("attention",) * 2,
    "mamba": ("mamba",),
    "rwkv7": ("rwkv7",) * 2,
    "hgrn2 window": ("hgrn2", "window"),
}
PAD = 0
A, B = [5, 3, 8, 9, 2, 6, 4], [7, 1, 8]
LEFT, RIGHT = ([A, [PAD] * 4 + B], [[1] * 7, [0] * 4 + [1] * 3]), ([A, B + [PAD] * 4], [[1] * 7, [1] * 3 + [0] * 4])


def config(layers: tuple[str, ...] = KINDS["hgrn2"], **options) -> RitornelloConfig:
    return RitornelloConfig(lm=to_dict(LMConfig(vocab=50, dim=32, layers=layers, **options)), bos_token_id=PAD, pad_token_id=PAD)


def random_model(cls: type = RitornelloForCausalLM, tied: bool = False, **options) -> torch.nn.Module:
    return lively(cls(config(tied=tied, **options))).eval()


@pytest.fixture(params=sorted(KINDS))
def model(request) -> RitornelloForCausalLM:
    return random_model(layers=KINDS[request.param])


def padded(pair: tuple[list, list]) -> dict[str, torch.Tensor]:
    return {"input_ids": torch.tensor(pair[0]), "attention_mask": torch.tensor(pair[1])}


def alone(model: torch.nn.Module, tokens: list[int]) -> torch.Tensor:
    """Logits (T, vocab) by our own model."""
    lm = model.model.lm
    return lm(torch.tensor([tokens]), lm.init_state(1))[0][0].detach()


def written(model: torch.nn.Module, **options) -> list[list[int]]:
    """Tokens behind the prompts, which come back unchanged but for the padding, now on the left."""
    found = model.generate(max_new_tokens=9, **options)
    assert [row[row != PAD].tolist() for row in found[:, : options["input_ids"].shape[1]]] == [
        row[row != PAD].tolist() for row in options["input_ids"] for _ in range(len(found) // len(options["input_ids"]))
    ]
    return found[:, options["input_ids"].shape[1] :].tolist()


def test_it_begins_as_ours_does():
    torch.manual_seed(3)
    ours = LM(config().architecture)
    torch.manual_seed(3)
    theirs = RitornelloForCausalLM(config()).model.lm
    assert all(torch.equal(theirs.state_dict()[name], value) for name, value in ours.state_dict().items())


@pytest.mark.parametrize("tied", [True, False])
def test_saved_and_opened_by_name(tied, tmp_path):
    model = random_model(tied=tied).float()
    model.save_pretrained(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {
        *("config.json", "generation_config.json", "model.safetensors", "modeling_ritornello.py")
    }
    assert json.loads((tmp_path / "config.json").read_text())["auto_map"] == AUTO_MAP
    assert ("model.lm.head.weight" in load_file(tmp_path / "model.safetensors")) is not tied
    again, report = AutoModelForCausalLM.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report.values())
    assert torch.equal(alone(again, A), alone(model, A))
    assert (again.get_output_embeddings().weight is again.get_input_embeddings().weight) is tied
    plain, report = AutoModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report.values())
    assert torch.equal(plain(torch.tensor([A])).last_hidden_state, again.model(torch.tensor([A])).last_hidden_state)
    labels, report = AutoModelForSequenceClassification.from_pretrained(tmp_path, num_labels=3, output_loading_info=True)
    assert report["missing_keys"] == {"score.weight"}
    assert labels.score.weight.std() > 0


def test_no_copy_of_our_code_is_saved(tmp_path):
    """transformers registers what it has opened by the code in a folder, and would then copy the file of the class."""
    RitornelloConfig.register_for_auto_class("AutoConfig")
    RitornelloForCausalLM.register_for_auto_class("AutoModelForCausalLM")
    random_model().save_pretrained(tmp_path)
    assert not (tmp_path / "modeling.py").exists()


def test_a_weight_that_is_missing_begins_as_ours_does(tmp_path):
    random_model().float().save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    name = "model.lm.blocks.0.time.rise"
    save_file({each: weight for each, weight in weights.items() if each != name}, tmp_path / "model.safetensors", {"format": "pt"})
    model, report = AutoModelForCausalLM.from_pretrained(tmp_path, output_loading_info=True)
    assert report["missing_keys"] == {name}
    assert torch.equal(model.get_parameter(name), LM(config().architecture).blocks[0].time.rise)
    assert torch.equal(model.model.lm.blocks[0].time.out.weight, weights["model.lm.blocks.0.time.out.weight"])


def test_padding_on_the_left_changes_nothing(model):
    """Neither logits nor the state, and so no position either."""
    found = model(**padded(LEFT))
    torch.testing.assert_close(found.logits[0], alone(model, A))
    torch.testing.assert_close(found.logits[1, 4:], alone(model, B))
    lm = model.model.lm
    _, state = lm(torch.tensor([B]), lm.init_state(1))
    found.past_key_values.batch_select_indices(torch.tensor([1]))
    assert_same(found.past_key_values.state, state)


def test_padding_on_the_right_changes_no_logits_before_it(model):
    found = model(**padded(RIGHT)).logits
    torch.testing.assert_close(found[0], alone(model, A))
    torch.testing.assert_close(found[1, :3], alone(model, B))


def test_only_padding_on_the_left_takes_resets():
    left, right = (torch.tensor(side[1]).bool() for side in (LEFT, RIGHT))
    assert resets(right, 7) is None
    assert resets(left, 3).tolist() == [[False, False, False], [True, False, False]]
    assert resets(left, 2) is None


@pytest.mark.parametrize("cuts", [(3, 4), (1, 1, 5), (5, 2)])
def test_any_pieces_give_the_whole(model, cuts):
    """The padding of the second row ends before, inside and behind the first piece; the mask is that of all tokens so far."""
    whole, cache, found, end = padded(LEFT), StateCache(), [], 0
    for piece in whole["input_ids"].split(cuts, 1):
        end += piece.shape[1]
        found.append(model(piece, attention_mask=whole["attention_mask"][:, :end], past_key_values=cache).logits)
    assert cache.get_seq_length() == 7
    torch.testing.assert_close(torch.cat(found, 1)[:, 4:], model(**whole).logits[:, 4:])


@pytest.mark.parametrize("side", [LEFT, RIGHT])
def test_prompts_of_unequal_length_are_continued_as_alone(model, side):
    found = written(model, **padded(side), do_sample=False)
    assert found == [written(model, input_ids=torch.tensor([tokens]), do_sample=False)[0] for tokens in (A, B)]


WAYS = {
    "greedy": {"do_sample": False},
    "beams": {"do_sample": False, "num_beams": 3, "num_return_sequences": 2},
    "sampling": {"do_sample": True, "num_return_sequences": 3, "top_k": 0},
    "sampled beams": {"do_sample": True, "num_beams": 2},
}


@pytest.mark.parametrize("way", sorted(WAYS))
def test_the_cache_is_only_faster(model, way):
    texts = []
    for options in ({"use_cache": True}, {"use_cache": False}, {"prefill_chunk_size": 2}):
        torch.manual_seed(5)
        texts.append(written(model, **padded(LEFT), **WAYS[way], **options))
    assert texts[0] == texts[1] == texts[2]
    assert len(set(map(tuple, texts[0]))) == len(texts[0])


def test_a_kept_state_goes_on_more_than_once(model):
    cache = StateCache()
    with torch.no_grad():
        model(torch.tensor([A]), past_key_values=cache)
    kept = copy.deepcopy(cache)
    for later in (B, [9, 9]):
        found = model.generate(torch.tensor([A + later]), past_key_values=copy.deepcopy(kept), max_new_tokens=5, do_sample=False)
        assert torch.equal(found, model.generate(torch.tensor([A + later]), max_new_tokens=5, do_sample=False))
    cache.reset()
    torch.testing.assert_close(model(torch.tensor([B]), past_key_values=cache).logits[0], alone(model, B))


def test_rows_of_the_state_are_repeated():
    cache = StateCache()
    assert cache.batch_size == -1
    assert not cache.is_croppable
    random_model()(**padded(LEFT), past_key_values=cache)
    before = [leaf for _, leaf in named_leaves(cache.state)]
    cache.batch_repeat_interleave(2)
    assert cache.batch_size == 4
    for leaf, (_, found) in zip(before, named_leaves(cache.state), strict=True):
        assert torch.equal(found, leaf[[0, 0, 1, 1]])


def test_no_cache_unless_asked_for_in_training():
    model = random_model()
    assert model(torch.tensor([A]), use_cache=False).past_key_values is None
    assert model.train()(torch.tensor([A])).past_key_values is None
    assert model(torch.tensor([A]), use_cache=True).past_key_values.seen == 7


def test_loss_is_the_mean_over_shifted_labels():
    model, batch = random_model(), padded(LEFT)
    labels = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)
    found = model(**batch, labels=labels)
    wanted = cross_entropy(torch.cat([alone(model, A)[:-1], model(**batch).logits[1, 3:-1]]), torch.tensor([*A[1:], *B]))
    torch.testing.assert_close(found.loss, wanted.float(), check_dtype=False)


def test_tuples_where_asked_for():
    model = random_model()
    assert torch.equal(model(torch.tensor([A]), return_dict=False)[0], model(torch.tensor([A])).logits)


def test_hidden_states_are_the_embedding_and_each_block():
    model = random_model()
    found = model(torch.tensor([A]), output_hidden_states=True).hidden_states
    lm, plain = model.model.lm, model.model(torch.tensor([A]))
    assert len(found) == 3
    assert plain.hidden_states is None
    assert not lm.drop._forward_hooks
    assert not lm.blocks[0]._forward_hooks
    torch.testing.assert_close(found[0][0], lm.embedding(torch.tensor(A)))
    torch.testing.assert_close(found[2], plain.last_hidden_state)
    torch.testing.assert_close(found[1], lm.blocks[0]([found[0]], lm.blocks[0].init_state(1), Context())[0])
    torch.testing.assert_close(lm.head(found[2]), model(torch.tensor([A])).logits)


@pytest.mark.parametrize(("keep", "places"), [(0, slice(None)), (2, slice(-2, None)), (torch.tensor([1, 4]), [1, 4])])
def test_logits_of_some_places_only(keep, places):
    model = random_model()
    torch.testing.assert_close(model(torch.tensor([A]), logits_to_keep=keep).logits[0], alone(model, A)[places])


def test_logits_stay_within_the_softcap():
    model = random_model(softcap=0.5)
    torch.testing.assert_close(model(torch.tensor([A])).logits[0], alone(model, A))
    assert model(torch.tensor([A])).logits.abs().max() <= 0.5


def test_embeddings_in_place_of_ids():
    model = random_model()
    embeddings = model.get_input_embeddings()(torch.tensor([A]))
    torch.testing.assert_close(model(inputs_embeds=embeddings).logits[0], alone(model, A))
    found = model.generate(inputs_embeds=embeddings, max_new_tokens=5, do_sample=False)
    assert torch.equal(found, model.generate(torch.tensor([A]), max_new_tokens=5, do_sample=False)[:, 7:])


def test_half_precision_keeps_the_memory_in_float32(tmp_path):
    random_model().float().save_pretrained(tmp_path)
    half = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.bfloat16)
    found = half(torch.tensor([A]))
    assert found.logits.dtype == torch.bfloat16
    assert next(named_leaves(found.past_key_values.state))[1].dtype == torch.float32
    torch.testing.assert_close(found.logits[0].double(), alone(random_model(), A), rtol=0.1, atol=0.5)


def test_more_words(tmp_path):
    model = random_model().float()
    model.resize_token_embeddings(60)
    model.save_pretrained(tmp_path)
    again = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert again.config.vocab_size == 60
    found = again(torch.tensor([[59, *A]])).logits
    assert found.shape[-1] == 60
    torch.testing.assert_close(found, model(torch.tensor([[59, *A]])).logits)


@pytest.fixture
def classifier(request) -> RitornelloForSequenceClassification:
    return random_model(RitornelloForSequenceClassification, layers=("hgrn2", "attention"))


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("side", [LEFT, RIGHT])
def test_labels_are_those_of_the_text_alone(classifier, side, causal):
    """Also with the mask (B, T, T) of BabyLM's fine-tuning in 2025."""
    batch = padded(side)
    if causal:
        batch["attention_mask"] = batch["attention_mask"][:, None].repeat(1, 7, 1).tril()
    found = classifier(**batch).logits
    torch.testing.assert_close(found, torch.cat([classifier(torch.tensor([tokens])).logits for tokens in (A, B)]))
    last = classifier.model(torch.tensor([B])).last_hidden_state[:, -1]
    torch.testing.assert_close(found[1:], classifier.score(last))


def test_losses_of_labels(classifier):
    logits = classifier(**padded(LEFT)).logits
    found = classifier(**padded(LEFT), labels=torch.tensor([1, 0])).loss
    torch.testing.assert_close(found, cross_entropy(logits, torch.tensor([1, 0])))
    classifier.config.problem_type = "regression"
    found = classifier(**padded(LEFT), labels=torch.zeros(2, 2)).loss
    torch.testing.assert_close(found, mse_loss(logits, torch.zeros(2, 2)), check_dtype=False)
    assert len(classifier(**padded(LEFT), output_hidden_states=True).hidden_states) == 3


ONE = torch.tensor([A])
REFUSED = {
    r"row 0 has padding inside its text; pad on the left": lambda model: model(ONE, torch.tensor([[1, 1, 0, 0, 1, 1, 1]])),
    r"other values than 0 and 1": lambda model: model(ONE, torch.tensor([[0.0, -1e9, 0, 0, 0, 0, 0]])),
    r"shape \(1, 6\); expected \(1, 7\)": lambda model: model(ONE, torch.ones(1, 6)),
    r"shape \(1, 7\); expected \(1, 8\)": lambda model: model(
        ONE, torch.tensor([[0, 1, 1, 1, 1, 1, 1]]), past_key_values=model(ONE[:, :1]).past_key_values
    ),
    r"token i sees all text up to i": lambda model: model(ONE, torch.ones(1, 7, 7)),
    r"a DynamicCache holds keys and values": lambda model: model(ONE, past_key_values=DynamicCache()),
    r"the state has 1 rows, the input 2": lambda model: model(**padded(LEFT), past_key_values=model(ONE).past_key_values),
    r"either input_ids or inputs_embeds": lambda model: model(),
    r"cannot be cropped": lambda model: model(ONE).past_key_values.crop(-2),
    r"so none can be added": lambda model: StateCache().update(ONE, ONE, 0),
    r"prefill chunking without a cache": lambda model: model.generate(ONE, use_cache=False, prefill_chunk_size=2, max_new_tokens=2),
    r"cache_implementation 'static'": lambda model: model.generate(ONE, cache_implementation="static", max_new_tokens=2),
    r"only supports .*ASSISTED": lambda model: model.generate(ONE, assistant_model=model, max_new_tokens=2),
    r"only supports .*CONTRASTIVE": lambda model: model.generate(ONE, penalty_alpha=0.5, top_k=4, max_new_tokens=2, trust_remote_code=True),
    r"does not support activation checkpointing": lambda model: model.activation_checkpointing_enable(),
}


@pytest.mark.parametrize("message", sorted(REFUSED))
def test_refused(message):
    with pytest.raises(ValueError, match=message):
        REFUSED[message](random_model())


def test_assisted_decoding_is_refused_by_older_releases_too(monkeypatch):
    """Those before `_supported_generation_modes`, such as 5.5, ask whether a model is stateful."""
    monkeypatch.setattr(RitornelloForCausalLM, "_supported_generation_modes", None)
    model = random_model()
    with pytest.raises(ValueError, match="assisted generation is not supported with stateful models"):
        model.generate(ONE, assistant_model=model, max_new_tokens=2)


def test_a_row_of_padding_has_no_label(classifier):
    with pytest.raises(InputError, match="row 1 is all padding; there is nothing to classify"):
        classifier(torch.tensor([A, A]), torch.tensor([[1] * 7, [0] * 7]))


def test_a_config_that_says_no_model():
    with pytest.raises(InputError, match=r"unknown field 'config\.json: lm\.dimm'"):
        RitornelloForCausalLM(RitornelloConfig(lm={"vocab": 9, "dimm": 3}))
    with pytest.raises(InputError, match=r"config\.json: lm: expected a table of LMConfig, found None"):
        RitornelloForCausalLM(RitornelloConfig())
