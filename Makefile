# quickstart and test need Python 3.11 or newer and nothing else; .venv is made once and reused.
PYTHON ?= python3
BIN := .venv/bin
JOBS ?= $(shell $(PYTHON) -c 'import os; print(os.cpu_count() or 1)')

.PHONY: quickstart test slow lint docs gpu clean

quickstart: .venv/.installed
	$(BIN)/lit-gans fit --config experiments/cgan/digits.yaml

test: .venv/.installed-dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) --dist worksteal

slow: .venv/.installed-dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m slow -n $(JOBS) --dist worksteal --timeout=3600

lint: .venv/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/mypy

docs: .venv/.installed-dev
	$(BIN)/zensical build --strict --config-file zensical.toml

# Every paper on the accelerator that is here, in every way that it can be computed; without one, in small on the CPU.
gpu: .venv/.installed-dev
	$(BIN)/python -m tests.gpu_smoke

.venv/.made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "lit_gans needs Python 3.11 or newer; found `$(PYTHON) -V`: make PYTHON=/path/to/python3.12 ..."; exit 1; }
	$(PYTHON) -m venv .venv
	@touch $@

.venv/.installed: .venv/.made pyproject.toml constraints.txt
	@echo "installing into .venv, once: about 6 GB and a few minutes"
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable .
	@touch $@

.venv/.installed-dev: .venv/.installed
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@

clean:
	rm -rf .venv build dist site *.egg-info .pytest_cache .ruff_cache
