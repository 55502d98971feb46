# `make run` and `make test` do their whole set-up in a fresh clone; nothing outside .venv is touched.
PYTHON ?= python3
BIN = .venv/bin
CORE = $(wildcard ext/*.pyx ext/*.pxd) setup.py pyproject.toml

.PHONY: build run demo test lint fuzz soak bench man clean

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

demo: build
	$(BIN)/fastscreen demo

lint: .venv/tools
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	PATH="$(BIN):$$PATH" cython-lint --max-line-length 120 ext/*.pyx ext/*.pxd

test: .venv/tools lint
	$(BIN)/python -m pytest -n 4   # tests/conftest.py says what goes where; nearly all of it is waiting

# The parsers under AddressSanitizer and UndefinedBehaviorSanitizer, with new random input each round. Not part of `make test`.
FUZZ_SECONDS ?= 60
FUZZ_TESTS ?= tests/property tests/unit/test_networks.py tests/unit/test_dns.py

build/fuzz/built: $(CORE) .venv/tools
	FASTSCREEN_SANITIZE=address,undefined $(BIN)/python setup.py --quiet build --force --build-base build/fuzz --build-lib build/fuzz
	touch $@

# Leaks are not looked for (the interpreter itself leaves memory); pymalloc would hide what lies beside an object; without
# PYTHONSAFEPATH the core of the source tree would be imported; a report is written to the descriptor, so only sys is captured.
fuzz: build/fuzz/built
	export LD_PRELOAD="$$($(CC) -print-file-name=libasan.so)" PYTHONPATH=build/fuzz PYTHONSAFEPATH=1 PYTHONMALLOC=malloc \
	    ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1 && \
	$(BIN)/python -c 'import fastscreen.core as core; print(core.__file__); assert "/build/fuzz/" in core.__file__' && \
	end=$$(($$(date +%s) + $(FUZZ_SECONDS))) && \
	while [ $$(date +%s) -lt $$end ]; do \
	    $(BIN)/python -m pytest -p no:cacheprovider --capture=sys $(FUZZ_TESTS) || exit 1; \
	done

# Traffic and faults in namespaces of its own, as root: `make soak MINUTES=15 SEED=7`, also with FAULTS=worker_killed,mta_full.
MINUTES ?= 15
SEED ?= 1
FAULTS ?=

soak: .venv/tools
	PYTHONPATH=tests $(BIN)/python -m soak --minutes $(MINUTES) --seed $(SEED) --faults "$(FAULTS)"

bench: .venv/tools
	$(BIN)/python -m bench

# contrib/man: the pages that packages install, from --help and the table of keys
man: build
	$(BIN)/python -m fastscreen.manual

clean:
	rm -rf .venv build *.egg-info ext/core.c fastscreen/*.so
