"""The pages of results are what runs.jsonl says; they read well with no runs, with few, and with failures."""

import json
import sys
from xml.etree import ElementTree

import pytest

from benchmarks import babyhgrn, log, quality
from ritornello.errors import InputError
from ritornello.experiments.record import read


def line(
    system: str, seed: int, blimp: float | None = 0.6, *, study: str = "architectures", failed: str | None = None, **config: object
) -> dict:
    tasks = {} if blimp is None else {"blimp": {"one": blimp - 0.1, "two": blimp + 0.1}}
    return {
        "study": study, "name": f"{system}-{seed}", "system": system, "seed": seed, "started": "2026-11-21T10:00:00+00:00", "words": 10**6,
        "corpus": "babymix", "data_sha256": "ab" * 32, "commit": "abc", "machine": "a processor, 1 thread of 2 cores",
        "parameters": 3 * 10**6, "parameters_without_embedding": 10**6,
        "steps": 500, "flop": 2e15, "seconds": 90.0, "config": {"train.batch": 16} | config,
        "scores": {} if blimp is None else {"blimp": blimp, "bits_per_byte": 2.0 - blimp}, "subtasks": tasks, "failed": failed,
    }  # fmt: skip


FEW = [line("hgrn2", seed, 0.64 + seed / 1000) for seed in range(3)] + [line("mamba", seed, 0.60 - seed / 1000) for seed in range(3)]


@pytest.fixture
def empty(tmp_path, monkeypatch):
    monkeypatch.setattr(quality, "FOLDER", tmp_path)
    return tmp_path


def test_the_pages_are_what_the_lines_say(monkeypatch, capsys):
    assert quality.check() == []
    monkeypatch.setattr(sys, "argv", ["quality", "--check"])
    with pytest.raises(SystemExit) as found:
        quality.main()
    assert (found.value.code, capsys.readouterr().out) == (False, "")


def test_what_does_not_agree_is_told(empty):
    quality.keep(FEW)
    quality.render()
    assert quality.check() == []
    page = empty / "babyhgrn.md"
    page.write_text(page.read_text().replace("64.1", "74.1"))
    assert quality.check() == ["babyhgrn.md is not what runs.jsonl renders to; run python -m benchmarks.quality --render"]
    quality.keep([line("lstm", 0)])
    assert len(quality.check()) == 3  # a third system makes a picture


def test_of_a_comparison_the_runs_of_the_rate_taken_are_its_study(empty):
    """The others are logged, and no mean is over them."""
    runs = [line("hgrn2", seed, 0.64) | {"rate": 0.003, "curve": []} for seed in range(2)] + [line("mamba", 0, 0.6) | {"rate": 0.001}]
    tried = line("hgrn2", 0, 0.9) | {"rate": 0.01}
    (empty / "results.jsonl").write_text("".join(json.dumps(each) + "\n" for each in [*runs, tried]))
    systems = [{"system": "hgrn2", "rate": 0.003}, {"system": "mamba", "rate": 0.001}]
    (empty / "results.json").write_text(json.dumps({"corpora": [{"name": "babymix", "words": 1234, "systems": systems, "overlap": []}]}))
    quality.add(empty, "first")
    kept = read(empty / "runs.jsonl")
    assert [each["study"] for each in kept] == ["first", "first", "first", "first: rates tried"]
    quality.render()
    page = (empty / "babyhgrn.md").read_text()
    assert "| hgrn2 | 67.05 | 360M | 3M | 1M | 2 | 64.0 ± 0.0 [" in page
    assert "90.0" not in page
    assert "90.0" in (empty / "log.md").read_text()
    (empty / "results.jsonl").write_text("".join(json.dumps(each | {"words": 7}) + "\n" for each in [*runs, tried]))
    quality.add(empty, "first")
    assert [each["words"] for each in read(empty / "runs.jsonl")] == [7] * 4, "scored once more, they take the place of what they were"
    assert [each["name"] for each in read(empty / "runs.jsonl")] == [each["name"] for each in kept]
    assert all(set(each) == set(quality.KEYS) for each in kept)


def test_runs_of_one_system_differ_in_their_seeds_alone(empty):
    quality.keep([line("hgrn2", 0, **{"train.seed": 0, "model.dim": 192}), line("mamba", 0)])
    quality.keep([line("hgrn2", 1, **{"train.seed": 1, "model.dim": 192})])
    before = (empty / "runs.jsonl").read_bytes()
    with pytest.raises(InputError, match=r"hgrn2-2: hgrn2 of architectures with another model.dim than hgrn2-0; give it another --study"):
        quality.keep([line("hgrn2", 2, **{"model.dim": 200})])
    assert (empty / "runs.jsonl").read_bytes() == before
    quality.keep([line("hgrn2", 2, **{"model.dim": 200}) | {"study": "another"}])


def test_students_and_controls_are_a_study(empty):
    runs = [
        line(system, seed, 0.6 + (system == "student") / 100, study="distill") for system in ("student", "control") for seed in range(2)
    ]
    (empty / "results.jsonl").write_text("".join(json.dumps(each) + "\n" for each in runs))
    quality.add(empty, "taught")
    assert read(empty / "runs.jsonl") == [each | {"study": "taught"} for each in runs]
    quality.render()
    assert "## Distillation: taught" in (empty / "babyhgrn.md").read_text()


def test_of_an_inspection_the_counts_are_kept_and_no_text(empty):
    row = {"suite": "blimp", "items": 200, "unseen_word_share": 0.125}
    found = {"name": "babymix", "words": 1234, "overlap": [row], "copies": {"most": ["a text"]}}
    quality.keep_overlap([found])
    assert "a text" not in (empty / "overlap.json").read_text()
    assert quality.overlaps() == {"babymix": {"words": 1234, "overlap": [row]}}
    quality.keep([each | {"corpus": "other" if each["system"] == "mamba" else "babymix"} for each in FEW])
    quality.render()
    page = (empty / "babyhgrn.md").read_text()
    assert "- babymix: Items with a word that the training text (1,234 words) lacks: 12.5 % of 200 in BLiMP, filtered.\n" in page
    assert "- other: not counted yet" in page


def test_without_runs_both_pages_say_so():
    assert "There are no runs yet." in log.render([])
    page = babyhgrn.render([], {})
    assert "No study of ours is finished yet." in page
    assert "| GPT-BERT 30M (arXiv:2410.24159) | BabyLM | 10M, in several passes | 1 | 81.2 |" in page


def test_the_log_is_newest_first_and_keeps_failures():
    other = line("lstm", 0, None, study="later", failed="step 3: the loss is not a finite number", **{"model.dim": 64})
    page = log.render([*FEW, other])
    assert page.index("## later") < page.index("## architectures")
    assert "7 runs of 2 studies, 1 failed." in page
    assert "**failed: step 3: the loss is not a finite number**" in page
    assert page.index("| mamba | 2 |") < page.index("| hgrn2 | 0 |")
    differing = log.render([line("hgrn2", 0), line("hgrn2", 1, **{"model.dim": 64})])
    assert "All of them: `train.batch=16`." in differing
    assert "| 60.0 | `model.dim=64` |" in differing


def test_a_claim_is_reproduced_contradicted_or_open():
    def verdict(lines: list[dict], claim: str = "HGRN2 above Mamba") -> str:
        (row,) = (row for row in babyhgrn.render(lines, {}).splitlines() if row.startswith(f"| {claim} |"))
        return row.split(" | ")[-1].removesuffix(" |")

    assert verdict(FEW) == "reproduced"
    swapped = [each | {"system": {"hgrn2": "mamba", "mamba": "hgrn2"}[each["system"]]} for each in FEW]
    assert verdict(swapped) == "the opposite"
    mixed = [line("hgrn2", seed, 0.6 + (-1) ** seed / 50) for seed in range(4)] + [line("mamba", seed, 0.6) for seed in range(4)]
    assert verdict(mixed) == "cannot be told apart"
    assert verdict([FEW[0], FEW[3]]) == "unknown: one seed"
    xlstm = [line("mlstm*3 slstm", seed, 0.62 + seed / 1000) for seed in range(3)]
    xlstm = [each | {"subtasks": {"blimp": {"one": each["scores"]["blimp"]}}} for each in xlstm]
    few = [each | {"subtasks": {"blimp": {"one": each["scores"]["blimp"]}}} for each in FEW]
    assert verdict([*few, *xlstm], "xLSTM at chance (50)") == "not reproduced: ours is above chance"


def test_the_table_has_theirs_beside_ours_and_failed_seeds():
    page = babyhgrn.render([*FEW, line("mamba", 3, None, failed="stopped")], {})
    assert "| hgrn2 | 67.05 | 360M | 3M | 1M | 3 | 64.1 ± 0.1 [" in page
    assert "| mamba | 64.44 | 350M | 3M | 1M | 3 of 4 | 59.9 ± 0.1 [" in page
    assert "- hgrn2 above mamba on BLiMP, filtered: +4.2 points [" in page
    assert "| **hgrn2** (architectures) | babymix | 1M seen | 3 |  | 64.1 ± 0.1 [" in page
    assert "- BLiMP supplement, filtered; EWoK, filtered; BEAR; GLUE: no run of ours was scored on them" in page


def test_ours_stand_where_the_protocol_of_the_published_ones_puts_them():
    both = line("hgrn2", 0, 0.665)
    both["scores"]["blimp (official-2024)"] = 0.691
    both["subtasks"]["blimp (official-2024)"] = {"one": 0.7, "two": 0.682}
    page = babyhgrn.render([both, line("mamba", 0, 0.68)], {})
    ranked = [row.split(" | ")[0] for row in page.split("## Where that stands")[1].splitlines() if row.startswith("| ")]
    ours = ranked.index("| **hgrn2** (architectures)")
    assert ranked[ours - 1].startswith("| BabyHGRN 1.0B (")
    assert ranked[ours + 1] == "| **mamba** (architectures)"
    assert "| 69.1 | 66.5 |" in page


def test_the_n_gram_and_the_commands_stand_with_a_study():
    lines = [each | {"study": "equal-words", "scores": each["scores"] | {"ngram_bits_per_byte": 1.858}} for each in FEW]
    page = babyhgrn.render(lines, {})
    assert "| n-gram, modified Kneser-Ney |  |  |  | 1M |  |  | 1.858 |" in page
    assert "ritornello compare corpora/babymix-1m --recipe recipes/studies/equal-words.toml" in page
    assert "To make it again" not in babyhgrn.render(FEW, {})


def test_students_stand_beside_their_control():
    students = [line("student", seed, 0.66 + seed / 1000, study="taught") for seed in range(3)]
    page = babyhgrn.render([*students, *(line("control", seed, 0.62 + seed / 1000, study="taught") for seed in range(3))], {})
    assert "| student | 3M | 1M | 500 | 2 | 3 | 66.1 ± 0.1 [" in page
    assert "1.0B parameters, without a control of equal FLOP: +2.7 points of BLiMP." in page
    assert "- student above control on BLiMP, filtered: +4.0 points [+4.0, +4.0], 3 seeds each." in page
    assert "- student below control on held-out text: −0.040 bits per byte [−0.040, −0.040], 3 seeds each; lower is better." in page


def test_systems_are_known_by_their_layers():
    names = ("hgrn2", "attention", "mlstm*3 slstm", "xlstm", "mamba", "mamba2", "hgrn2*5 attention", "gated_deltanet")
    assert [babyhgrn.architecture(name) for name in names] == ["HGRN2", "Transformer", "xLSTM", "xLSTM", "Mamba", None, None, None]


def test_a_switch_stands_beside_its_base_with_what_the_seeds_tell():
    """Bold is what is told apart; the best on held-out text is first; a base of one seed is no base."""
    base = [line("base", seed, 0.60 + seed / 1000, study="switches") for seed in range(3)]
    better = [line("ema", seed, 0.70 + seed / 1000, study="switches", **{"train.average.decay": 0.995}) for seed in range(3)]
    noise = [line("z-loss", seed, 0.60 + (seed - 1) / 10, study="switches") for seed in range(3)]
    page = babyhgrn.render([*base, *noise, *better], {})
    rows = [row for row in page.splitlines() if row.startswith(("| ema", "| z-loss"))]
    assert "## What a switch is worth: switches" in page
    assert "which has 1.399 bits per byte and 60.1 on BLiMP" in page
    assert rows[0].startswith("| ema | `train.batch=16`, `train.average.decay=0.995` | 3 | **-0.100 [-0.100, -0.100]** | **+10.0 [")
    assert rows[1].startswith("| z-loss | `train.batch=16` | 3 | +0.001 [")
    assert "These are 4 comparisons at 95 %" in page
    assert "What a switch is worth" not in babyhgrn.render([base[0], noise[0], better[0]], {})
    drawn = babyhgrn.pictures([*base, *noise, *better])
    assert "](switches.svg)" in page
    assert list(drawn) == ["switches.svg"]
    colours = [dot.get("style") for dot in ElementTree.fromstring(drawn["switches.svg"]).iter() if dot.get("r") == "5"]
    assert colours == ["fill:var(--c0)", "fill:var(--c6)"] * 2  # ema can be told apart on both, z-loss on neither
    assert babyhgrn.pictures([base[0], noise[0], better[0]]) == {}


def test_a_comparison_of_three_is_drawn_with_every_seed():
    third = [line("minGRU", seed, 0.62) for seed in range(2)]
    picture = babyhgrn.pictures([*FEW, *third])["architectures.svg"]
    root = ElementTree.fromstring(picture)
    names = [each.text for each in root.iter() if each.get("class") == "end name"]
    assert names == ["hgrn2", "minGRU", "mamba"]  # the best on BLiMP first
    assert [each.get("r") for each in root.iter() if each.get("r")].count("3") == 2 * (3 + 2 + 3)
    assert "](architectures.svg)" in babyhgrn.render([*FEW, *third], {})
    assert babyhgrn.pictures(FEW) == {}


def test_one_of_the_papers_architectures_beside_another_is_a_contest_with_several_seeds():
    others = [line("minGRU", seed, 0.62) for seed in range(2)]
    assert "| minGRU |" in babyhgrn.render([*FEW[:2], *others], {})
    assert "| minGRU |" not in babyhgrn.render([FEW[0], others[0]], {})
