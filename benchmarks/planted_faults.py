"""Break the recurrences on purpose, one fault at a time, and see which laws notice.

    python benchmarks/planted_faults.py

Each fault is a line of the source replaced in a temporary copy of the package; the law tests then run against the copy. A fault that no
test notices is a hole in the laws: exit code 1.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TESTS = ["tests/test_mixers.py", "tests/ops", "tests/parity"]
FAULTS = [  # name, file, the line as it is, the line as it is not
    ("hand-over: hgrn2 forgets its incoming state", "mixers/hgrn2.py", "state=state.S, reset", "state=state.S * 0, reset"),
    ("hand-over: hgrn2 returns the state it was given", "mixers/hgrn2.py", "y.flatten(-2).to(x.dtype))), State(S)", "y.flatten(-2).to(x.dtype))), state"),
    ("hand-over: lstm swaps h and c", "mixers/lstm.py", "return self.outputs(y), State(*after)", "return self.outputs(y), State(*after[::-1])"),
    ("hand-over: attention restarts positions", "mixers/attention.py", "return None, seen[:, None] + step", "return None, 0 * seen[:, None] + step"),
    ("reset: the chunk form's state ignores it", "ops/outer.py", "decay = decay * (document[..., -1:] == before)[..., None]", "decay = decay * 1"),
    ("reset: tokens read across documents inside a chunk", "ops/outer.py", "may = may & (document[..., :, None] == document[..., None, :])", "may = may & True"),
    ("reset: the loop resets after the token, not before", "ops/outer.py", "reset.unbind(1) if reset is not None", "reset.roll(1, 1).unbind(1) if reset is not None"),
    ("reset: torch's cells go on where a document begins", "mixers/torch_cells.py", "torch.where(fresh, 0, leaf)", "leaf"),
    ("reset: attention sees the document before", "mixers/attention.py", "live = live & (document == 0)[:, :, None]", "live = live & (document >= 0)[:, :, None]"),
    ("decay: the chunk form forgets too slowly between chunks", "ops/outer.py", "last.exp().mT", "(last / 2).exp().mT"),
    ("decay: the loop decays after it writes", "ops/outer.py", "S = decay[..., None] * S + write", "S = decay[..., None] * (S + write)"),
    ("decay: the gate's floor is missing in upper layers", "mixers/hgrn2.py", "rise.cumsum(0) - rise[0]", "rise.cumsum(0) * 0"),
    ("rows: attention mixes up the rows' ages", "mixers/attention.py", "live = (age <= state.seen[:, None])", "live = (age <= state.seen[:1, None])"),
    ("causal: attention sees one token ahead", "mixers/attention.py", "device=x.device).tril().expand(B, T, T)", "device=x.device).tril(1).expand(B, T, T)"),
]  # fmt: skip


def noticed(fault: tuple[str, str, str, str]) -> list[str]:
    """The names of the tests that fail under a fault."""
    _, file, right, wrong = fault
    with tempfile.TemporaryDirectory() as scratch:
        shutil.copytree(ROOT / "src", Path(scratch, "src"))
        path = Path(scratch, "src", "ritornello", file)
        source = path.read_text(encoding="utf-8")
        if source.count(right) != 1:
            raise SystemExit(f"{file}: expected {right!r} once, found it {source.count(right)} times")
        path.write_text(source.replace(right, wrong), encoding="utf-8")
        words = [sys.executable, "-m", "pytest", "-q", "--no-header", "-p", "no:cacheprovider", *TESTS]
        environment = os.environ | {"PYTHONPATH": f"{scratch}/src"}
        done = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    return sorted({line.split("::")[1].split(" ")[0].split("[")[0] for line in done.stdout.splitlines() if line.startswith("FAILED")})


def main() -> None:
    unnoticed = 0
    with ThreadPoolExecutor(2) as pool:
        for (name, *_), failed in zip(FAULTS, pool.map(noticed, FAULTS), strict=True):
            unnoticed += not failed
            print(f"{name}: {', '.join(failed) if failed else 'NOT NOTICED'}", flush=True)
    sys.exit(bool(unnoticed))


if __name__ == "__main__":
    main()
