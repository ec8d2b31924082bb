# Everything runs inside .venv, which is made and filled on first use.
PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
PIP := $(PY) -m pip --disable-pip-version-check install --quiet --constraint constraints.txt

# One computing thread per test worker: more would make the workers wait for each other.
TEST := OMP_NUM_THREADS=1 $(PY) -m pytest

.DEFAULT_GOAL := help
.PHONY: help demo test docs lint types format check clean

help:
	@echo "make demo    a real search on embedded data, and its report"
	@echo "make test    the test suite"
	@echo "make check   lint, types and tests: what CI runs"
	@echo "make format  format the code"
	@echo "make docs    only the examples in README and docs"
	@echo "make clean   remove .venv and what tools left behind"

demo: $(VENV)/.demo
	$(PY) -m infcop demo

test: $(VENV)/.dev
	$(TEST) -n 2

docs: $(VENV)/.dev
	$(TEST) tests/docs

lint: $(VENV)/.dev
	$(PY) -m ruff format --check .
	$(PY) -m ruff check .

types: $(VENV)/.dev
	$(PY) -m mypy

format: $(VENV)/.dev
	$(PY) -m ruff format .
	$(PY) -m ruff check --fix .

check: lint types test

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis build dist

# PyTorch first and by itself: otherwise another package's wider range may choose another build.
$(VENV)/.torch: constraints.txt
	$(PYTHON) -c 'import sys; sys.exit("infcop needs Python 3.10 or newer" if sys.version_info < (3, 10) else 0)'
	test -x $(PY) || $(PYTHON) -m venv $(VENV)
	$(PIP) torch
	touch $@

$(VENV)/.demo: $(VENV)/.torch pyproject.toml
	$(PIP) --editable '.[demo]'
	touch $@

$(VENV)/.dev: $(VENV)/.torch pyproject.toml
	$(PIP) --editable '.[dev]'
	touch $@ $(VENV)/.demo
