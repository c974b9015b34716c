import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import example_runs
import pytest

from ritornello.analysis import page
from ritornello.errors import InputError

BUILDS = [example_runs.english, example_runs.hebrew, example_runs.by_bytes, example_runs.hostile, example_runs.minimal]
VOID = {"meta", "input", "br"}


class Reader(HTMLParser):
    """Elements, their attributes, the words between them, and the passage line by line."""

    def __init__(self, text: str):
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict]] = []
        self.words: dict[str, str] = {}
        self.lines: list[str] = []
        self.inside: str | None = None
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if dict(attrs).get("id") == "passage":
            self.inside = "/".join(self.open)
        elif self.inside and tag == "p":
            self.lines.append("")
        elif self.inside and tag == "i" and "n" in dict(attrs)["class"].split():
            self.lines[-1] += "\0"

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        if self.inside == "/".join(self.open):
            self.inside = None
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words[self.open[-1] if self.open else ""] = self.words.get(self.open[-1] if self.open else "", "") + data
        if self.inside and self.open[-1] == "i":
            self.lines[-1] += data


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("runs")
    return {build.__name__: build(folder) for build in BUILDS}


@pytest.fixture(scope="module")
def pages(runs) -> dict[str, str]:
    return {name: page.render(run) for name, run in runs.items()}


def table(run: Path, name: str) -> dict:
    return json.loads((run / f"{name}.json").read_text(encoding="utf-8"))


def data(text: str) -> dict:
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)[1])


@pytest.mark.parametrize("name", [build.__name__ for build in BUILDS])
def test_loads_nothing(pages, name):
    reader = Reader(pages[name])
    assert reader.open == []
    assert not [(tag, attrs) for tag, attrs in reader.tags if {"src", "href", "action", "srcset", "data"} & attrs.keys()]
    assert not [tag for tag, _ in reader.tags if tag in ("link", "img", "iframe", "object", "base", "form")]
    assert not re.search(r"url\(|@import|@font-face", reader.words["style"])
    assert not re.search(r"https?:|\b(fetch|import|XMLHttpRequest|WebSocket|sendBeacon|eval)\b", pages[name].rpartition("<script>")[2])
    policies = [attrs["content"] for _, attrs in reader.tags if attrs.get("http-equiv") == "Content-Security-Policy"]
    assert policies == ["default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'"]


@pytest.mark.parametrize("name", [build.__name__ for build in BUILDS])
def test_sections_in_order(pages, name):
    order = [attrs["id"] for tag, attrs in Reader(pages[name]).tags if tag == "h2"]
    assert order == ["learning", "reading", "writing", "scores", "cost", "plan", "again"]


def test_text_of_a_corpus_stays_text(pages):
    reader = Reader(pages["hostile"])
    assert [attrs.get("id") for tag, attrs in reader.tags if tag == "script"] == ["data", None]
    assert not [attrs for _, attrs in reader.tags if {"onclick", "onerror"} & attrs.keys()]
    assert reader.words["h1"] == "<img src=x onerror=alert(1)>"
    assert "x</script><script>alert(1)</script> <b onclick='a()'>&amp;" in reader.lines[0]
    assert "{{ 7*7 }}" in reader.lines[1]
    assert "\x00" not in pages["hostile"]
    assert "</script>" in data(pages["hostile"])["passage"]["guesses"]


@pytest.mark.parametrize("name", ["english", "hebrew", "by_bytes"])
def test_the_passage_is_the_text(pages, runs, name):
    reader = Reader(pages[name])
    text = "".join(piece[0] for piece in table(runs[name], "results")["passage"]["pieces"])
    assert "".join(line.replace("\0", "") + "\n" * ("\0" in line) for line in reader.lines) == text


@pytest.mark.parametrize("name", ["english", "hebrew", "by_bytes"])
def test_the_figure_beside_the_passage_is_its_mean(pages, runs, name):
    passage, shown = table(runs[name], "results")["passage"], data(pages[name])["passage"]
    bits = sum(shown["millibits"]) / 1000
    tokens = sum(shown["several"].values()) + len(shown["millibits"]) - len(shown["several"])
    assert tokens == passage["tokens"]
    figures = re.search(r"<b>([\d.]+) bits a token</b>, <b>([\d.]+) bits a byte</b>", pages[name])
    assert float(figures[1]) == pytest.approx(bits / tokens, abs=0.006)
    assert float(figures[2]) == pytest.approx(passage["bits_per_byte"], abs=0.006)
    assert bits / passage["nbytes"] == pytest.approx(passage["bits_per_byte"], rel=1e-3)
    for piece, likely in zip(passage["pieces"], shown["likely"], strict=True):
        assert [[shown["guesses"][g], p] for g, p in zip(likely[::2], likely[1::2], strict=True)] == [
            [g, round(p * 1000)] for g, p in piece[3] if p >= 0.001
        ]


def test_more_surprise_is_never_a_lighter_colour(pages, runs):
    bits = [piece[2] for piece in table(runs["english"], "results")["passage"]["pieces"]]
    body = pages["english"].partition('id="passage"')[2].partition('id="tip"')[0]
    levels = [int(level) for level, more in re.findall(r'<i class="s(\d)( c)?', body) if not more]
    ranked = [level for _, level in sorted(zip(bits, levels, strict=True))]
    assert ranked == sorted(ranked)
    assert {ranked[0], ranked[-1]} == {0, page.LEVELS - 1}


def test_right_to_left(pages):
    reader = Reader(pages["hebrew"])
    at = next(index for index, (_, attrs) in enumerate(reader.tags) if attrs.get("id") == "passage")
    assert reader.tags[at][1]["dir"] == "rtl"
    lines = [attrs.get("dir") for tag, attrs in reader.tags[at + 1 :] if tag == "p"][: len(reader.lines)]
    assert lines == ["auto" if re.search(r"\w", line) else None for line in reader.lines]
    assert None in lines


def test_headline_and_tiles(pages):
    sentence = "This HGRN2 of 1.2M parameters read 3.1M words of documentation in 2.4 minutes"
    assert f"{sentence} and now needs 2.01 bits per byte of unseen text; a 5-gram needs 2.45." in pages["english"]
    assert pages["english"].count("2.01 ± 0.02") == 2
    assert "262 KB" in pages["english"]
    assert "15,625 times as many" in pages["english"]


def test_scores_show_every_row(pages, runs):
    reader = Reader(pages["english"])
    for row in table(runs["english"], "results")["rows"]:
        if row["task"] != "all":
            assert row["task"].replace("_", " ") in reader.words["th"]
    assert "67 subtasks, best first" in pages["english"]
    assert "this model, all pairs" in reader.words["th"]
    assert "bits per byte minus 5-gram<" in pages["english"]
    assert ">−0.436 ± 0.010<" in pages["english"]
    assert "no folder was given: --pairs FOLDER" in pages["english"]
    best = re.findall(
        r'first" data-label="accuracy \(official\)">([\d.]+) ±', pages["english"].partition("67 subtasks")[2].partition("</table>")[0]
    )
    assert len(best) == 67
    assert [float(value) for value in best] == sorted(map(float, best), reverse=True)


@pytest.mark.parametrize(
    ("without", "reason"),
    [
        ("passage", "No passage was scored."),
        ("samples", "No samples were drawn."),
        ("rows", "Nothing was evaluated."),
        ("cost", "The bytes a sequence holds were not measured."),
        ("headline", "it has not been evaluated"),
    ],
)
@pytest.mark.parametrize("empty", [True, False])
def test_a_missing_part_says_so(runs, tmp_path, without, reason, empty):
    run = shutil.copytree(runs["by_bytes"], tmp_path / "run")
    results = table(run, "results")
    results[without] = None
    if not empty:
        del results[without]
    (run / "results.json").write_text(json.dumps(results))
    assert reason in page.render(run)


@pytest.mark.parametrize(
    ("file", "reason"),
    [("log.jsonl", "no finished step"), ("provenance.json", "provenance.json is missing"), ("results.json", "Nothing was evaluated")],
)
def test_a_missing_file_says_so(runs, tmp_path, file, reason):
    run = shutil.copytree(runs["by_bytes"], tmp_path / "run")
    (run / file).unlink()
    assert reason in page.render(run)


def test_no_run_folder(tmp_path):
    with pytest.raises(InputError, match=r"no config\.json"):
        page.render(tmp_path)


def test_a_state_that_grows_is_not_called_constant(pages, runs, tmp_path):
    assert "that does not grow" in pages["by_bytes"]
    run = shutil.copytree(runs["by_bytes"], tmp_path / "run")
    results = table(run, "results")
    results["cost"]["state_bytes"] = results["cost"]["kv_bytes"]
    (run / "results.json").write_text(json.dumps(results))
    text = page.render(run)
    assert "that does not grow" not in text
    assert "<dt>of state after 1M tokens</dt><dd>4.1 GB</dd>" in text
    assert "times as many" not in text


def test_the_prompt_of_a_sample_is_told_from_what_was_written(runs, tmp_path):
    run = shutil.copytree(runs["by_bytes"], tmp_path / "run")
    results = table(run, "results")
    results["samples"] = [
        {"temperature": 1.0, "seed": 1, "prompt": "Once\nupon ", "text": "a day\nlong ago", "tokens": 9, "tokens_per_second": 5.0}
    ]
    (run / "results.json").write_text(json.dumps(results))
    lines = re.search(r'<div class="text" dir="ltr">(.*?)</div>', page.render(run), re.DOTALL)[1]
    assert re.findall(r'<p dir="auto">(.*?)</p>', lines) == [
        "<b>Once</b><span></span>",
        "<b>upon </b><span>a day</span>",
        "<span>long ago</span>",
    ]


def test_settings_and_provenance_are_complete(pages, runs):
    words = Reader(pages["english"]).words
    for name in ("train", "tokenizer"):
        assert all(key in words["th"] for key in table(runs["english"], "config")[name])
    assert "mixers.hgrn2.head_dim" in words["th"]
    assert "minutes" in words["th"]
    assert "hgrn2 × 5" in words["bdi"]
    assert "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed" in words["bdi"]
    assert "https://example.org/terms" in words["bdi"]
    assert "ritornello run texts/documentation.txt --minutes 3" in words["code"]
    assert "ritornello generate documentation --prompt" in words["code"]
    assert "'<img src=x onerror=alert(1)>'" in Reader(pages["hostile"]).words["code"]


def test_size(pages):
    assert len(pages["english"].encode()) < 300_000
    assert len(pages["minimal"].encode()) < 30_000


def luminance(colour: str) -> float:
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize("theme", [0, 1, 2])
def test_contrast_in_light_dark_and_print(theme):
    style = Path(page.__file__).with_name("page.css").read_text()
    colours = dict(re.findall(r"--(\w+): (#\w{6});", re.findall(r":root \{(.*?)\}", style, re.DOTALL)[theme]))

    def contrast(one: str, other: str) -> float:
        low, high = sorted((luminance(colours[one]), luminance(colours[other])))
        return (high + 0.05) / (low + 0.05)

    for level in range(page.LEVELS):
        assert contrast("ink", f"s{level}") >= 4.5
    for one in ("ink", "soft", "own", "other", "held"):
        assert contrast(one, "paper") >= 4.5
        assert contrast(one, "sheet") >= 4.5
    steps = [luminance(colours[f"s{level}"]) for level in range(page.LEVELS)]
    assert steps in (sorted(steps), sorted(steps, reverse=True))


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("chromium") is None, reason="needs chromium")
def test_in_a_browser(pages, tmp_path):
    act = """<script>
    document.getElementById("passage").querySelectorAll("i")[5].dispatchEvent(new PointerEvent("pointerover", { bubbles: true }));
    document.querySelector(".frame .chart").dispatchEvent(new KeyboardEvent("keydown", { key: "ArrowLeft" }));
    document.body.dataset.tip = document.getElementById("tip").textContent;
    document.body.dataset.read = document.querySelector(".read").textContent;
    document.body.dataset.wide = document.documentElement.scrollWidth > innerWidth;
    </script></body>"""
    file = tmp_path / "page.html"
    file.write_text(pages["english"].replace("</body>", act), encoding="utf-8")
    flags = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-background-networking",
        "--no-first-run",
        f"--user-data-dir={tmp_path / 'profile'}",
    ]
    dump = [*flags, "--virtual-time-budget=3000", "--window-size=360,800", "--dump-dom", file.as_uri()]
    done = subprocess.run(["chromium", *dump], capture_output=True, text=True, timeout=120, check=True)
    body = next(attrs for tag, attrs in Reader(done.stdout).tags if tag == "body")
    assert re.search(r"[\d.]+ bits, ", body["data-tip"])
    assert "bits per byte" in body["data-read"]
    assert body["data-wide"] == "false"
