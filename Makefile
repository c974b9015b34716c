# A bare Python 3.11 or newer is enough: everything else is installed into .venv.
# On Linux without a GPU, EXTRA_PIP_ARGS can point pip at PyTorch's CPU builds, which saves gigabytes.

PYTHON := $(shell command -v python3.11 || command -v python3.12 || command -v python3.13 || command -v python3)
BIN := .venv/bin
PIP := $(BIN)/pip install -q --disable-pip-version-check -c constraints.txt $(EXTRA_PIP_ARGS)

.PHONY: demo test lint parity clean

demo: .venv/ready  ## from nothing to a finished report in a few minutes
	$(BIN)/ritornello run --minutes 3 --tokenizer bpe

# Two halves side by side: a test runs on one thread.
WAYS := readme ablations quality jobs benchmarks
KERNELS := tests/ops tests/native $(filter-out $(WAYS:%=tests/test_%.py),$(wildcard tests/test_*.py))

test: .venv/ready-for-tests lint  ## what must be green before anything lands
	@$(BIN)/python -m pytest $(KERNELS) & kernels=$$!; \
	$(BIN)/python -m pytest tests $(KERNELS:%=--ignore=%); rest=$$?; \
	wait $$kernels && exit $$rest

lint: .venv/ready-for-tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

parity: .venv/ready-for-tests  ## compare with the outside implementations themselves
	$(PIP) transformers
	$(PIP) --no-deps flash-linear-attention fla-core
	$(BIN)/python -m pytest -m parity

.venv/ready: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Ritornello needs Python 3.11 or newer, found " + sys.version.split()[0])'
	$(PYTHON) -m venv .venv
	$(PIP) torch==2.13.0
	$(PIP) -e .
	@touch $@

.venv/ready-for-tests: .venv/ready
	$(PIP) -e '.[test]'
	@touch $@

clean:
	rm -rf .venv build dist .pytest_cache .ruff_cache .mypy_cache
