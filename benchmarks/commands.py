"""What makes the runs of each study from a fresh clone with RITORNELLO_DATA set; `python -m benchmarks.quality` writes it into the page."""

from collections.abc import Iterable

COMMANDS = {
    "equal-words": """ritornello data build recipes/data/babymix.toml --out corpora/babymix-1m
ritornello compare corpora/babymix-1m --recipe recipes/studies/equal-words.toml --jobs 2 --out studies/equal-words
python -m benchmarks.quality --add studies/equal-words --study equal-words""",
    "cpu-100min": """ritornello data build recipes/data/babymix-all.toml --out corpora/babymix-all
ritornello run --recipe recipes/cpu-100min.toml --out runs/cpu-100min
ritornello data build recipes/data/babymix-dev.toml --out corpora/dev-cleaned
ritornello evaluate runs/cpu-100min --suite blimp,supplement,ewok --text corpora/dev-cleaned
ritornello evaluate runs/cpu-100min --suite blimp --protocol official-2024 --out runs/cpu-100min-2024
python -m benchmarks.quality --record runs/cpu-100min --also runs/cpu-100min-2024 --study cpu-100min --system hgrn2""",
    "half an hour by default": """ritornello data build recipes/data/babymix-all.toml --out corpora/babymix-all
ritornello run corpora/babymix-all --minutes 30 --out runs/half-hour
ritornello evaluate runs/half-hour --suite blimp,supplement,ewok
ritornello evaluate runs/half-hour --suite blimp --protocol official-2024 --out runs/half-hour-2024
python -m benchmarks.quality --record runs/half-hour --also runs/half-hour-2024 --study "half an hour by default" --system hgrn2""",
    "distilled": """ritornello data build recipes/data/babymix.toml --out corpora/babymix-1m
for seed in 101 102; do
  ritornello run --recipe recipes/teacher-1m.toml --seed $seed --out teachers/seed$seed
  ritornello evaluate teachers/seed$seed --suite blimp-fast,supplement-fast
  python -m benchmarks.quality --record teachers/seed$seed --study distilled --system teacher
done
ritornello distill --teacher teachers/seed101 --teacher teachers/seed102 --cache 64 --alpha 0.9 --seed 0 --seeds 8 --dim 192 --layers 5 \\
  --batch 16 --steps 810 --lr 0.0065 --suite blimp-fast,supplement-fast --jobs 2 --out studies/distilled model.dropout=0
python -m benchmarks.quality --add studies/distilled --study distilled""",
    "taught over four passes": """ritornello distill --teacher teachers/seed101 --teacher teachers/seed102 --cache 64 --alpha 0.5,0.9 \\
  --no-control --seed 50 --jobs 2 --out studies/four-passes  # the teachers are those of "distilled", and the untaught runs
for share in 0.5 0.9; do
  ritornello evaluate studies/four-passes/student-alpha-$share --suite blimp-fast,supplement-fast
  python -m benchmarks.quality --record studies/four-passes/student-alpha-$share --study "taught over four passes" \\
    --system "student, share $share"
done
for seed in 101 102; do
  python -m benchmarks.quality --record teachers/seed$seed --study "taught over four passes" --system untaught
done""",
    "switches": """python -m benchmarks.ablations --data $RITORNELLO_DATA --jobs 2 --out studies/switches""",
}


def render(studies: Iterable[str]) -> str:
    """How those of the studies are made again that a few commands make; the log has commit and settings of every run."""
    told = [f"{name}:\n\n```sh\n{COMMANDS[name]}\n```\n" for name in studies if name in COMMANDS]
    return "\n".join(["## To make it again", "", *told]) if told else ""
