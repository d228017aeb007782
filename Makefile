# quickstart and test need Python 3.11 or newer and nothing else; .venv is made once and reused.
PYTHON ?= python3
BIN := .venv/bin
VERSION := $(shell sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)
JOBS ?= $(shell $(PYTHON) -c 'import os; print(os.cpu_count() or 1)')

.PHONY: quickstart test slow coverage lint docs gpu dist release tagged clean

quickstart: .venv/.installed
	$(BIN)/lit-gans fit --config experiments/cgan/digits.yaml

test: .venv/.installed-dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) --dist worksteal

slow: .venv/.installed-dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m slow -n $(JOBS) --dist worksteal --timeout=3600

# What the tests of `make test` run through: a table, and a page per file in build/coverage.
coverage: .venv/.installed-dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) --dist worksteal --cov --cov-report=term --cov-report=html

lint: .venv/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/mypy

docs: .venv/.installed-dev
	$(BIN)/zensical build --strict --config-file zensical.toml

# Every paper on the accelerator that is here, in every way that it can be computed; without one, in small on the CPU.
gpu: .venv/.installed-dev
	$(BIN)/python -m tests.gpu_smoke

# What goes to PyPI, in dist/. URL=https://github.com/OWNER/lit_gans is where the README's links lead from there.
dist: export LIT_GANS_URL = $(URL)
dist: .venv/.installed-dev
	rm -rf dist
	$(BIN)/python -m build --outdir dist .
	$(BIN)/python -m twine check --strict dist/*

# That of a tag, TAG=v0.1.0, if the project's files are ready for it.
release: tagged dist

tagged:
	@test "$(TAG)" = "v$(VERSION)" || { echo "the tag is '$(TAG)', and pyproject.toml has version $(VERSION): TAG=v$(VERSION)"; exit 1; }
	@test -n "$(URL)" || { echo "the README's links would lead nowhere on PyPI: URL=https://github.com/OWNER/lit_gans"; exit 1; }
	@grep -Eq '^## \[$(VERSION)\] - [0-9]{4}-[0-9]{2}-[0-9]{2}$$' CHANGELOG.md || \
		{ echo "CHANGELOG.md has no date for version $(VERSION): ## [$(VERSION)] - YYYY-MM-DD"; exit 1; }

.venv/.made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "lit_gans needs Python 3.11 or newer; found `$(PYTHON) -V`: make PYTHON=/path/to/python3.12 ..."; exit 1; }
	$(PYTHON) -m venv .venv
	@touch $@

.venv/.installed: .venv/.made pyproject.toml constraints.txt
	@echo "installing into .venv, once: about 6 GB and a few minutes; docs/install.md has the way without CUDA"
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable .
	@touch $@

.venv/.installed-dev: .venv/.installed
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@

clean:
	rm -rf .venv build dist site *.egg-info .pytest_cache .ruff_cache
