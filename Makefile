# Two commands set everything up on a machine that has Python 3.11 or newer, pip and make: `make demo` and `make test`.
# Each target's sentence after ## is what `make help` prints.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
LOCK   := requirements.lock

# What pip must not do here: look for its own newer version, or ask anything of the person.
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PIP_NO_INPUT := 1

# Tests start hundreds of processes: what Python compiled once is kept, whatever the shell says.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help setup setup-browser setup-compiler demo test test-long guides pictures check format lock bench clean

help:  ## Lists the targets.
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

setup: $(STAMP)  ## Installs the locked dependencies and headwater itself (editable) into .venv; does nothing when up to date.

# The stamp is written last: an interrupted install is done again. Everything is checked against its hash;
# headwater itself is built with the locked hatchling, so that no build environment is fetched.
$(STAMP): $(LOCK) pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit("headwater needs Python 3.11 or newer, this is " + sys.version.split()[0]) if sys.version_info < (3, 11) else None'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --require-hashes --only-binary :all: -r $(LOCK)
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --no-index -e .
	touch $@

lock: $(STAMP)  ## Resolves the newest versions that work together and writes requirements.lock with their hashes.
	$(BIN)/uv pip compile pyproject.toml --extra dev --universal --python-version 3.11 --upgrade --quiet --no-strip-extras \
		--generate-hashes --no-header --no-annotate --no-emit-index-url --no-emit-find-links -o $(LOCK).new
	(echo '# Written by `make lock` from pyproject.toml. Every file is checked against its hash; no index is named here.'; \
		grep -vE '^ *(--(extra-)?index-url|--find-links|--trusted-host)|://' $(LOCK).new) > $(LOCK)
	rm $(LOCK).new

setup-browser: $(STAMP)  ## Makes sure that a chromium for the browser tests is there (Debian's package, when root).
	@if command -v chromium >/dev/null || command -v chromium-browser >/dev/null; then exit 0; \
	elif command -v apt-get >/dev/null && [ "$$(id -u)" = 0 ]; then \
		echo "installing Debian's chromium for the browser tests"; \
		apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium >/dev/null; \
	else \
		echo "The browser tests need chromium and will be skipped. Install it with: sudo apt-get install chromium"; \
	fi

setup-compiler: $(STAMP)  ## Makes sure that a C compiler for the power-loss tests is there (Debian's package, when root).
	@if command -v gcc >/dev/null && echo '#include <stdio.h>' | gcc -E - >/dev/null 2>&1; then exit 0; \
	elif command -v apt-get >/dev/null && [ "$$(id -u)" = 0 ]; then \
		echo "installing Debian's gcc for the power-loss tests"; \
		apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends gcc libc6-dev >/dev/null; \
	else \
		echo "The power-loss tests need gcc and will be skipped. Install it with: sudo apt-get install gcc libc6-dev"; \
	fi

demo: $(STAMP)  ## Starts everything: PostgreSQL with a live web shop, views, JupyterLab and Dagster; Ctrl-C ends it.
	$(BIN)/headwater demo

# Four workers on two cores: a test waits for processes half of its time.
test: $(STAMP) setup-browser setup-compiler  ## Runs the tests, all but the long ones; under 8 minutes on 2 cores.
	$(BIN)/python -m pytest -m "not long" -n 4 --dist loadfile --no-loadscope-reorder $(ARGS)

test-long: $(STAMP) setup-browser setup-compiler  ## Runs the long tests: load, crash sweeps, restarts. ARGS="..." goes to pytest.
	$(BIN)/python -m pytest -m long $(ARGS)

PICTURES = table chart-bar rates timeline pipeline schema dead-letters backfill dashboard
pictures: $(STAMP) setup-browser  ## Takes pictures of every panel (build/screenshots); the documentation keeps some of the light ones.
	$(BIN)/python -m pytest tests/notebooks/test_panel_pictures.py -m long $(ARGS)
	for name in $(PICTURES); do cp build/screenshots/$$name-light.png docs/images/$$name.png; done

guides: $(STAMP)  ## Runs the guides under notebooks/ and stores in them what they show.
	HEADWATER_STORE_GUIDES=1 $(BIN)/python -m pytest tests/notebooks/test_guides.py -m "not long" $(ARGS)

check: $(STAMP)  ## Checks format, lint, types and the direction of imports; changes nothing.
	$(BIN)/ruff format --check --quiet .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

format: $(STAMP)  ## Formats the code and mends what ruff can mend safely.
	$(BIN)/ruff check --fix-only --quiet .
	$(BIN)/ruff format .

bench: $(STAMP)  ## Measures the log, capture against pg_recvlogical, Nexmark, and the latency from source commit to view.
	$(BIN)/python -m benchmarks.log
	$(BIN)/python -m benchmarks.capture
	$(BIN)/python -m benchmarks.latency
	$(BIN)/python -m benchmarks.nexmark
	$(BIN)/python -m benchmarks.jobs

clean:  ## Removes .venv, caches and build output; never a project's data.
	rm -rf $(VENV) dist build .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
