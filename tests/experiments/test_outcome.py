"""What runs come to: means over all seeds or none, differences with their intervals, both rules for the rate, and what is not equal."""

from dataclasses import replace
from types import SimpleNamespace

import pytest

from ritornello.analysis import comparison
from ritornello.errors import InputError
from ritornello.experiments.cells import Contestant, identity
from ritornello.experiments.outcome import Choice, outcome
from ritornello.experiments.settings import CorpusConfig, EvaluateConfig, RunConfig, TokenizerConfig
from ritornello.experiments.study import Study, study
from ritornello.folder import write_json
from ritornello.model import LMConfig
from ritornello.train.loop import TrainConfig

METRICS = {
    "bits_per_byte": {"suite": "held-out text", "metric": "bits per byte", "chance": None},
    "blimp": {"suite": "blimp", "metric": "accuracy (official)", "chance": 0.5},
}
HOSTILE = "</style><img src=x onerror=alert(1)>"


def config(layer: str, **train) -> RunConfig:
    corpus = CorpusConfig(spec="text.txt", name="text", key="k")
    tokenizer = TokenizerConfig(kind="bytes", size=257, sha256="t")
    model = LMConfig(vocab=257, dim=32, layers=(layer,) * 2)
    return RunConfig(
        plan="",
        minutes=None,
        corpus=corpus,
        tokenizer=tokenizer,
        model=model,
        train=TrainConfig(steps=9, **train),
        evaluate=EvaluateConfig(),
    )


def entrant(system: str, layer: str, **train) -> Contestant:
    material = SimpleNamespace(corpus=SimpleNamespace(words=1000, sources={"text.txt": "0" * 64}))
    return Contestant("text", system, config(layer, **train), material)


def line(system: str, seed: int, bits: float | None, blimp=None, rate=0.01, failed=None, **rest) -> dict:
    """A run; blimp: the accuracies on its two subtasks."""
    scores = {} if bits is None else {"bits_per_byte": bits, "ngram_bits_per_byte": 2.5}
    scores |= {} if blimp is None else {"blimp": sum(blimp) / 2}
    subtasks = {} if blimp is None else {"blimp": dict(zip("ab", blimp, strict=True))}
    about = {"study": "s", "name": f"{system}-{seed}", "system": system, "seed": seed, "corpus": "text", "rate": rate, "failed": failed}
    cost = {"parameters": 9000, "parameters_without_embedding": 8000, "words": 300, "flop": 1e9, "seconds": 2.0, "steps": 9}
    return about | cost | {"scores": scores, "subtasks": subtasks, "metrics": METRICS, "curve": [[100, 3.0], [300, bits]]} | rest


FIELD = [entrant("hgrn2", "hgrn2"), entrant("tall", "hgrn2", carry=False), entrant("lstm", "lstm")]
CHOICES = {("text", each.system): Choice(used=0.01) for each in FIELD}
LINES = [line("hgrn2", seed, 2.0 + seed / 100, (0.70, 0.60 + seed / 100)) for seed in range(3)]
LINES += [line("tall", seed, 2.3 + seed / 100, (0.60, 0.50 + seed / 100)) for seed in range(3)]
LINES += [line("lstm", seed, 2.01 + seed / 100, (0.68, 0.60 + seed / 50)) for seed in range(3)]


def asked(**given) -> Study:
    return Study(
        **(
            {"corpora": ("text.txt",), "systems": ("hgrn2", "tall", "lstm"), "system": {"tall": {"mixer": "hgrn2"}}, "suites": ("blimp",)}
            | given
        )
    )


def corpus(lines=LINES, choices=CHOICES, **given) -> dict:
    return outcome(asked(**given), FIELD, lines, choices, {})["corpora"][0]


def rows(found: dict) -> dict:
    return {row["system"]: row for row in found["systems"]}


def test_means_over_seeds():
    found = rows(corpus())["hgrn2"]
    assert found["scores"]["bits_per_byte"]["value"] == pytest.approx(2.01)
    assert found["scores"]["bits_per_byte"]["sd"] == pytest.approx(0.01)
    assert found["scores"]["bits_per_byte"]["low"] < 2.0 < 2.02 < found["scores"]["bits_per_byte"]["high"]
    assert found["scores"]["blimp"]["value"] == pytest.approx((0.70 + 0.61) / 2)
    assert found["scores"]["blimp"]["seeds"] == pytest.approx({"0": 0.65, "1": 0.655, "2": 0.66})
    assert (found["seeds"], found["failed"], found["rate"], found["flop"]) == ([0, 1, 2], [], 0.01, 1e9)
    assert [metric["name"] for metric in corpus()["metrics"]] == ["blimp", "bits_per_byte"]
    assert [metric["name"] for metric in corpus(suites=())["metrics"]] == ["bits_per_byte", "blimp"]  # nobody asked for it


def test_a_failed_seed_leaves_no_mean():
    lost = [
        line("hgrn2", 2, None, failed="step 3: the loss is not a finite number") if each["name"] == "hgrn2-2" else each for each in LINES
    ]
    found = corpus(lost)
    assert rows(found)["hgrn2"]["scores"]["blimp"] == {"value": None, "reason": "seed 2 failed"}
    assert (rows(found)["hgrn2"]["seeds"], rows(found)["hgrn2"]["failed"]) == ([0, 1], [2])
    assert {(pair["first"], pair["second"]) for pair in found["differences"]} == {("tall", "lstm")}
    assert "hgrn2 has no mean: seed 2 failed." in found["conclusions"]
    assert outcome(asked(), FIELD, lost, CHOICES, {})["gaps"] == [{"run": "hgrn2-2", "reason": "step 3: the loss is not a finite number"}]
    gap = [
        line("hgrn2", 2, 2.0) | {"scores": {"bits_per_byte": 2.0, "blimp": None}} if each["name"] == "hgrn2-2" else each for each in LINES
    ]
    assert rows(corpus(gap))["hgrn2"]["scores"]["blimp"] == {"value": None, "reason": "seed 2 has no value"}
    assert rows(corpus(gap))["hgrn2"]["scores"]["bits_per_byte"]["value"] is not None


def test_words_that_the_text_lacks_are_told():
    counted = [{"suite": "blimp", "items": 200, "unseen_word_share": 0.125}, {"suite": "wug", "reason": "damaged"}]
    told = outcome(asked(), FIELD, LINES, CHOICES, {"text": counted})["corpora"][0]
    assert told["conclusions"][-1] == "Items with a word that the training text (1,000 words) lacks: 12.5 % of 200 in BLiMP, filtered."
    assert (told["overlap"], told["conclusions"][:-1]) == (counted, corpus()["conclusions"])
    assert outcome(asked(), FIELD, [], {}, {"text": counted})["corpora"][0]["conclusions"] == []


def test_what_is_not_finished_is_not_failed():
    found = rows(corpus([each for each in LINES if each["seed"] < 2 and each["system"] != "lstm"]))
    assert found["hgrn2"]["scores"]["blimp"]["value"] == pytest.approx(0.6525)
    assert found["hgrn2"]["seeds"] == [0, 1]
    assert found["lstm"]["scores"]["blimp"] == {"value": None, "reason": "not finished"}


def test_other_rates_and_seeds_do_not_count():
    more = [*LINES, line("hgrn2", 0, 9.0, (0, 0), rate=0.1), line("hgrn2", 3, 9.0, (0, 0))]
    assert rows(corpus(more))["hgrn2"]["scores"] == rows(corpus())["hgrn2"]["scores"]
    cost = outcome(asked(), FIELD, more, CHOICES, {})["cost"]
    assert cost == {"runs": 11, "seconds": 22.0, "flop": 11e9, "tuning": 4.0}


def test_differences_and_what_can_be_said():
    found = corpus()
    pairs = {(pair["metric"], pair["first"], pair["second"]): pair for pair in found["differences"]}
    assert len(pairs) == 6
    worse = pairs["bits_per_byte", "hgrn2", "tall"]
    assert worse["value"] == pytest.approx(-0.3)
    assert worse["high"] < 0
    assert worse["sentence"].startswith("hgrn2 below tall on held-out text: −0.300 bits per byte")
    near = pairs["blimp", "hgrn2", "lstm"]
    assert near["low"] < 0 < near["high"]
    first, second, chance, rates = found["conclusions"]
    assert first == "On blimp hgrn2 has the best mean, 65.5 %, and is better than tall; it cannot be told apart from lstm."
    assert second.startswith("On held-out text hgrn2 has the best mean, 2.010, and is better than lstm and tall.")
    assert "6 comparisons at 95 %" in chance
    assert rates == "Rates were not tuned here: for any of the systems there may be a better one."
    assert "chosen by bits per byte" in corpus(rates="0.1,0.01")["conclusions"][-1]
    assert "chosen by the benchmarks" in corpus(rates="0.1,0.01", select="benchmark", suites=("blimp",))["conclusions"][-1]
    one = corpus([each for each in LINES if each["seed"] == 0], seeds=1)["conclusions"]
    assert one == [
        "On blimp hgrn2 has the best mean, 65.0 %; with one seed this says nothing about which is better.",
        "On held-out text hgrn2 has the best mean, 2.000; with one seed this says nothing about which is better.",
        rates,
    ]


def test_both_rules_for_the_rate_are_kept():
    tried = [
        line("a", 0, 2.0, (0.5, 0.5), 0.02),
        line("a", 0, 1.9, (0.6, 0.5), 0.01),
        line("a", 0, 1.95, (0.7, 0.5), 0.005),
        line("a", 0, None, failed="x", rate=0.1),
    ]
    by_text, by_marks = (Choice.of(tried, rule, ["blimp"], None) for rule in ("held-out", "benchmark"))
    assert (by_text.held_out, by_text.benchmark, by_text.used, by_text.edge) == (0.01, 0.005, 0.01, None)
    assert (by_marks.held_out, by_marks.benchmark, by_marks.used, by_marks.edge) == (0.01, 0.005, 0.005, "lowest")
    assert [each["rate"] for each in by_text.tried] == [0.005, 0.01, 0.02, 0.1]
    assert Choice.of(tried[:1], "held-out", [], None).benchmark is None
    assert Choice.of([], "held-out", [], 0.3) == Choice(used=0.3)
    assert Choice.of(tried[3:], "held-out", ["blimp"], None).used is None


def test_what_is_equal_and_what_is_not():
    found = corpus()["settings"]
    assert found["differ"]["train.carry"] == {"hgrn2": True, "tall": False, "lstm": True}
    assert found["differ"]["model.layers"]["lstm"] == "lstm*2"
    assert found["same"]["train.batch"] == 16
    assert "train.seed" not in found["same"]
    assert not set(found["same"]) & set(found["differ"])


def test_a_run_is_known_by_what_its_weights_are_a_function_of():
    plain = config("hgrn2")
    for how in (replace(plain, train=replace(plain.train, threads=7)), replace(plain, plan="x"), replace(plain, checkpoint_every=3)):
        assert identity(how) == identity(plain)
    others = (
        replace(plain, train=replace(plain.train, lr=0.1)),
        replace(plain, train=replace(plain.train, seed=1)),
        replace(plain, model=replace(plain.model, dropout=0.1)),
        replace(plain, corpus=replace(plain.corpus, key="other")),
        replace(plain, tokenizer=replace(plain.tokenizer, sha256="other")),
        replace(plain, evaluate=replace(plain.evaluate, held_out_tokens=3)),
    )
    assert len({identity(each) for each in (plain, *others)}) == 7


def page(tmp_path, results) -> str:
    write_json(tmp_path / "results.json", results | {"command": HOSTILE, "provenance": {"commit": "abc"}})
    return comparison.render(tmp_path)


def test_the_page(tmp_path):
    choice = Choice(
        (
            {"rate": 0.01, "bits_per_byte": 2.0, "benchmark": 0.6, "failed": None},
            {"rate": 0.1, "bits_per_byte": None, "benchmark": None, "failed": HOSTILE},
        ),
        0.01,
        0.01,
        0.01,
    )
    results = outcome(asked(budget="flop=1e9"), FIELD, LINES, CHOICES | {("text", "lstm"): choice}, {})
    text = page(tmp_path, results)
    for part in ("65.5 %", "sd 0.5", "[", "2.010", "chance 50.0 %", "n-gram 2.5", "9,000", "1.00e9", "300", "0.01"):
        assert part in text
    assert "Every run had 1e9 FLOP to train on" in text
    assert text.count('class="whisker"') == 6
    assert "The rate in use is the lowest that was tried" in text
    assert text.count("<polyline") + text.count('<path class="line') == 3
    assert text.count('<path class="spread') == 3
    assert "<img" not in text
    assert "What failed" not in text
    lost = [line("hgrn2", 2, None, failed=HOSTILE) if each["name"] == "hgrn2-2" else each for each in LINES]
    text = page(tmp_path, outcome(asked(), FIELD, lost, CHOICES, {}))
    assert "seed 2 failed" in text
    assert "What failed" in text
    assert "<img" not in text
    assert "Nothing can be compared yet." in page(tmp_path, outcome(asked(), FIELD, [], {}, {}))
    with pytest.raises(InputError, match="give the folder that `ritornello compare` wrote"):
        comparison.render(tmp_path / "none")


def test_a_study_from_a_file_and_from_options(tmp_path):
    file = tmp_path / "study.toml"
    file.write_text(
        'corpora = ["a.txt"]\nsystems = ["hgrn2", "x"]\nbudget = "flop=1e12"\nparameters = "3M"\n[run]\nlength = 64\ntrain.carry = false\n'
        '[system.x]\nmixer = "mlstm*3 slstm"\ntrain.warmup = 9\n'
    )
    found = study(file, ("length=32",), seeds=5, budget=None)
    assert (found.seeds, found.spending, found.target, found.grid) == (5, ("flop", 1e12), 3_000_000, ())
    one, two = found.request("hgrn2", "a.txt"), found.request("x", "a.txt")
    assert (one.mixer, one.length, one.train) == ("hgrn2", 32, {"carry": False})
    assert (two.mixer, two.length, two.train) == ("mlstm*3 slstm", 32, {"carry": False, "warmup": 9})
    assert asked(rates="3e-3, 1e-3,3e-3").grid == (1e-3, 3e-3)
    assert asked(rates="auto").grid == "auto"
    assert asked(budget="minutes=2.5").spending == ("minutes", 2.5)
    assert asked(budget="words=500k").spending == ("words", 500_000)
