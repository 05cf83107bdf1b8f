# `make demo` and `make test` set themselves up; the second time they start at once.
#   PYTHON=python3.12   the Python that makes the environment (for another one: make clean first)
#   VENV=.venv          where the environment is
#   TORCH_INDEX=URL     take torch from this index, for example https://download.pytorch.org/whl/cpu
#   OUTPUT=demo_output  where the demo writes
#   ARGS=...            more flags for the demo, or for pytest
PYTHON ?= python3
VENV ?= .venv
TORCH_INDEX ?=
OUTPUT ?= demo_output
ARGS ?=
WORKERS ?= 2

BIN := $(VENV)/bin
SETUP := pyproject.toml constraints.txt
# Python compiles what it imports, when it imports it; compiling all of torch at once takes a minute.
# With PYTHONDONTWRITEBYTECODE it would do so again at each start (22 s of CPU time): then all is
# compiled here, once.
COMPILE := $(if $(PYTHONDONTWRITEBYTECODE),--compile,--no-compile)
INSTALL := $(BIN)/python -m pip install $(COMPILE) -c constraints.txt

.DEFAULT_GOAL := help
.PHONY: help install install-test install-docs install-dev demo test faults faults-full load lint format types contracts docs bench gpu clean

help:  ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1|\2/p' $(firstword $(MAKEFILE_LIST)) | awk -F'|' '{printf "%-22s%s\n", $$1, $$2}'
	@sed -n 's/^#   /  /p' $(firstword $(MAKEFILE_LIST))

demo: $(VENV)/.core  ## the whole pipeline on real images, in minutes, ending with a page
	$(BIN)/semsynth demo --output $(OUTPUT) $(ARGS)

# One thread a worker: two workers with two threads each would fight over two cores.
test: $(VENV)/.test  ## the tests, without network
	OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 $(BIN)/python -m pytest -n $(WORKERS) --dist loadgroup $(ARGS)

# What goes wrong is in faults.jsonl, with all that was printed. ARGS="--only train --seed 1"
faults: $(VENV)/.test  ## failing disks, kills, damaged files: a drawn sample, in 40 minutes
	$(BIN)/python tests/faults/campaign.py --minutes 40 $(ARGS)

faults-full: $(VENV)/.test  ## every file call of every command made to fail, for a night
	$(BIN)/python tests/faults/campaign.py --all $(ARGS)

# ARGS="--images 5000 --really 100" compares 500 with 5,000 images
load: $(VENV)/.test  ## 100,000 images, 200 classes, a mask of 30,000 x 30,000, 8 jobs at once
	$(BIN)/python tests/faults/load.py $(ARGS)

lint: $(VENV)/.dev  ## ruff: rules and format
	$(BIN)/ruff check
	$(BIN)/ruff format --check

format: $(VENV)/.dev  ## let ruff fix what it can
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

types: $(VENV)/.dev  ## mypy, strict
	$(BIN)/mypy

contracts: $(VENV)/.dev  ## which package may import which
	$(BIN)/lint-imports

# A warning is an error.
docs: $(VENV)/.docs  ## the documentation: build/docs/index.html
	HF_HUB_OFFLINE=1 $(BIN)/python -m sphinx -E -W --keep-going -q docs build/docs

bench: $(VENV)/.core  ## speed against the reference path, then images/s of each stage
	$(BIN)/python benchmarks/speed.py $(ARGS)
	$(BIN)/python benchmarks/run.py

gpu: $(VENV)/.test  ## what waits for a GPU, in pieces of under ten minutes (ARGS="--camvid FOLDER")
	$(BIN)/python benchmarks/gpu.py $(ARGS)

install: $(VENV)/.core  ## the environment for the demo
install-test: $(VENV)/.test  ## the environment for the tests
install-dev: $(VENV)/.dev  ## the environment for work on the code

install-docs: $(VENV)/.docs  ## the environment for the documentation

clean:  ## remove the environment and what tools leave behind
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache build dist

$(VENV)/.core: $(SETUP)
	@command -v "$(PYTHON)" >/dev/null || { echo "error: $(PYTHON) is not here; say which Python to use: make PYTHON=python3.12 ..." >&2; exit 2; }
	@"$(PYTHON)" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 15))' || { echo "error: $(PYTHON) is $$("$(PYTHON)" -V 2>&1), but semsynth needs Python 3.11 to 3.14: make PYTHON=python3.12 ..." >&2; exit 2; }
	@"$(PYTHON)" -c 'import ensurepip, venv' 2>/dev/null || { echo "error: $(PYTHON) has no venv module; install it (Debian, Ubuntu: sudo apt install python3-venv)" >&2; exit 2; }
	"$(PYTHON)" -m venv "$(VENV)"
	$(if $(TORCH_INDEX),$(INSTALL) --index-url $(TORCH_INDEX) torch)
	$(INSTALL) -e .
	@touch $@

$(VENV)/.test: $(VENV)/.core
	$(INSTALL) -e '.[test]'
	@touch $@

$(VENV)/.docs: $(VENV)/.core
	$(INSTALL) -e '.[docs]'
	@touch $@

$(VENV)/.dev: $(VENV)/.test
	$(INSTALL) -e '.[test,dev]'
	@touch $@
