"""Fine-tuning: what a text is read at, whatever its padding; what is learned, kept and left alone."""

import copy
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from ritornello.errors import InputError
from ritornello.evals import finetune as finetuning
from ritornello.evals.encoder import encoder_of, shortened
from ritornello.evals.finetune import Classifier, Example, Recipe, Split, batches, finetune
from ritornello.evals.subject import CausalSubject
from ritornello.mixers import mixer
from ritornello.model import LM, LMConfig
from ritornello.train.loop import Diverged

RECIPE = Recipe(lr=3e-3, batch=16, epochs=4)
WORDS = [f"w{number}" for number in range(30)]


class Words:
    """A token a word: BOS 0, EOS 1, the words, then the newline."""

    bos, eos, size, lossless, sha256 = 0, 1, 64, True, "words"

    def encode_many(self, texts):
        return [np.array([self._id(word) for word in text.replace("\n", " \n ").split(" ") if word], np.int64) for text in texts]

    def _id(self, word):
        return 2 + WORDS.index(word) if word != "\n" else 40


def tiny(layers=("hgrn2", "hgrn2"), dim=32):
    torch.manual_seed(3)
    heads = {name: mixer(name).Config(head_dim=16) for name in layers if name in ("hgrn2", "attention")}
    return LM(LMConfig(vocab=64, dim=dim, layers=layers, mixers=heads))


def subject(layers=("hgrn2", "hgrn2")):
    return CausalSubject(tiny(layers), Words(), "tiny", "0")


def toy(count, seed):
    """Texts of 3 to 12 words; the class is whether w7 is among them."""
    generator = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        label = int(generator.random() < 0.4)
        text = [str(word) for word in generator.choice([word for word in WORDS if word != "w7"], generator.integers(3, 13))]
        if label:
            text[generator.integers(len(text))] = "w7"
        found.append(Example((" ".join(text),), label, " ".join(text)))
    return found


SPLIT = Split(toy(400, 0), toy(60, 1), toy(120, 2))


def right(labels, choices):
    return sum(label == choice for label, choice in zip(labels, choices, strict=True)) / len(labels)


def tune(layers=("hgrn2", "hgrn2"), split=SPLIT, recipe=RECIPE, score=right, seed=0):
    return finetune(encoder_of(subject(layers)), split, 2, recipe, score, seed)


@pytest.mark.parametrize("pool", ["first", "last", "mean"])
@pytest.mark.parametrize("layers", [("hgrn2", "hgrn2"), ("lstm",), ("mamba",), ("rwkv4",), ("hgrn2", "attention")])
def test_padding_changes_no_logit(layers, pool):
    texts = [[0, *range(2, 2 + size)] for size in (1, 9, 30, 4)]
    model = Classifier(encoder_of(subject(layers)), 3, Recipe(lr=1, batch=1, epochs=1, pool=pool)).eval()
    together = model(texts)
    alone = torch.cat([model([text]) for text in texts])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-4)
    assert together.std(0).max() > 1e-4 or pool == "first", "the texts differ, so their logits do"


@pytest.mark.parametrize("kind", ["gpt2", "mamba", "bert"])
def test_padding_changes_no_logit_of_a_model_of_transformers(kind):
    transformers = pytest.importorskip("transformers")
    sizes = {"vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 2}
    if kind == "gpt2":
        net = transformers.GPT2LMHeadModel(transformers.GPT2Config(vocab_size=64, n_embd=32, n_layer=2, n_head=2))
    elif kind == "mamba":
        net = transformers.MambaForCausalLM(transformers.MambaConfig(**sizes, state_size=4))
    else:
        net = transformers.BertForMaskedLM(transformers.BertConfig(**sizes, num_attention_heads=2, intermediate_size=64))
    wrapped = SimpleNamespace(net=net, length=32, **({"mask": 3} if kind == "bert" else {}))
    encoder = encoder_of(SimpleNamespace(model=wrapped, tokenizer=Words(), name=kind))
    assert encoder.pool == ("first" if kind == "bert" else "last")
    model = Classifier(encoder, 2, RECIPE).eval()
    texts = [[0, *range(2, 2 + size)] for size in (1, 9, 31, 4)]
    torch.testing.assert_close(model(texts), torch.cat([model([text]) for text in texts]), atol=1e-5, rtol=1e-4)
    before = copy.deepcopy(net.state_dict())
    assert tune_encoder(encoder).score > 0.5
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


def tune_encoder(encoder):
    return finetune(encoder, Split(SPLIT.train[:32], SPLIT.select[:20], SPLIT.report[:4]), 2, Recipe(lr=1e-3, batch=16, epochs=1), right)


def test_a_text_begins_with_bos_and_its_parts_are_lines():
    assert encoder_of(subject()).encode([("w0 w1", "w2"), ("w3",)], 128) == [[0, 2, 3, 40, 4], [0, 5]]


def test_a_masked_model_is_given_its_own_marks():
    net = SimpleNamespace(net=torch.nn.Linear(1, 1), length=6, mask=3)
    net.net.config, net.net.base_model = SimpleNamespace(hidden_size=1), torch.nn.Linear(1, 1)
    encoder = encoder_of(SimpleNamespace(model=net, tokenizer=Words(), name="masked"))
    assert encoder.encode([("w0", "w1"), ("w3 w4 w5 w6 w7 w8",)], 128) == [[0, 2, 1, 3, 1], [0, 5, 6, 7, 8, 1]]


def test_too_long_a_text_loses_the_ends_of_its_longest_parts():
    assert shortened([[1, 2, 3, 4, 5], [6, 7]], 5) == [[1, 2, 3], [6, 7]]
    assert shortened([[1, 2, 3], [4, 5, 6]], 3) == [[1], [4, 5]]
    encoded = encoder_of(subject()).encode([("w0 w1 w2 w3", "w4")], 4)
    assert encoded == [[0, 2, 40, 6]]


@pytest.mark.parametrize("layers", [("hgrn2", "hgrn2"), ("attention", "attention"), ("lstm",)])
def test_a_task_of_words_is_learned(layers):
    tuned = tune(layers, recipe=Recipe(lr=3e-3, batch=16, epochs=8))
    assert right([example.label for example in SPLIT.report], tuned.choices) > 0.95


@pytest.mark.parametrize("head", ["linear", "mlp"])
@pytest.mark.parametrize("pool", ["last", "mean"])
def test_every_head_and_pool_learns(head, pool):
    tuned = tune(recipe=Recipe(lr=1e-2, batch=16, epochs=8, head=head, pool=pool))
    assert right([example.label for example in SPLIT.report], tuned.choices) > 0.9


def test_the_first_token_of_a_recurrent_model_knows_nothing():
    """The trap of the official script: its choices are the commonest class for every text, however long it trains."""
    tuned = tune(recipe=Recipe(lr=3e-3, batch=16, epochs=8, pool="first"))
    assert set(tuned.choices) == {0}


def test_the_subject_stays_as_it_is():
    who = subject()
    before = copy.deepcopy(who.model.state_dict())
    encoder = encoder_of(who)
    finetune(encoder, SPLIT, 2, Recipe(lr=1e-2, batch=100, epochs=1), right)
    assert all(torch.equal(value, before[name]) for name, value in who.model.state_dict().items())
    assert not torch.equal(encoder.model.embedding.weight, before["embedding.weight"]), "the copy was trained"


def test_a_frozen_subject_is_trained_all_the_same():
    who = subject()
    who.model.requires_grad_(False)
    assert all(weight.requires_grad for weight in encoder_of(who).parameters())


def test_the_same_seed_gives_the_same_bits():
    found = []
    for drawn, seed in enumerate((5, 5, 6), 1):
        encoder = encoder_of(subject())
        torch.rand(drawn)  # where the process's own generator stands does not matter
        finetune(encoder, SPLIT, 2, Recipe(lr=1e-3, batch=32, epochs=2, head="mlp"), right, seed)
        found.append(encoder.state_dict())
    assert all(torch.equal(value, found[1][name]) for name, value in found[0].items())
    assert not torch.equal(found[0]["model.embedding.weight"], found[2]["model.embedding.weight"])


def test_the_process_generator_is_left_where_it_stood():
    encoder = encoder_of(subject())
    torch.manual_seed(7)
    want = torch.rand(3)
    torch.manual_seed(7)
    finetune(encoder, SPLIT, 2, Recipe(lr=1e-3, batch=64, epochs=1, head="mlp"), right)
    assert torch.equal(torch.rand(3), want)


def scripted(*scores, seen=None):
    """A score that says these, an epoch each, and keeps what is `seen` then."""
    left = list(scores)

    def score(labels, choices):
        if seen is not None:
            seen[0].append(copy.deepcopy(seen[1].state_dict()))
        return left.pop(0)

    return score


def test_the_best_epoch_is_kept():
    encoder = encoder_of(subject())
    kept = []
    tuned = finetune(encoder, SPLIT, 2, RECIPE, scripted(0.1, 0.9, 0.9, 0.2, seen=(kept, encoder)))
    assert tuned[1:] == (2, 4, 0.9)
    assert all(torch.equal(value, kept[1][name]) for name, value in encoder.state_dict().items())
    assert not torch.equal(kept[1]["model.embedding.weight"], kept[2]["model.embedding.weight"])


@pytest.mark.parametrize(
    ("threshold", "patience", "scores", "epoch", "epochs"),
    [
        (0.0, 2, (0.5, 0.4, 0.5), 1, 3),
        (0.0, 2, (0.5, 0.4, 0.6, 0.1, 0.1), 3, 5),
        (0.05, 2, (0.5, 0.52, 0.54), 3, 3),  # small gains are kept, but not waited for
        (0.0, None, (0.5, 0.4, 0.3, 0.2, 0.1, 0.0), 1, 6),
    ],
)
def test_patience(threshold, patience, scores, epoch, epochs):
    recipe = Recipe(lr=1e-4, batch=200, epochs=6, patience=patience, threshold=threshold)
    assert tune(recipe=recipe, score=scripted(*scores))[1:3] == (epoch, epochs)


def test_epochs_are_chosen_on_select_and_choices_made_of_report():
    seen = []
    tuned = tune(score=lambda labels, choices: seen.append(labels) or 0.0)
    assert all(labels == [example.label for example in SPLIT.select] for labels in seen)
    assert len(tuned.choices) == len(SPLIT.report)


@pytest.mark.parametrize(
    ("schedule", "warmup", "floor", "want"),
    [
        ("linear", 0.0, 0.0, [1, 0.75, 0.5, 0.25]),
        ("cosine", 0.5, 0.1, [1 / 3, 2 / 3, 1, 0.55]),
        ("cosine", 0.0, 0.0, [1, 0.8536, 0.5, 0.1464]),
    ],
)
def test_rates(monkeypatch, schedule, warmup, floor, want):
    rates = []

    class Spy(torch.optim.AdamW):
        def step(self):
            rates.append(self.param_groups[0]["lr"])

    monkeypatch.setattr(finetuning.torch.optim, "AdamW", Spy)
    tune(recipe=Recipe(lr=2.0, batch=200, epochs=2, schedule=schedule, warmup=warmup, floor=floor))
    assert [each / 2 for each in rates] == pytest.approx(want, abs=1e-4)


def test_a_gradient_is_clipped(monkeypatch):
    norms = []

    class Spy(torch.optim.AdamW):
        def step(self):
            norms.append(torch.stack([weight.grad.norm() for weight in self.param_groups[0]["params"] if weight.grad is not None]).norm())

    monkeypatch.setattr(finetuning.torch.optim, "AdamW", Spy)
    tune(recipe=Recipe(lr=1.0, batch=200, epochs=1, clip=1e-3))
    assert torch.stack(norms).tolist() == pytest.approx([1e-3, 1e-3], rel=1e-2)


def test_weight_decay_reaches_the_optimiser():
    weights = []
    for decay in (0.0, 0.9):
        encoder = encoder_of(subject())
        finetune(encoder, SPLIT, 2, Recipe(lr=1e-2, batch=100, epochs=2, weight_decay=decay), right)
        weights.append(encoder.model.embedding.weight.norm())
    assert weights[1] < 0.98 * weights[0]


def test_texts_of_one_length_share_a_batch():
    lengths = torch.randint(1, 100, (2000,), generator=torch.Generator().manual_seed(0)).tolist()
    found = batches(lengths, 16, torch.Generator().manual_seed(1))
    assert sorted(index for batch in found for index in batch) == list(range(2000))
    padded = sum(len(batch) * max(lengths[index] for index in batch) for batch in found)
    assert padded < 1.1 * sum(lengths)
    assert found == batches(lengths, 16, torch.Generator().manual_seed(1))
    assert found != batches(lengths, 16, torch.Generator().manual_seed(2))
    longest = [max(lengths[index] for index in batch) for batch in found]
    assert longest != sorted(longest), "batches come in random order"


def test_progress_counts_steps():
    told = []
    finetune(
        encoder_of(subject()), SPLIT, 2, Recipe(lr=1e-4, batch=100, epochs=2), right, 0, lambda done, whole: told.append((done, whole))
    )
    assert told == [(step, 8) for step in range(1, 9)]


@pytest.mark.parametrize("part", ["train", "select", "report"])
def test_a_split_without_texts_is_refused(part):
    with pytest.raises(InputError, match=f"nothing to {part}"):
        tune(split=SPLIT._replace(**{part: []}))


def test_numbers_that_run_out_are_told():
    with pytest.raises(Diverged, match="try a rate below 1e\\+30"):
        tune(recipe=Recipe(lr=1e30, batch=16, epochs=1))
    encoder = encoder_of(subject())
    with torch.no_grad():
        encoder.model.embedding.weight[20] = torch.nan
    with pytest.raises(Diverged):
        finetune(encoder, SPLIT, 2, RECIPE, right)


def test_a_logit_that_is_no_number_is_told():
    model = Classifier(encoder_of(subject()), 2, RECIPE)
    with torch.no_grad():
        model.head.weight[:] = torch.nan
    with pytest.raises(Diverged, match="logits"):
        finetuning.choices(model, [[0, 2]])


def test_a_scorer_without_weights_is_refused():
    with pytest.raises(InputError, match="bigram: gives scores only"):
        encoder_of(SimpleNamespace(name="bigram", model=lambda: 0, tokenizer=Words()))


def test_every_epoch_has_an_order_of_its_own(monkeypatch):
    orders = []

    def spy(lengths, size, generator):
        orders.append(batches(lengths, size, generator))
        return orders[-1]

    monkeypatch.setattr(finetuning, "batches", spy)
    tune(recipe=Recipe(lr=1e-4, batch=100, epochs=2))
    assert orders[0] != orders[1]
