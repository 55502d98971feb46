# `make run` and `make test` do their whole set-up in a fresh clone; nothing outside .venv is touched.
PYTHON ?= python3
BIN = .venv/bin
CORE = $(wildcard ext/*.pyx ext/*.pxd) setup.py pyproject.toml

.PHONY: build run test lint bench clean

build: .venv/built

.venv/built: $(CORE)
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check "setuptools>=77" "Cython>=3.2,<4"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-build-isolation --editable .
	touch $@

.venv/tools: .venv/built
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-build-isolation --editable ".[test,bench,lint]"
	touch $@

run: build
	$(BIN)/fastscreen run

lint: .venv/tools
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	PATH="$(BIN):$$PATH" cython-lint --max-line-length 120 ext/*.pyx ext/*.pxd

test: .venv/tools lint
	$(BIN)/python -m pytest

bench: .venv/tools
	$(BIN)/python -m bench

clean:
	rm -rf .venv build *.egg-info ext/core.c fastscreen/*.so
