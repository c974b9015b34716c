"""What speed is aimed at, and how each figure is read from the rows of docs/results/speed.json.

Below a floor the work is not done; an aim is what we want to be known for. A figure is the worst of the rows it is read from.
Where a floor is missed or nothing was measured, MISSED and UNMEASURED say why.
"""

from dataclasses import dataclass
from typing import Any

RECURRENT = ("hgrn2", "mingru", "mamba", "lstm", "gated_deltanet", "rwkv7")


@dataclass(frozen=True)
class Target:
    """One figure: the floor and the aim, None where there is none, and the rows it is read from."""

    name: str
    what: str
    against: str
    floor: float | None
    aim: float | None
    figure: str  # the field of the row: ratio, share or error
    lower: bool  # the smaller the better
    rows: dict[str, Any]  # fields that a row must have, with this value or one of a tuple


def ratio(
    name: str, what: str, against: str, floor: float | None, aim: float | None, /, figure: str = "ratio", lower: bool = False, **rows: Any
) -> Target:
    """Read from the rows named as the target's first word, unless `row` says otherwise."""
    return Target(name, what, against, floor, aim, figure, lower, {"row": name.split()[0]} | rows)


def share(*words: Any, **rows: Any) -> Target:
    return ratio(*words, figure="share", **rows)


def error(*words: Any, **rows: Any) -> Target:
    return ratio(*words, figure="error", lower=True, **rows)


OUTER, STEP, SMALL, LARGE = "HGRN2's recurrence with its gates", "training step, 10M parameters", "HGRN2 10M", "HGRN2 100M"
ATTENTION, LLAMA, ONNX = "torch's causal attention", "transformers' Llama", "ONNX Runtime int8"
GROUPS = {
    "Recurrences, forward and backward": [
        ratio("S1 loop", f"{OUTER}, B=8 T=512", "Python loop", 12, 25, head_dim=128, against="loop"),
        ratio("S1 indexed", f"{OUTER}, B=8 T=512", "Python loop by index", 30, 60, head_dim=128, against="indexed loop"),
        ratio("S2 loop", f"{OUTER}, B=2 T=2048", "Python loop", 20, 35, head_dim=128, against="loop"),
        ratio("S2 indexed", f"{OUTER}, B=2 T=2048", "Python loop by index", 60, 120, head_dim=128, against="indexed loop"),
        ratio("S3", f"{OUTER}, T=512 and 2048", "our chunks in torch", 2.5, 5, head_dim=128),
        ratio("S4 512", f"{OUTER}, T=512", ATTENTION, 2.5, 4, head_dim=128, T=512),
        ratio("S4 2048", f"{OUTER}, T=2048", ATTENTION, 4, 8, head_dim=128, T=2048),
        share("S6 forward", "elementwise scan, forward", "memory bandwidth (triad)", 0.8, 0.9, direction="forward", kept_memory=True),
        share("S6 backward", "elementwise scan, backward", "memory bandwidth (triad)", 0.65, 0.85, direction="backward", kept_memory=True),
        ratio("S7 scan", "Mamba's selective scan, T=512", "Python loop", 12, 25, against="loop"),
        ratio("S15 sLSTM", "sLSTM, B=8 T=512", "Python loop", 3, 6, mixer="sLSTM", B=8),
        ratio("S15 GRU 1", "GRU, B=1 T=512", "torch.nn.GRU", 3, 5, mixer="GRU", B=1),
        ratio("S15 GRU 8", "GRU, B=8 T=512", "torch.nn.GRU", 1.3, 1.8, mixer="GRU", B=8),
        ratio("S16 DeltaNet", "delta rule of DeltaNet, T=512", "Python loop", 8, 15, mixer="DeltaNet", against="loop"),
        ratio("S16 gated", "delta rule of gated DeltaNet, T=512", "Python loop", 8, 15, mixer="gated DeltaNet", against="loop"),
        ratio("S16 RWKV-7", "delta rule of RWKV-7, T=512", "Python loop", 8, 15, mixer="RWKV-7", against="loop"),
        error("S19 outputs", f"{OUTER}: outputs, gradients", "float64", 5e-6, 5e-7, of="outputs"),
        error("S19 gates", f"{OUTER}: gate gradient", "float64", 1e-4, 5e-6, of="gate gradient"),
    ],
    "Layers and training": [
        share("S5 512", "HGRN2's layer, float32, T=512", "attention's layer", 0.8, 0.6, lower=True, T=512, precision="float32"),
        share("S5 2048", "HGRN2's layer, float32, T=2048", "attention's layer", 0.5, 0.35, lower=True, T=2048, precision="float32"),
        share("S5 512 bf16", "HGRN2's layer, bfloat16, T=512", "attention's layer", 0.65, 0.4, lower=True, T=512, precision="bfloat16"),
        share("S5 2048 bf16", "HGRN2's layer, bfloat16, T=2048", "attention's layer", 0.4, 0.25, lower=True, T=2048, precision="bfloat16"),
        ratio("S7 step", "Mamba model, forward and backward, T=512", "transformers' Mamba", 40, 80, row="S7 step", mixer="mamba"),
        ratio("S8", f"HGRN2 {STEP}, float32", "attention, same size", 1.2, 1.5, precision="float32"),
        ratio("S8 bf16", f"HGRN2 {STEP}, bfloat16", "attention, same size", 1.4, 2, precision="bfloat16"),
        share("S9", f"HGRN2 {STEP}, float32", "best matrix product", 0.6, 0.75, precision="float32", compiled=False),
        share("S9 bf16", f"HGRN2 {STEP}, bfloat16", "best matrix product", 0.45, 0.6, precision="bfloat16", compiled=False),
        share("S9 compiled", "the same, compiled", "best matrix product", 0.52, 0.65, precision="bfloat16", compiled=True),
        ratio("S10", f"our default recipe, {STEP}", "Llama-like in plain torch", 3.5, 5, ours="tuned", against="plain"),
        ratio("S18", "ms a token at T=8192, worst of six mixers", "at T=512", 1.15, 1.05, lower=True, mixer=RECURRENT),
    ],
    "Writing, a token at a time": [
        ratio("S11", f"{SMALL}, float32", "our torch step", 3, 4, weights="float32", B=1),
        ratio("S11 int8", f"{SMALL}, int8", "our torch step", 15, 25, weights="int8", B=1),
        ratio("S12", f"{SMALL}, int8", ONNX, 3, 5, size="10M", weights="int8"),
        ratio("S12 100M", f"{LARGE}, int8", ONNX, 1.4, 1.8, size="100M", weights="int8"),
        ratio("S13 1k", f"{SMALL}, float32", f"{LLAMA}, context 1k", 5, None, weights="float32", context=1000),
        ratio("S13 8k", f"{SMALL}, float32", f"{LLAMA}, context 8k", 20, None, weights="float32", context=8000),
        ratio("S13 1k int8", f"{SMALL}, int8", f"{LLAMA}, context 1k", None, 30, weights="int8", context=1000),
        ratio("S13 8k int8", f"{SMALL}, int8", f"{LLAMA}, context 8k", None, 120, weights="int8", context=8000),
        ratio(
            "S13 position", f"{SMALL}, at position 1,000,000", "at position 0", 1.05, 1.02, row="S13 position", lower=True, position=10**6
        ),
        share("S14", f"{LARGE}, float32", "read bandwidth", 0.8, 0.95, weights="float32", B=1),
        share("S14 int8", f"{LARGE}, int8", "read bandwidth", 0.75, 0.85, weights="int8", B=1),
    ],
    "On a GPU": [ratio("G1", "HGRN2's op in bfloat16, 65,536 tokens", "flash-linear-attention's chunks, called directly", 0.9, 1.2)],
    "Scoring": [ratio("S17", "all 59,875 filtered BLiMP pairs, 10M parameters", "lm-evaluation-harness, same model", 5, 20)],
}

MISSED: dict[str, str] = {
    "S1 loop": "the kernel is as fast as at T=2048; the loop's own time varies from run to run, with what fresh memory costs it",
    "S6 forward": "arrays of 16 MB lie in part in the third-level cache, which this machine shares with others: it varies from run to run",
    "S10": "a bfloat16 product is only 2.4 times as fast as a float32 one here (see S9), and Muon takes a fifth of so small a step",
    **dict.fromkeys(
        ("S13 1k", "S13 8k"), "transformers is measured with its static cache, faster than the one that generate() takes by itself"
    ),
    "S17": "nearly all the time goes into the model's own products, the same on both sides; what sentences share is short, and handing a "
    "state on costs several tokens' time",
}
UNMEASURED: dict[str, str] = {"G1": "no GPU was at hand"}


def read(target: Target, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows of a target, the worst first."""

    def fits(row: dict[str, Any]) -> bool:
        return all(
            name in row and row[name] in (wanted if isinstance(wanted, tuple) else (wanted,)) for name, wanted in target.rows.items()
        )

    return sorted((row for row in rows if fits(row)), key=lambda row: row[target.figure], reverse=target.lower)


def verdict(target: Target, measured: float | None) -> str:
    """ "aim", "floor", "missed", or "not measured"; without a floor, what is short of the aim is "below the aim"."""
    if measured is None:
        return "not measured"

    def reaches(bound: float | None) -> bool:
        return bound is not None and (measured <= bound if target.lower else measured >= bound)

    if reaches(target.aim):
        return "aim"
    return "floor" if reaches(target.floor) else "below the aim" if target.floor is None else "missed"


def judge(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Every target with what was measured, as it goes into speed.json."""
    found = []
    for target in (target for group in GROUPS.values() for target in group):
        own = read(target, rows)
        measured = own[0][target.figure] if own else None
        said = verdict(target, measured)
        found.append(
            {
                "target": target.name, "what": target.what, "against": target.against, "figure": target.figure,
                "floor": target.floor, "aim": target.aim, "measured": measured, "verdict": said,
                "why": {"missed": MISSED, "not measured": UNMEASURED}.get(said, {}).get(target.name),
                "setting": own[0].get("setting") if own else None, "run": own[0]["run"] if own else None,
            }
        )  # fmt: skip
    return found


def unsaid(judged: list[dict[str, Any]]) -> list[str]:
    """Floors missed and figures not measured without a word why, and words about what is not so any more: a line each."""
    verdicts = {line["target"]: line["verdict"] for line in judged}
    lines = []
    for said, name, told in (("missed", "MISSED", MISSED), ("not measured", "UNMEASURED", UNMEASURED)):
        is_so = {target for target, each in verdicts.items() if each == said}
        lines += [f"{target}: {said}; say why in {name} of benchmarks/targets.py" for target in verdicts if target in is_so - set(told)]
        lines += [f"{target}: not {said}; remove it from {name} of benchmarks/targets.py" for target in told if target not in is_so]
    return lines
