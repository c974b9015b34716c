"""Break the recurrences on purpose, one fault at a time, and see which laws notice.

    python -m benchmarks.planted_faults [WORD ...]        all faults, or those whose name or file has one of the words

Each fault is a line of the source replaced in a temporary copy of the package; the law tests then run against the copy. A fault that no
test notices is a hole in the laws: exit code 1.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ritornello.mixers import MIXERS

ROOT = Path(__file__).resolve().parents[1]
FAULTS = [  # name, file, the line as it is, the line as it is not
    ("hand-over: hgrn2 forgets its incoming state", "mixers/hgrn2.py", "state=state.S, reset", "state=state.S * 0, reset"),
    ("hand-over: hgrn2 returns the state it was given", "mixers/hgrn2.py", "return self.out(self.norm(y.flatten(-2).to(x.dtype), context.impl)), State(S)", "return self.out(self.norm(y.flatten(-2).to(x.dtype), context.impl)), state"),
    ("hand-over: lstm swaps h and c", "mixers/lstm.py", "return self.outputs(y), State(*after)", "return self.outputs(y), State(*after[::-1])"),
    ("positions: those of attention restart with every piece", "mixers/rotary.py", "return None, seen[:, None] + step", "return None, 0 * seen[:, None] + step"),
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
    ("positions: retnet's go on where a document begins", "mixers/retnet.py", "positions(state.seen, context.reset, T)", "positions(state.seen, None, T)"),
    ("positions: rglru takes a document's first token for any other", "mixers/rglru.py", "torch.where((position == 0)[..., None], write, scale * write)", "scale * write"),
    ("reset: mlstm's running maximum goes on where a document begins", "mixers/mlstm.py", "path = log_f if fresh is None else log_f.masked_fill(fresh, -torch.inf)", "path = log_f"),
    ("reset: slstm's memory goes on where a document begins", "mixers/slstm.py", "tuple(fresh[1:]), context.reset)", "tuple(fresh[1:]), None)"),
    ("reset: any cell goes on where a document begins", "mixers/cell.py", "torch.where(at.view(-1, *[1] * (old.dim() - 1)), new, old)", "old"),
    ("reset: token shift shows the document before", "mixers/token_shift.py", "torch.where(reset[..., None], 0, seen[:, :-1])", "seen[:, :-1]"),
    ("reset: the convolution keeps taps of the document before", "ops/conv.py", "torch.where(kept[..., None], seen[:, T:], 0)", "seen[:, T:]"),
    ("reset: the scan's writes cross it inside a piece", "ops/scan.py", "torch.where(cuts[i], 0, product), torch.where(cuts[i], 0, local)", "torch.where(cuts[i], 0, product), local"),
    ("reset: the delta rule takes back what the document before wrote", "ops/delta.py", "by_q_may & same, by_p_may & same", "by_q_may & same, by_p_may"),
    ("reset: a rotation starts from nothing, not from its unit vector", "ops/block.py", "F.pad(fresh[..., None], (n, 0))", "torch.zeros_like(whole)"),
    ("reset: backwards, documents end one token late", "mixers/bidirectional.py", "context.reset.roll(-1, 1).flip(1)", "context.reset.flip(1)"),
    ("decay: mamba writes as much whatever its step", "ops/selective.py", "(dt * x)[..., None]", "x[..., None]"),
    ("decay: complex numbers do not turn", "ops/scan.py", "torch.stack([p * x - q * y, p * y + q * x], -1)", "torch.stack([p * x + q * y, p * y + q * x], -1)"),
    ("decay: rwkv4's past fades from the sums, not from their maximum", "ops/softmax_scan.py", "faded = m_before if w is None else m_before - w", "faded = m_before"),
    ("decay: gated deltanet takes back what has not decayed", "mixers/gated_deltanet.py", "g.exp() * beta * k, k, g", "beta * k, k, g"),
    ("decay: a bonus is read after the decay", "ops/outer.py", "F.pad(b[..., :-1, :], (0, 0, 1, 0)) if before else b", "b"),
    ("hand-over: rwkv4's bonus is stored with the token", "ops/softmax_scan.py", "keep, write = torch.exp(faded - m), torch.exp(s_t - m)", "keep, write = torch.exp(faded - m), torch.exp(s_t + (0 if u is None else u) - m)"),
    ("hand-over: mamba2 returns the taps it was given", "mixers/mamba2.py", "State(h, past)", "State(h, state.past)"),
    ("hand-over: rwkv7's third layer takes the second's value for the first's", "mixers/rwkv7.py", "v = torch.lerp(v, context", "v = context.shared[\"rwkv7.value\"] = torch.lerp(v, context"),
    ("hand-over: hgrn's layers read the floor of the next", "mixers/hgrn.py", "[\"hgrn.floor\"][self.place.nth]", "[\"hgrn.floor\"][self.place.nth - 1]"),
    ("rows: a window mixes up the rows' ages", "ops/window.py", "-1, device=q.device) > state.seen[:, None]", "-1, device=q.device) > state.seen.roll(1)[:, None]"),
    ("causal: the delta rule's read sees its own step's write", "ops/delta.py", "by_p_may = by_q_may.tril(-1)", "by_p_may = by_q_may"),
    ("causal: a window is a token too long", "ops/window.py", ".tril(past).triu()", ".tril(past).triu(-1)"),
    ("decay: mlstm keeps what it held in units of the maximum before", "mixers/mlstm.py", "before = torch.cat([m[:, None], after], 1)[:, :-1]", "before = after"),
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
        words = [sys.executable, "-m", "pytest", "-q", "--no-header", "-p", "no:cacheprovider", *tests_of(file)]
        environment = os.environ | {"PYTHONPATH": f"{scratch}/src"}
        done = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    if done.returncode not in (0, 1):
        raise SystemExit(f"{' '.join(words)}\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return sorted({line.split("::")[1].split(" ")[0].split("[")[0] for line in done.stdout.splitlines() if line.startswith("FAILED")})


def tests_of(file: str) -> list[str]:
    """The laws and parity of every mixer that a file is part of, and an op's own tests; not those that compare a module with itself."""
    folder, name = Path(file).parent.name, Path(file).stem
    part = re.compile(rf"from ritornello\.{folder}(\.{name} import| import .*\b{name}\b)")
    users = {path.stem for path in (ROOT / "src" / "ritornello" / "mixers").glob("*.py") if part.search(path.read_text(encoding="utf-8"))}
    users = (users | {name}) & set(MIXERS)
    own = [str(path) for path in (ROOT / "tests" / folder).glob(f"test_{name}*.py")]
    parity = [str(path) for user in sorted(users) for path in (ROOT / "tests" / "parity").glob(f"test_{user}.py")]
    names = " or ".join([*(f"{user}- or [{user}]" for user in sorted(users)), f"test_{name}", "parity"])
    return ["tests/test_mixers.py", *own, *parity, "-k", f"({names}) and not compiles and not exports"]


def main() -> None:
    unnoticed, words = 0, sys.argv[1:] or [""]
    faults = [fault for fault in FAULTS if any(word in f"{fault[0]} {fault[1]}" for word in words)]
    with ThreadPoolExecutor(2) as pool:
        for (name, *_), failed in zip(faults, pool.map(noticed, faults), strict=True):
            unnoticed += not failed
            print(f"{name}: {', '.join(failed) if failed else 'NOT NOTICED'}", flush=True)
    sys.exit(bool(unnoticed))


if __name__ == "__main__":
    main()
