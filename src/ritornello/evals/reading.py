"""Reading: how much of people's reading times and brain signals does a word's surprisal explain?

Ordinary least squares of each measure on a baseline with and without the surprisal, -log p(word | sentence so far) in nats. The gain is
the share of what the baseline leaves unexplained:  (R2 with - R2 without) / (1 - R2 without).

baseline      log frequency, length, place in the sentence, and their products two by two
spill-over    also the length and the surprisal of the word before, with their products; words with no word before are left out

"all eye tracking" is the mean gain in four measures of fixation, "all self-paced reading" the gain in reading time with spill-over: BabyLM
2025's two figures, there in per cent. Chance is the gain of a variable that has nothing to do with it, 1 / (words - terms of the baseline).
Standard errors: 200 bootstraps of whole sentences, from a fixed seed. A word is scored with its space, which the challenge's script drops.

Data: de Varda, Marelli and Amenta 2024, Behavior Research Methods 56: 205 sentences, 1,726 words.
"""

import csv
import io
import math
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

import torch
from torch import Tensor

from ritornello.errors import InputError
from ritornello.evals.files import checksums, read_text
from ritornello.evals.report import Row
from ritornello.evals.scoring import Progress
from ritornello.evals.subject import Request, Subject
from ritornello.evals.suite import Outcome, Suite, Task, digest, spread

EYES = ("RTfirstfix", "RTfirstpass", "RTgopast", "RTrightbound")
SELF_PACED = "self_paced_reading_time"
BRAIN = ("ELAN", "LAN", "N400", "P600", "EPNP", "PNP")
BASELINE = ("Subtlex_log10", "length", "context_length")
GAIN, SPILLED = "gain in R2", "gain in R2 (spill-over)"
RESAMPLES = 200

Word = dict[str, str]


def _tasks(path: Path, limit: int | None) -> list[Task]:
    places = [path / f"reading_data.csv{ending}" for ending in (".gz", "")]
    place = next((each for each in places if each.exists()), None)
    if place is None:
        raise InputError(f"{path}: holds no reading_data.csv")
    words = spread(list(csv.DictReader(io.StringIO(read_text(place, checksums()["files"]["reading_data.csv"])))), limit)

    def run(subject: Subject, progress: Progress | None) -> Outcome:
        requests = [_request(word["item"], word["word"]) for word in words]
        before = [_request(word["prev_item"], word["prev_word"]) for word in words if word["prev_word"]]
        surprisals = -subject.log_probs([*requests, *before], progress)
        here, earlier = surprisals[: len(words)], torch.full((len(words),), torch.nan, dtype=torch.float64)
        earlier[[bool(word["prev_word"]) for word in words]] = surprisals[len(words) :]
        made = enumerate(zip(_finite(here), _finite(earlier), strict=True))
        predictions = [{"id": index, "pred": one, "prev_pred": other} for index, (one, other) in made]
        return Outcome(tuple(_rows(words, here, earlier)), tuple(predictions))

    return [Task("reading", digest(words), run)]


def _finite(values: Tensor) -> list[float | None]:
    return [value if math.isfinite(value) else None for value in values.tolist()]


def _request(before: str, word: str) -> Request:
    before = before or "None"  # the one empty beginning is the word None, which a reader of tables took for nothing
    return Request(f"{before} {word}", len(before))


def _rows(words: Sequence[Word], surprisal: Tensor, before: Tensor) -> list[Row]:
    follows = torch.tensor([bool(word["prev_word"]) for word in words])
    lost = int((~surprisal.isfinite() | (follows & ~before.isfinite())).sum())
    if lost:
        return [Row("reading", "all", GAIN, None, n=len(words), reason=f"{lost} of {len(words)} words have no finite surprisal")]
    columns = {name: _numbers(words, name) for name in (*BASELINE, "prev_length", *EYES, SELF_PACED, *BRAIN)}
    plain = terms([columns[name] for name in BASELINE])
    spilled = terms([*(columns[name] for name in (*BASELINE, "prev_length")), before])
    sentences = [word["sent_id"] for word in words]
    rows, all_rows = [], []
    for metric, baseline in ((GAIN, plain), (SPILLED, spilled)):
        found = {name: gains(columns[name], baseline, surprisal, sentences) for name in (*EYES, SELF_PACED, *BRAIN)}
        rows += [_row(name, metric, *gain, baseline) for name, gain in found.items()]
        if metric == GAIN:
            eyes = torch.stack([found[name][0] for name in EYES]).mean(0)
            all_rows.append(_row("all eye tracking", metric, eyes, found[EYES[0]][1], baseline))
        else:
            all_rows.append(_row("all self-paced reading", metric, *found[SELF_PACED], baseline))
    return [*all_rows, *rows]


def _row(task: str, metric: str, gain: Tensor, n: int, baseline: Tensor) -> Row:
    left = n - baseline.shape[1]
    if left < 2:
        return Row("reading", task, metric, None, n=n, reason=f"{n} words are too few for a baseline of {baseline.shape[1]} terms")
    return Row("reading", task, metric, float(gain[0]), float(gain[1:].std()), n, 1 / left)


def _numbers(words: Sequence[Word], name: str) -> Tensor:
    return torch.tensor([float(word[name] or "nan") for word in words], dtype=torch.float64)


def terms(variables: Sequence[Tensor]) -> Tensor:
    """A one, the variables, and their products two by two: (n, terms)."""
    return torch.stack([torch.ones_like(variables[0]), *variables, *(one * other for one, other in combinations(variables, 2))], 1)


def gains(measure: Tensor, baseline: Tensor, surprisal: Tensor, sentences: Sequence[str]) -> tuple[Tensor, int]:
    """The gain on the words whose values are all known, then on each resample of their sentences, (1 + resamples,); and their number."""
    known = baseline.isfinite().all(1) & measure.isfinite()
    columns = torch.cat([baseline, surprisal[:, None], measure[:, None]], 1)[known]
    columns = torch.cat([columns[:, :1], (columns[:, 1:] - columns[:, 1:].mean(0)) / columns[:, 1:].std(0).clamp(min=1e-12)], 1)
    weights = _resampled([sentence for sentence, keep in zip(sentences, known.tolist(), strict=True) if keep])
    size = columns.shape[1]
    gram = (weights @ (columns[:, :, None] * columns[:, None]).flatten(1)).view(-1, size, size)
    without, together = (unexplained(gram, list(range(count))) for count in (size - 2, size - 1))
    return (without - together) / without, len(columns)


def unexplained(gram: Tensor, chosen: list[int]) -> Tensor:
    """Of (..., k, k) products of columns, the squares of the last that least squares on the chosen ones leaves."""
    inside, across = gram[..., chosen, :][..., chosen], gram[..., chosen, -1:]
    return gram[..., -1, -1] - (across.mT @ torch.linalg.pinv(inside, hermitian=True) @ across)[..., 0, 0]


def _resampled(sentences: Sequence[str]) -> Tensor:
    """How often each word counts, (1 + resamples, words) float64: once, then as often as its sentence was drawn."""
    place = {sentence: index for index, sentence in enumerate(dict.fromkeys(sentences))}
    drawn = torch.randint(len(place), (RESAMPLES, len(place)), generator=torch.Generator().manual_seed(0))
    counts = torch.zeros(RESAMPLES, len(place), dtype=torch.float64).scatter_add_(1, drawn, torch.ones(drawn.shape, dtype=torch.float64))
    return torch.cat([torch.ones(1, len(sentences), dtype=torch.float64), counts[:, [place[sentence] for sentence in sentences]]])


SUITE = Suite("reading", _tasks, lambda rows: ())
