"""Published scores on the same suites, to stand beside ours.

Those of the BabyHGRN paper (Haller, Golde and Akbik 2024, arXiv:2412.15978): its comparison of architectures (table 2), of training texts
(table 4), and its final models beside the challenge's baselines (tables 5 and 6). Some of the averages printed there do not follow from
their own columns, so averages are computed here. GPT-BERT (Charpentier and Samuel 2024, arXiv:2410.24159) won that year's challenge.

They are no controlled comparison with a model of ours: see CAVEAT.
"""

from dataclasses import dataclass

CAVEAT = (
    "Published figures are of one run each, on other training text and of other sizes; the BabyHGRN paper chose its epochs on these very "
    "benchmarks. Another seed alone moves BLiMP by up to 3 points, and filtered BLiMP may hold words that a model's own text lacks."
)
MEAN = ("blimp", "supplement", "ewok", "glue")


@dataclass(frozen=True)
class Published:
    """A row of somebody's table. Scores are accuracies from 0 to 1 by our suites' names, official rules: ties are right."""

    system: str
    words: str  # of training text: "10M" or "100M"
    corpus: str
    scores: dict[str, float]
    source: str

    def mean(self) -> float | None:
        """The unweighted mean of BLiMP, Supplement, EWoK and, if it is there, GLUE; None without the first three."""
        found = [self.scores[suite] for suite in MEAN if suite in self.scores]
        return sum(found) / len(found) if set(MEAN[:3]) <= self.scores.keys() else None


def _row(source: str, system: str, words: str, corpus: str, **percent: float) -> Published:
    return Published(system, words, corpus, {suite: round(score / 100, 6) for suite, score in percent.items()}, source)


_PAPER = "arXiv:2412.15978, table"
PUBLISHED: tuple[Published, ...] = (
    _row(f"{_PAPER} 2", "Transformer 360M", "10M", "BabyLM", blimp=62.64, supplement=54.86, ewok=50.48),
    _row(f"{_PAPER} 2", "LSTM 300M", "10M", "BabyLM", blimp=62.27, supplement=51.63, ewok=50.48),
    _row(f"{_PAPER} 2", "xLSTM 340M", "10M", "BabyLM", blimp=51.20, supplement=48.77, ewok=49.89),
    _row(f"{_PAPER} 2", "Mamba 350M", "10M", "BabyLM", blimp=64.44, supplement=55.39, ewok=50.39),
    _row(f"{_PAPER} 2", "HGRN2 360M", "10M", "BabyLM", blimp=67.05, supplement=55.69, ewok=49.88, bear=5.29),
    _row(f"{_PAPER} 4", "HGRN2 360M", "10M", "Pile", blimp=67.49, supplement=52.22, ewok=50.62, bear=5.36),
    _row(f"{_PAPER} 4", "HGRN2 360M", "100M", "BabyLM", blimp=69.44, supplement=55.56, ewok=50.31, bear=6.17),
    _row(f"{_PAPER} 4", "HGRN2 360M", "100M", "Pile", blimp=72.89, supplement=57.43, ewok=50.61, bear=7.38),
    _row(f"{_PAPER} 5", "BabyLlama", "10M", "BabyLM", blimp=69.8, supplement=59.5, ewok=50.7, glue=63.3, bear=5.4),
    _row(f"{_PAPER} 5", "LTG-BERT", "10M", "BabyLM", blimp=60.6, supplement=60.8, ewok=48.9, glue=60.3, bear=5.7),
    _row(f"{_PAPER} 5", "BabyHGRN 1.0B", "10M", "Pile", blimp=69.4, supplement=55.6, ewok=50.7, glue=63.0, bear=5.6),
    _row(f"{_PAPER} 5", "BabyHGRN 1.0B, distilled", "10M", "Pile", blimp=72.1, supplement=58.6, ewok=51.3, glue=65.8, bear=7.5),
    _row(f"{_PAPER} 6", "BabyLlama", "100M", "BabyLM", blimp=73.1, supplement=60.6, ewok=52.1, glue=69.0, bear=8.5),
    _row(f"{_PAPER} 6", "LTG-BERT", "100M", "BabyLM", blimp=69.2, supplement=66.5, ewok=51.9, glue=68.4, bear=8.2),
    _row(f"{_PAPER} 6", "BabyHGRN 1.0B", "100M", "Pile", blimp=74.5, supplement=59.1, ewok=52.88, glue=69.1, bear=13.5),
    _row(f"{_PAPER} 6", "BabyHGRN 1.0B, distilled", "100M", "Pile", blimp=77.5, supplement=58.5, ewok=51.6, glue=70.7, bear=13.6),
    _row("arXiv:2410.24159", "GPT-BERT 30M", "10M", "BabyLM", blimp=81.2),
    _row("arXiv:2410.24159", "GPT-BERT 119M", "100M", "BabyLM", blimp=86.1),
)
