"""What is measured, by scripts that anyone can run again: `python -m benchmarks --help`."""
