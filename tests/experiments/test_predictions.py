"""The predictions file: from its decisions alone the challenge's own rule gives our scores, and the published ones."""

import gzip
import json
import os
import zipfile
from pathlib import Path

import pytest
import torch
from told import Told

from ritornello import cli
from ritornello.config import read_file
from ritornello.errors import InputError
from ritornello.evals import ewok
from ritornello.evals.files import records
from ritornello.evals.suite import SUITES
from ritornello.experiments.console import Console
from ritornello.experiments.predictions import write_predictions
from ritornello.experiments.suites import evaluate, evaluate_suites

QUIET = Console(quiet=True)
OFFICIAL = "accuracy (official)"


def official_mean(part, right):
    """As the challenge averages: the share of lines whose prediction is the right text, over subtasks. `right`: texts by subtask."""
    shares = []
    for subtask, made in part.items():
        said = [each["pred"].strip() == text.strip() for each, text in zip(made["predictions"], right(subtask), strict=True)]
        shares.append(sum(said) / len(said))
    return sum(shares) / len(shares)


def letters(request):
    """Prefers whatever has few of the letter e; so there are ties."""
    return -float(request.text[request.start :].count("e"))


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory):
    data = Path(os.environ.get("RITORNELLO_DATA", Path(__file__).parents[2] / "../shared/data"))
    if not data.is_dir():
        pytest.skip("no real data: set RITORNELLO_DATA to its folder")
    out = tmp_path_factory.mktemp("evaluation")
    report = evaluate_suites(Told(letters), ["supplement", "ewok", "entity", "wug", "reading"], data, out, QUIET)
    file = out / "predictions.json"
    lacking = write_predictions(out, file, data)
    return data, report, file, lacking


def test_the_challenges_rule_gives_our_scores(evaluated):
    data, report, file, _ = evaluated
    found = read_file(file)

    def good(subtask):
        return [record.fields["sentence_good"] for record in records(data / SUITES["supplement"].path / f"{subtask}.jsonl.gz")]

    assert official_mean(found["blimp_supplement"], good) == pytest.approx(report.row("supplement", "all", OFFICIAL).value)
    stories = {}
    for split in ("regular", "ambiref", "move_contents"):
        for record in records(data / SUITES["entity"].path / f"{split}.jsonl.gz"):
            stories.setdefault(f"{split}_{record.fields['numops']}_ops", []).append(record.fields["options"][0])
    assert found["entity_tracking"].keys() == stories.keys()
    assert official_mean(found["entity_tracking"], stories.get) == pytest.approx(report.row("entity", "all", OFFICIAL).value)
    assert len(found["wug_adj"]["wug_adj_nominalization"]["predictions"]) == 200
    assert len(found["wug_past"]["wug_past_tense"]["predictions"]) == 50
    assert found["reading"]["reading"]["predictions"][3].keys() == {"id", "pred", "prev_pred"}


def test_ewok_is_numbers_and_its_texts_lie_in_an_archive(evaluated):
    data, report, file, _ = evaluated
    decisions = read_file(file)["ewok"]
    assert {each["pred"] for part in decisions.values() for each in part["predictions"]} == {1, 2}
    shares = [sum(each["pred"] == 1 for each in part["predictions"]) / len(part["predictions"]) for part in decisions.values()]
    assert sum(shares) / 11 == pytest.approx(report.row("ewok", "all", OFFICIAL).value)
    items = ewok.read_items(data / "ewok" / ewok.ARCHIVE, data / "ewok" / ewok.VOCABULARY)

    def good(domain):
        return [text for item in items[domain] for text in item.targets]

    with zipfile.ZipFile(file.with_suffix(".ewok.zip")) as archive:
        with pytest.raises(RuntimeError, match="encrypted"):
            archive.read("predictions.json")
        texts = json.loads(archive.read("predictions.json", pwd=ewok.PASSWORD))
    assert official_mean(texts, good) == pytest.approx(report.row("ewok", "all", OFFICIAL).value)
    secrets = {text for found in items.values() for item in found for text in (*item.contexts, *item.targets)}
    assert all(each.keys() == {"id", "pred"} for part in decisions.values() for each in part["predictions"])
    for path in (file.with_suffix(".ewok.zip"), file.parent / "results.json", *(file.parent / "ewok").iterdir()):
        written = path.read_bytes().decode("latin1")
        assert not any(secret in written for secret in secrets), path.name


def test_it_says_what_is_lacking(evaluated, tmp_path):
    *_, lacking = evaluated
    assert lacking == ["blimp: 0 of 67 subtasks", "glue: 0 of 7 subtasks"]
    with pytest.raises(InputError, match="holds no decisions; evaluate one of blimp, entity, ewok"):
        write_predictions(tmp_path, tmp_path / "x.json", tmp_path)


def keep(folder, suite, task, subject="0", protocol="ritornello", predictions=({"id": "x", "pred": "y"},)):
    """A folder of an evaluation with one task."""
    (folder / suite).mkdir(parents=True, exist_ok=True)
    kept = {"key": {"subject": subject, "protocol": protocol}, "predictions": list(predictions)}
    (folder / suite / f"{task}.json").write_text(json.dumps(kept))
    (folder / "results.json").write_text(json.dumps({"subject": {"sha256": "0", "protocol": "ritornello"}}))


@pytest.mark.parametrize("other", [{"subject": "1"}, {"protocol": "official-2025"}, {"predictions": ()}])
def test_only_decisions_of_this_subject(tmp_path, other):
    keep(tmp_path, "blimp", "a")
    keep(tmp_path, "blimp", "b", **other)
    assert "blimp: 1 of 67 subtasks" in write_predictions(tmp_path, tmp_path / "x.json", tmp_path)
    assert list(read_file(tmp_path / "x.json")["blimp"]) == ["a"]


def test_decisions_on_other_items_are_refused(evaluated, tmp_path):
    data, *_ = evaluated
    keep(tmp_path, "ewok", "agent-properties", predictions=[{"id": "x", "pred": 1}] * 2209)
    with pytest.raises(InputError, match="agent-properties: 2209 decisions on 2210 rows"):
        write_predictions(tmp_path, tmp_path / "x.json", data)


@pytest.mark.parametrize(("size", "macro"), [("10M", 58.57), ("100M", 58.51)])
def test_published_decisions_come_out_as_published(real_data, tmp_path, size, macro):
    """Two BabyHGRN models on the Supplement: a subject that decides as they did, through the whole way to the file."""
    decisions = json.loads(gzip.decompress((real_data / f"babyhgrn_predictions/babyhgrn_{size}.json.gz").read_bytes()))["blimp_supplement"]
    lines = sorted(decisions.items())

    class Decided(Told):
        def log_probs(self, requests, progress=None):
            made = lines.pop(0)[1]
            assert len(requests) == 2 * len(made)
            return torch.tensor([[0.0, -1.0] if each == "1" else [-1.0, 0.0] for each in made]).flatten().double()

    evaluate_suites(Decided(letters), ["supplement"], real_data, tmp_path, QUIET)
    write_predictions(tmp_path, tmp_path / "x.json", real_data)

    def good(subtask):
        return [record.fields["sentence_good"] for record in records(real_data / SUITES["supplement"].path / f"{subtask}.jsonl.gz")]

    assert 100 * official_mean(read_file(tmp_path / "x.json")["blimp_supplement"], good) == pytest.approx(macro, abs=0.005)


def test_the_command(real_data, tmp_path, monkeypatch, capsys):
    """`ritornello evaluate` with files of one's own, and the decisions written."""
    monkeypatch.setattr("ritornello.experiments.suites.open_subject", lambda spec, protocol, device: Told(letters))
    (tmp_path / "facts.jsonl").write_text('{"statements": ["eel", "cat"], "answer": 1}\n')
    (tmp_path / "ends.txt").write_text("we see the sea\nwe go far\n")
    own = ["--statements", str(tmp_path / "facts.jsonl"), "--last-words", str(tmp_path / "ends.txt"), "--out", str(tmp_path / "out")]
    command = ["evaluate", "x", "--suite", "supplement", "--data", str(real_data), *own, "--predictions", str(tmp_path / "x.json")]
    assert cli.main(command) == 0
    said = capsys.readouterr().err
    assert "x.json: ewok: 0 of 11 subtasks" in said
    assert "x.json: blimp_supplement" not in said
    assert list(read_file(tmp_path / "x.json")) == ["blimp_supplement"]
    rows = {(row["suite"], row["task"], row["metric"]): row["value"] for row in read_file(tmp_path / "out" / "results.json")["rows"]}
    assert rows["facts", "all", OFFICIAL] == 1
    assert rows["ends.txt", "all", "accuracy (greedy)"] == 0.5
    with pytest.raises(InputError, match="give it a folder with out"):
        evaluate("x", ["supplement"], data=real_data, predictions=tmp_path / "x.json")
