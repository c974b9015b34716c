"""`ritornello export RUN --to hf`: what the folder holds, who opens it, what its card says, and how it is uploaded."""

import json
import subprocess
import sys
from types import SimpleNamespace

import huggingface_hub
import pytest
import torch
from example_run import WORDS, make_run
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

from ritornello import folder
from ritornello.cli import main
from ritornello.data.tokenizers import LibraryTokenizer, load_tokenizer
from ritornello.errors import InputError
from ritornello.hf.export import export_model, push
from ritornello.hf.tokenizer import write_tokenizer

TEXT = "Ein \U0001f600 für 2 <|endoftext|>  \n und <pad> [CLS] mehr"


@pytest.fixture
def run(tmp_path):
    return make_run(tmp_path / "run")


def test_only_these_files(run):
    assert {file.name for file in export_model(run).iterdir()} == {
        *("config.json", "generation_config.json", "model.safetensors", "modeling_ritornello.py", "README.md"),
        *("tokenizer.json", "tokenizer_config.json"),
    }


def test_opened_by_its_registered_classes(run):
    out, ours = export_model(run), folder.load(run)
    tokens = torch.tensor([ours.tokenizer.encode(TEXT)])
    wanted, _ = ours.model(tokens, ours.model.init_state(1))
    model, report = AutoModelForCausalLM.from_pretrained(out, output_loading_info=True)
    assert not any(report.values())
    assert torch.equal(model(tokens).logits, wanted)
    assert AutoConfig.from_pretrained(out).hidden_size == 32
    assert model.generation_config.eos_token_id == ours.tokenizer.eos
    assert torch.equal(AutoModel.from_pretrained(out)(tokens)[0], ours.model.features(tokens, ours.model.init_state(1))[0])
    assert AutoModelForSequenceClassification.from_pretrained(out, num_labels=3)(tokens).logits.shape == (1, 3)


REMOTE = """
import sys
from transformers import AutoModelForCausalLM, AutoTokenizer, pipeline
model, words = (cls.from_pretrained(sys.argv[1], trust_remote_code=True) for cls in (AutoModelForCausalLM, AutoTokenizer))
write = pipeline("text-generation", model=model, tokenizer=words)
text, = write("the cat", max_new_tokens=5, do_sample=False)
model.save_pretrained(sys.argv[2])
words.save_pretrained(sys.argv[2])
again = AutoModelForCausalLM.from_pretrained(sys.argv[2], trust_remote_code=True)
print([text["generated_text"], type(again).__name__, type(again).__module__])
"""


def test_opened_by_the_code_in_it(run, tmp_path):
    """In a process that has not imported ritornello, through a pipeline, and again from where transformers saved it."""
    words = [sys.executable, "-c", REMOTE, str(export_model(run)), str(tmp_path / "again")]
    done = subprocess.run(words, capture_output=True, text=True, env={"HF_HOME": str(tmp_path), "OMP_NUM_THREADS": "1"}, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.startswith("['the cat")
    assert done.stdout.endswith("'RitornelloForCausalLM', 'ritornello.hf.modeling']\n")
    assert not (tmp_path / "again" / "modeling.py").exists()  # no copy of our code


def test_importing_ritornello_imports_neither(run):
    code = "import sys, ritornello; sys.exit(len({'torch', 'transformers'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("kind", sorted(WORDS))
def test_the_tokenizer_is_ours_behind_bos(kind, run, tmp_path):
    ours = WORDS[kind]
    write_tokenizer(ours, tmp_path)
    for words in (AutoTokenizer.from_pretrained(tmp_path), _saved_again(tmp_path)):
        assert words.encode(TEXT, add_special_tokens=False) == ours.encode(TEXT)
        assert words.encode(TEXT) == [ours.bos, *ours.encode(TEXT)]
        assert words.encode("a", "b") == [ours.bos, *ours.encode("a"), ours.eos, *ours.encode("b")]
        assert words.decode(words.encode(TEXT), skip_special_tokens=True) == TEXT
        assert (words.bos_token_id, words.eos_token_id, words.pad_token_id) == (ours.bos, ours.eos, ours.eos)
        assert words(["a", "the cat"], padding=True)["attention_mask"][0][0] == 0
        assert set(words("a")) == {"input_ids", "attention_mask"}


def _saved_again(path):
    AutoTokenizer.from_pretrained(path).save_pretrained(path / "again")
    return AutoTokenizer.from_pretrained(path / "again")


def test_a_pad_token_of_its_own_is_used(tmp_path):
    raw = Tokenizer(models.WordLevel({"a": 0, "?": 1}, unk_token="?"))
    raw.pre_tokenizer = pre_tokenizers.Whitespace()
    raw.add_special_tokens(["<s>", "</s>", "<pad>"])
    special = write_tokenizer(LibraryTokenizer(raw), tmp_path)
    assert special == {"bos_token_id": 2, "eos_token_id": 3, "pad_token_id": 4}
    words = AutoTokenizer.from_pretrained(tmp_path)
    assert words.encode("a") == [2, 0]
    assert words("a a", padding="max_length", max_length=4)["input_ids"] == [4, 2, 0, 0]
    assert load_tokenizer(tmp_path / "tokenizer.json").encode("a </s>")[0] == 0


ROW = {"suite": "blimp", "task": "all", "metric": "accuracy (official)", "value": 0.71234, "stderr": 0.0123, "n": 1000, "chance": 0.5}
ROW |= {"by": "model", "reason": None}


def test_the_card_says_what_the_run_says(run):
    words = (export_model(run, name="someone/tale") / "README.md").read_text()
    for line in (
        "library_name: transformers",
        "# someone/tale",
        'AutoModelForCausalLM.from_pretrained("someone/tale")',
        "- Text: a tale, 4,321 words, 23,456 bytes",
        f"- `tale.txt`: SHA-256 `{'ab' * 32}`",
        "- Licence of the text: not given by whoever trained the model; ask before you use it",
        f"- Parameters: {sum(weight.numel() for weight in folder.load(run).model.parameters()):,}",
        f"- Layers: hgrn2*2, 32 wide; vocabulary of {WORDS['bpe'].size}",
        "- Training: 4 steps, 5,120 tokens, 1.5 minutes on 2 cores of a cpu",
        "- Made with Ritornello 0.1.0, commit abc",
        "None: the model has not been evaluated.",
    ):
        assert line in words, line


def test_the_card_has_the_scores_and_their_gaps(run):
    gap = ROW | {"suite": "bear", "value": None, "stderr": None, "reason": "no such | folder"}
    others = [ROW | {"task": "island"}, ROW | {"by": "5-gram"}]
    folder.write_json(run / "results.json", {"rows": [ROW | {"suite": "held-out"}, *others]})
    (run / "evaluation").mkdir()
    folder.write_json(run / "evaluation" / "results.json", {"rows": [ROW, gap]})
    words = (export_model(run) / "README.md").read_text()
    assert words.count("| accuracy (official) |") == 3
    assert "| blimp | all | accuracy (official) | 0.7123 | 0.012 | 1,000 | 0.5 |" in words
    assert "| bear | all | accuracy (official) | none: no such / folder |  | 1,000 | 0.5 |" in words


def test_a_licence_is_passed_on_without_its_markup(tmp_path):
    words = (export_model(make_run(tmp_path / "run", licence="CC0\n<b>`x`")) / "README.md").read_text()
    assert "- Licence of the text: CC0 &lt;b>'x'\n" in words


def test_the_card_of_a_run_that_was_stopped_and_of_one_never_trained(tmp_path):
    words = (export_model(make_run(tmp_path / "a", steps=2)) / "README.md").read_text()
    assert "- Training: 2 of 4 steps, not finished, 5,120 tokens" in words
    imported = make_run(tmp_path / "b", imported="gpt (llama layout)")
    (imported / "log.jsonl").unlink()
    assert "- Training: none here; imported from gpt (llama layout)" in (export_model(imported) / "README.md").read_text()


class FakeApi:
    """What `push` asks of the hub."""

    calls: tuple = ()
    error: Exception | None = None

    def create_repo(self, name, **options):
        FakeApi.calls = (name, options)
        if FakeApi.error:
            raise FakeApi.error
        return SimpleNamespace(repo_id=f"me/{name}")

    def upload_folder(self, *, repo_id, folder_path, commit_message):
        FakeApi.calls += (repo_id, sorted(path.name for path in folder_path.iterdir()))


@pytest.fixture
def hub(monkeypatch):
    monkeypatch.setattr(huggingface_hub, "HfApi", FakeApi)
    monkeypatch.setattr(FakeApi, "calls", ())
    monkeypatch.setattr(FakeApi, "error", None)
    return FakeApi


def test_pushed_where_asked_for_and_only_then(run, hub, capsys):
    assert main(["export", str(run), "--to", "hf"]) == 0
    assert hub.calls == ()
    assert capsys.readouterr().out == f"{run / 'hf'}\n"
    assert main(["export", str(run), "--to", "hf", "--out", str(run / "b"), "--push", "tale", "--json"]) == 0
    assert hub.calls[:3] == ("tale", {"private": True, "exist_ok": True}, "me/tale")
    assert hub.calls[3] == sorted(file.name for file in (run / "b").iterdir())
    assert json.loads(capsys.readouterr().out)["path"] == str(run / "b")
    assert "# tale" in (run / "b" / "README.md").read_text()


@pytest.mark.parametrize(
    "error",
    [OSError("no way\nthere"), ValueError("no way there"), huggingface_hub.errors.HTTPError("no way there")],
)
def test_a_push_that_fails_says_how_to_go_on(error, run, hub):
    hub.error, out = error, export_model(run)
    with pytest.raises(InputError, match=f"hf is written, but not pushed: no way there; once that is mended: hf upload tale {out}$"):
        push(out, "tale")


def test_refused(run, tmp_path, capsys):
    assert main(["export", str(run), "--to", "hf-layout", "--push", "tale"]) == 2
    assert "--push goes with --to hf, whose folder has a card; found --to hf-layout" in capsys.readouterr().err
    export_model(run)
    with pytest.raises(InputError, match="hf exists; choose another --out"):
        export_model(run)
    with pytest.raises(InputError, match="the model sees ahead"):
        export_model(make_run(tmp_path / "ahead", layers=("bidirectional",)))
