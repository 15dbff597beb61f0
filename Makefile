# `make demo` and `make test` work from a bare checkout: they need python3 (3.11 or newer) and
# make, and put everything else into .venv.

PYTHON ?= python3
WORKERS ?= 2
PYTEST_ARGS ?=
HYPOTHESIS_PROFILE ?= dev
export HYPOTHESIS_PROFILE

BIN := .venv/bin
READY := .venv/.ready
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints-dev.txt

.PHONY: help demo test nightly lint types bench wheel clean

help: ## list the targets
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' Makefile | expand -t 12

demo: $(READY) ## quantize a real model's weights: accuracy table and picture
	$(BIN)/python examples/digits/demo.py

test: $(READY) ## run the suite (PYTEST_ARGS='tests/laws --backends numpy')
	$(BIN)/python -m pytest -q -n $(WORKERS) $(PYTEST_ARGS)

nightly: $(READY) ## run the suite with many more examples
	HYPOTHESIS_PROFILE=nightly $(BIN)/python -m pytest -q -n $(WORKERS) $(PYTEST_ARGS)

lint: $(READY) ## ruff: lints and formatting
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(READY) ## mypy --strict
	$(BIN)/mypy --strict

bench: $(READY) ## speed against a plain copy and against peers
	$(BIN)/python benchmarks/cpu.py

wheel: $(READY) ## build the wheel into dist/
	$(BIN)/python -m build --wheel --no-isolation

clean: ## remove .venv and everything built or cached
	rm -rf .venv build dist .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# A .venv made by hand is kept and brought up to date; one that cannot run pip is made anew.
# torch goes first and alone, so that pip takes the CPU build wherever an index has one.
$(READY): pyproject.toml constraints-dev.txt
	@command -v $(PYTHON) >/dev/null || { echo "fpemu needs Python 3.11 or newer, and there is no $(PYTHON): try make PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; v >= (3, 11) or sys.exit("fpemu needs Python 3.11 or newer, and $(PYTHON) is %d.%d: try make PYTHON=python3.12" % v)'
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear .venv
	@echo "Setting up .venv (a minute or two the first time)"
	@$(PIP_INSTALL) torch
	@$(PIP_INSTALL) -e '.[all,test,oracles,dev]'
	@touch $(READY)
