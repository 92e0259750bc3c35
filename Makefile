# Everything a developer, a user or the CI runs. `make` alone lists the targets.
#
# The environment is always .venv beside this file. The folder's own path must not contain spaces: Ray
# starts its workers through a shell that does not quote them, and then waits for them for ever.

PYTHON ?= python3
# An extra package index that holds the build of torch you want (see README: CPU-only torch).
TORCH_INDEX ?=
# Passed on: make test PYTEST_FLAGS="-k bundle -x"
PYTEST_FLAGS ?=
# Two at once: one for all that starts processes, which mostly waits, one for the rest.
PYTEST_PROCESSES ?= -n 2 --dist loadgroup
LOCK_FLAGS ?=
# Passed on: make bench BENCH_FLAGS="train serve"
BENCH_FLAGS ?=

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.fer-ray-setup
LOCK_VENV := .lock-venv
UV := uv==0.13.8

LOCKED := requirements/lock-pure.txt requirements/lock-platform.txt requirements/constraints-cuda.txt
PIP := $(BIN)/python -m pip --disable-pip-version-check --no-input
# The CUDA packages are locked for the default build of torch; another index brings another build.
TORCH_FLAGS := $(if $(TORCH_INDEX),--extra-index-url "$(TORCH_INDEX)",-c requirements/constraints-cuda.txt)

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup quickstart test check lint types format bench faults test-cluster reference lock clean

help:  ## List the targets
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  %-14s %s\n", $$1, $$2}' Makefile
	@echo
	@echo "  PYTHON=python3.12   the Python to set up with (3.11 to 3.13)"
	@echo "  TORCH_INDEX=URL     an extra package index for torch, e.g. for its CPU-only build"
	@echo "  PYTEST_FLAGS=...    passed on to pytest"

setup: $(STAMP)  ## Create .venv and install the locked packages and fer-ray in it

$(STAMP): pyproject.toml $(LOCKED) tools/lock.py
	@case "$(CURDIR)" in *" "*) \
	  echo "error: Ray cannot run from a path with spaces: $(CURDIR); move the folder" >&2; exit 1;; esac
	@command -v "$(PYTHON)" > /dev/null || \
	  { echo "error: $(PYTHON) not found; name a Python 3.11 to 3.13: make setup PYTHON=..." >&2; exit 1; }
	@if [ ! -x $(BIN)/python ]; then \
	  $(call require_python,"$(PYTHON)") && echo "creating $(VENV)" && "$(PYTHON)" -m venv $(VENV); fi
	@$(call require_python,$(BIN)/python) || \
	  { echo "remove $(VENV) and run make setup again" >&2; exit 1; }
	@echo "installing the locked packages (some minutes and gigabytes the first time)"
	$(PIP) install -q --require-hashes --no-deps -r requirements/lock-pure.txt
	$(PIP) install -q -r requirements/lock-platform.txt $(TORCH_FLAGS)
	$(PIP) install -q --no-deps --no-build-isolation -e .
	$(PIP) check
	$(BIN)/python tools/lock.py --check
	@touch $@

quickstart: setup  ## The whole path on built-in sample faces, in a few minutes
	$(BIN)/python tools/quickstart.py

test: setup  ## All tests but the long ones, fault injection and clusters
	$(BIN)/python -m pytest -m "not long and not faults and not cluster" $(PYTEST_PROCESSES) $(PYTEST_FLAGS)

check: lint types  ## Lint and types

lint: setup  ## ruff (rules and format) and the floors between packages
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .
	$(BIN)/lint-imports

types: setup  ## mypy, strict, on the package
	$(BIN)/python -m mypy fer_ray

format: setup  ## Rewrite the code as `make lint` wants it
	$(BIN)/python -m ruff check --fix .
	$(BIN)/python -m ruff format .

bench: setup  ## All benchmarks, briefly; benchmarks/results/DATE.md, ratios beside the kept ones
	$(BIN)/python tools/bench.py $(BENCH_FLAGS)

faults: setup  ## Fault injection, long tests included
	$(BIN)/python -m pytest -m faults $(PYTEST_FLAGS)

test-cluster: setup  ## Tests that need a Ray cluster
	$(BIN)/python -m pytest -m cluster $(PYTEST_FLAGS)

reference: setup  ## Write docs/search-space.md, docs/cli.md and the schema from the code
	$(BIN)/fer-ray schema > docs/search-space.schema.json
	$(BIN)/python tools/reference.py

lock:  ## Write requirements/ anew from pyproject.toml (LOCK_FLAGS=--upgrade for newest versions)
	@$(call require_python,"$(PYTHON)")
	@[ -x $(LOCK_VENV)/bin/python ] || "$(PYTHON)" -m venv $(LOCK_VENV)
	$(LOCK_VENV)/bin/python -m pip install -q --disable-pip-version-check $(UV)
	$(LOCK_VENV)/bin/python tools/lock.py $(LOCK_FLAGS)

clean:  ## Remove caches and build outputs; the environment stays (rm -r .venv)
	rm -rf build dist $(LOCK_VENV) .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find fer_ray tests tools -name __pycache__ -type d -prune -exec rm -rf {} +

# $(call require_python,COMMAND): fails with the reason unless COMMAND is a supported Python.
define require_python
$(1) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 11) <= v <= (3, 13) else "error: fer-ray needs Python 3.11 to 3.13, but this is %d.%d; name another: make setup PYTHON=python3.12" % v)'
endef
