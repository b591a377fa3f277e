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

.DEFAULT_GOAL := help
.PHONY: help setup setup-browser demo test test-long check format lock bench clean

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
