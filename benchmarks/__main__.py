"""Measure the speed of this checkout: every topic in a process of its own, rows into docs/results/speed.json.

python -m benchmarks                     all topics; takes about an hour, on a machine that does nothing else
python -m benchmarks decode kernels      these
python -m benchmarks --quick             small sizes, nothing kept: do the scripts run?
python -m benchmarks.kernels --help      one topic alone, with its own options
"""

import argparse
import subprocess
import sys
from pathlib import Path

from benchmarks import document

TOPICS = ("kernels", "cells", "decode", "training_step", "peers", "scaling", "scoring", "gpu")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    present = [topic for topic in TOPICS if Path(__file__).with_name(f"{topic}.py").exists()]
    parser.add_argument("topics", nargs="*", metavar="topic", help=", ".join(present))
    parser.add_argument("--quick", action="store_true", help="small sizes, nothing kept")
    parser.add_argument("--render", action="store_true", help="measure nothing; write speed.md and the pictures from speed.json")
    parser.add_argument("--check", action="store_true", help="measure nothing; are speed.md and the pictures what speed.json says?")
    options = parser.parse_args()
    if options.render:
        found = document.load()
        document.write(found["rows"], found["runs"])
    if options.check or options.render:
        wrong = document.check()
        print(*wrong, sep="\n")
        sys.exit(bool(wrong))
    if unknown := set(options.topics) - set(present):
        parser.error(f"no topic {', '.join(sorted(unknown))}; there are {', '.join(present)}")
    failed = []
    for topic in options.topics or present:
        print(f"---- {topic}", flush=True)
        words = [sys.executable, "-m", f"benchmarks.{topic}", "--quick" if options.quick else "--keep"]
        if subprocess.run(words, cwd=document.ROOT, check=False).returncode:
            failed.append(topic)
    if failed:
        sys.exit(f"these topics ended early, see above: {', '.join(failed)}")


if __name__ == "__main__":
    main()
