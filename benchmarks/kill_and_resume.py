"""kill -9 at random moments: does the resumed run end with the very weights of the unbroken one?

    python benchmarks/kill_and_resume.py [--times 10] [--steps 150]

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


def rit(*words: str, wait: float | None = None) -> bool:
    """Run a command; kill -9 after `wait` seconds. True if it ended by itself."""
    process = subprocess.Popen([sys.executable, "-m", "ritornello.cli", *words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        if process.wait(timeout=wait):
            raise SystemExit(f"{' '.join(words)} failed with {process.returncode}")
        return True
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
        process.wait()
        return False


def main() -> None:
    parser = argparse.ArgumentParser(description="kill -9 at random moments, resume, compare the weights.")
    parser.add_argument("--times", type=int, default=10)
    parser.add_argument("--steps", type=int, default=150)
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
        began = time.monotonic()
        rit("run", "--out", str(whole), *settings)
        longest = time.monotonic() - began
        command, kills = ["run", "--out", str(killed), *settings], 0
        while kills < options.times:
            ended = rit(*command, wait=rng.uniform(0.1, 0.6) * longest)
            if ended:  # it got to the end before its time came: begin again, so that every kill counts
                print(f"reached the end after {kills} kills")
                break
            kills += 1
            for checkpoint in folder.checkpoints(killed):
                folder.read_tensors(checkpoint)
            if (killed / "config.json").exists() and folder.checkpoints(killed):
                command = ["resume", str(killed), "--quiet"]
            newest = [checkpoint.stem for checkpoint in folder.checkpoints(killed)][-1:]
            print(f"kill {kills}: newest whole checkpoint {newest[0] if newest else 'none yet'}", flush=True)
        if not (killed / "report.html").exists():
            rit("resume", str(killed), "--quiet")
        same = (whole / "model.safetensors").read_bytes() == (killed / "model.safetensors").read_bytes()
        lines = len((killed / "log.jsonl").read_text().splitlines())
        print(f"{kills} kills: weights {'identical' if same else 'DIFFER'}, {lines} log lines for {options.steps} steps")
        sys.exit(not (same and lines == options.steps))


if __name__ == "__main__":
    main()
