"""kill -9 at random moments: does the resumed run end with the very weights of the unbroken one?

    python -m benchmarks.kill_and_resume [--times 10] [--steps 1500]

One run is left alone. Another with the same settings is killed at a random moment, resumed, killed again, and so on; after the last kill
it is resumed to the end. Both final weight files must be equal byte for byte, every checkpoint met on the way must be whole, and the log
must have one line a step. Prints where each kill fell; exit code 1 if anything differs.
"""

import argparse
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from ritornello import folder


def rit(*words: str, log: Path | None = None, wait: float = 0.0) -> bool:
    """Run a command to its end; with `log`, kill -9 `wait` seconds after its first new step. True if it ended by itself."""
    process = subprocess.Popen([sys.executable, "-m", "ritornello", *words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    if log is not None:
        before = log.stat().st_size if log.exists() else 0
        while process.poll() is None and not (log.exists() and log.stat().st_size not in (0, before)):
            time.sleep(0.005)
    try:
        if process.wait(timeout=wait if log is not None else None):
            raise SystemExit(f"{' '.join(words)} failed with {process.returncode}")
        return True
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
        process.wait()
        return False


def main() -> None:
    parser = argparse.ArgumentParser(description="kill -9 at random moments, resume, compare the weights.")
    parser.add_argument("--times", type=int, default=10)
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--longest", type=float, default=1.5, help="seconds of training before a kill, at most")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rng = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as scratch:
        whole, killed = Path(scratch, "whole"), Path(scratch, "killed")
        settings = [
            "--steps",
            str(options.steps),
            "--dim",
            "64",
            "--layers",
            "2",
            "--batch",
            "8",
            "--length",
            "64",
            "train.carry=true",
            "model.dropout=0.1",
        ]
        settings += ["--checkpoint-every", "3", "--quiet"]
        rit("run", "--out", str(whole), *settings)
        command, kills = ["run", "--out", str(killed), *settings], 0
        while kills < options.times:
            if rit(*command, log=killed / "log.jsonl", wait=rng.uniform(0.0, options.longest)):
                print(f"reached the end after {kills} kills: give it more --steps")
                break
            kills += 1
            for checkpoint in folder.checkpoints(killed):
                folder.read_tensors(checkpoint)
            if (killed / "config.json").exists() and folder.checkpoints(killed):
                command = ["resume", str(killed), "--quiet"]
            newest = [checkpoint.stem for checkpoint in folder.checkpoints(killed)][-1:]
            steps = (killed / "log.jsonl").read_bytes().count(b"\n")
            print(f"kill {kills}: after step {steps}, newest whole checkpoint {newest[0] if newest else 'none yet'}", flush=True)
        if not (killed / "report.html").exists():
            rit("resume", str(killed), "--quiet")
        same = (whole / "model.safetensors").read_bytes() == (killed / "model.safetensors").read_bytes()
        lines = len((killed / "log.jsonl").read_text().splitlines())
        print(f"{kills} kills: weights {'identical' if same else 'DIFFER'}, {lines} log lines for {options.steps} steps")
        sys.exit(not (same and lines == options.steps))


if __name__ == "__main__":
    main()
