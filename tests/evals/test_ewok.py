"""EWoK on items of our own and on the real archive, of whose text nothing may come out anywhere."""

import gzip
import math
import zipfile

import pytest
from told import Told, rows_of, uniform

from ritornello.errors import InputError
from ritornello.evals import ewok
from ritornello.evals.protected import write_protected
from ritornello.evals.suite import SUITES
from ritornello.experiments.console import Console
from ritornello.experiments.suites import evaluate_suites

CHALLENGE = {  # rows after the filter, as BabyLM's collation script counts them
    "agent-properties": 2210,
    "social-relations": 1548,
    "physical-relations": 818,
    "material-dynamics": 770,
    "physical-interactions": 556,
    "spatial-relations": 490,
    "social-properties": 328,
    "quantitative-properties": 314,
    "social-interactions": 294,
    "material-properties": 170,
    "physical-dynamics": 120,
}
HEADER = b"the mark\nDomain,Context1,Context2,Target1,Target2\n"


@pytest.fixture
def own(tmp_path, monkeypatch):
    """An archive of one domain and two items, the second of which has a word that is not in the vocabulary."""
    content = HEADER + b"d,C one.,C two.,T one.,T two.\nd,C one.,C rare.,T one.,T two.\n"
    write_protected(tmp_path / ewok.ARCHIVE, "a/x__vers=0/testsuite-a_domain.csv", content, ewok.PASSWORD)
    with gzip.open(tmp_path / "vocab.txt.gz", "wt") as file:
        file.write("c\nt\none\ntwo\n.\n")
    known = {"ewok": {"a-domain": ewok.hashlib.sha256(content).hexdigest()}, "files": {"vocab.txt": None}}
    monkeypatch.setattr(ewok, "checksums", lambda: known)
    return tmp_path


def scores(table):
    return Told(lambda request: table[request.text[: request.start], request.text[request.start :]])


def test_both_scores_by_hand(own):
    (task,) = ewok.FILTERED.tasks(own, None)
    table = {("C one.", " T one."): -3, ("C one.", " T two."): -4, ("C two.", " T one."): -3, ("C two.", " T two."): -2}
    outcome = task.run(scores(table), None)
    assert rows_of(outcome, "accuracy (official)").value == 1.0  # -3 over -4; swapped, -2 over -3
    assert rows_of(outcome, "accuracy (official)").n == 2
    assert rows_of(outcome, ewok.TWO_SIDED).value == 0.75  # T one is a tie between its contexts, T two is right
    assert rows_of(outcome, ewok.TWO_SIDED).n == 1
    assert outcome.predictions == ({"id": "a-domain_0", "pred": 1}, {"id": "a-domain_1", "pred": 1})
    table["C two.", " T two."] = -3.5
    outcome = task.run(scores(table), None)
    assert rows_of(outcome, "accuracy (official)").value == 0.5
    assert rows_of(outcome, ewok.TWO_SIDED).value == 0.75
    assert outcome.predictions[1]["pred"] == 2
    assert task.name == "a-domain"


def test_ties(own):
    (task,) = ewok.FILTERED.tasks(own, None)
    outcome = task.run(Told(uniform), None)
    found = [rows_of(outcome, f"accuracy ({rule})").value for rule in ("official", "half credit", "two-sided")]
    assert found == [1.0, 0.5, 0.5]
    assert rows_of(outcome, "ties").value == 1
    assert {row.chance for row in outcome.rows} == {0.5, None}


def test_what_is_not_finite_has_a_reason(own):
    (task,) = ewok.FULL.tasks(own, None)
    outcome = task.run(Told(lambda request: math.nan if "rare" in request.text else -1.0), None)
    assert rows_of(outcome, ewok.TWO_SIDED).reason == "1 of 2 items have no finite score"
    assert rows_of(outcome, "accuracy (official)").reason == "1 of 4 items have no finite score"


def test_the_filter_and_the_limit(own):
    assert rows_of(ewok.FULL.tasks(own, None)[0].run(Told(uniform), None), "accuracy (official)").n == 4
    assert rows_of(ewok.FULL.tasks(own, 1)[0].run(Told(uniform), None), "accuracy (official)").n == 2


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("Ali doesn't see it, but Bo can't.", "ali does n't see it , but bo ca n't ."),
        ("It's Jo's. They'll say 3.5 of the boys' cannot go?", "it 's jo 's . they 'll say 3.5 of the boys ' can not go ?"),
    ],
)
def test_words_are_those_of_the_penn_treebank(text, want):
    assert ewok.words(text) == want.split()


def test_a_domain_that_is_missing_or_changed_is_a_gap(own, monkeypatch):
    monkeypatch.setattr(ewok, "checksums", lambda: {"ewok": {"a-domain": "0", "b-domain": "1"}, "files": {"vocab.txt": None}})
    for task, message in zip(ewok.FILTERED.tasks(own, None), ("a-domain has changed", "b-domain is missing"), strict=True):
        with pytest.raises(InputError, match=message):
            task.run(Told(uniform), None)


def test_archives_that_do_not_open(own):
    path = own / ewok.ARCHIVE
    whole = path.read_bytes()
    broken = bytearray(whole)
    broken[90] ^= 255
    cases = {whole[:-30]: "damaged", bytes(broken): "damaged", b"": "damaged", b"no zip": "damaged"}
    write_protected(path, "a/x__vers=0/testsuite-a_domain.csv", HEADER, b"another")
    cases[path.read_bytes()] = "does not open with the password"
    for content, message in cases.items():
        path.write_bytes(content)
        with pytest.raises(InputError, match=message) as caught:
            ewok.FILTERED.tasks(own, None)
        assert "\n" not in str(caught.value)
    path.unlink()
    with pytest.raises(InputError, match="cannot be read: No such file"):
        ewok.FILTERED.tasks(own, None)


def test_the_challenges_rows_come_out_of_the_real_archive(real_data):
    tasks = ewok.FILTERED.tasks(real_data / SUITES["ewok"].path, None)
    constant = {task.name: task.run(Told(uniform), None) for task in tasks}
    assert {name: rows_of(outcome, "accuracy (official)").n for name, outcome in constant.items()} == CHALLENGE
    assert sum(CHALLENGE.values()) == 7618
    whole = ewok.read_items(real_data / "ewok" / ewok.ARCHIVE)
    assert sum(map(len, whole.values())) == 4374
    means = {
        (row.task, row.metric): row.value for row in ewok.FILTERED.means([row for outcome in constant.values() for row in outcome.rows])
    }
    assert means["all", "accuracy (official)"] == 1
    assert means["all", "accuracy (half credit)"] == means["all", ewok.TWO_SIDED] == 0.5


def test_no_text_of_an_item_comes_out(real_data, tmp_path, capsys):
    """Output folder, what is said, and the messages of a subject that fails: none holds a context or a target."""
    items = [item for found in ewok.read_items(real_data / "ewok" / ewok.ARCHIVE).values() for item in found]
    secrets = {text for item in items for text in (*item.contexts, *item.targets)}

    def fails(request):
        raise InputError("a score cannot be had")

    evaluate_suites(Told(lambda request: -float(len(request.text))), ["ewok", "ewok-full"], real_data, tmp_path / "right", Console())
    evaluate_suites(Told(fails), ["ewok"], real_data, tmp_path / "wrong", Console())
    said = capsys.readouterr()
    written = [path.read_bytes().decode() for path in tmp_path.rglob("*") if path.is_file()]
    assert len(written) > 22
    assert "ewok, agent-properties: left out: a score cannot be had" in said.err
    for text in (*written, said.out, said.err):
        assert not any(secret in text for secret in secrets)


def test_python_and_the_authors_archive_agree_on_the_encryption(real_data, tmp_path):
    with zipfile.ZipFile(real_data / "ewok" / ewok.ARCHIVE) as authors:
        member = next(info for info in authors.infolist() if info.file_size)
        write_protected(tmp_path / "x.zip", "name", authors.read(member, pwd=ewok.PASSWORD), ewok.PASSWORD)
        with zipfile.ZipFile(tmp_path / "x.zip") as ours:
            assert ours.read("name", pwd=ewok.PASSWORD) == authors.read(member, pwd=ewok.PASSWORD)
            assert ours.infolist()[0].flag_bits & 1 == member.flag_bits & 1 == 1
            with pytest.raises(RuntimeError, match="encrypted"):
                ours.read("name")
