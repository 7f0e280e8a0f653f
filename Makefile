# Every target makes its own `.venv` first, with any Python from 3.11 on: `make demo PYTHON=python3.12`.
# Nothing outside this folder is written to, and nothing but Python and pip has to be on the machine.

PYTHON ?= python3
JOBS ?= 2
DEVICES ?= 40
FUZZ ?= 100000
EXAMPLES ?= 200
SEEDS ?= 1000
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
INSTALLED := $(VENV)/.installed
CODE := fleet agent sim harness
SWEPT := scenarios/upgrade/straight.toml scenarios/rollback/automatic-return.toml scenarios/rollback/explicit.toml

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo seeds crashpoints planted conformance storm e2e test check lint types imports format bench docs constraints clean fuzz

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z0-9]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

demo: $(INSTALLED) ## The main job: every scenario on DEVICES=40 simulated devices, ending in a table
	$(BIN)/twin run scenarios --target sim --devices $(DEVICES) --jobs $(JOBS)

seeds: $(INSTALLED) ## Every scenario with SEEDS=1000 seeds on 5 devices: none may end other than held
	$(BIN)/twin run scenarios --seeds $(SEEDS) --devices 5 --jobs $(JOBS)

crashpoints: $(INSTALLED) ## Cut the power and kill processes at every operation of an upgrade, a return and a rollback, once and twice (some 1800 runs)
	$(BIN)/twin crashpoints $(SWEPT) --draws 2 --jobs $(JOBS)
	$(BIN)/twin crashpoints $(SWEPT) --operator --jobs $(JOBS)

planted: $(INSTALLED) ## Plant each known bug into the production code and show which check catches it
	$(BIN)/python -m tests.planted

conformance: $(INSTALLED) ## EXAMPLES=200 courses by chance on each model and on what it stands for: examples, divergences, operations
	FLEET_CONFORMANCE_EXAMPLES=$(EXAMPLES) $(BIN)/python -m tests.conformance

storm: $(INSTALLED) ## Restart a server under 500 virtual and 200 real clients with tokens: spread, callout load, time until all are back
	$(BIN)/python -m harness.storm

e2e: $(INSTALLED) ## The same scenarios on real processes and a real nats-server
	$(BIN)/twin run scenarios --target local --devices 3 --jobs $(JOBS)

test: $(INSTALLED) ## The tests (JOBS=2 workers)
	$(BIN)/pytest -n $(JOBS)

fuzz: $(INSTALLED) ## Hostile bytes at every codec, the operator and the agent: FUZZ=100000 examples each
	FLEET_FUZZ_EXAMPLES=$(FUZZ) $(BIN)/pytest -n $(JOBS) tests/fuzz

check: lint test ## Everything that has to hold before a change goes in

lint: $(INSTALLED) types imports ## ruff, mypy --strict, import-linter: `make check` without the tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(INSTALLED)
	$(BIN)/mypy

imports: $(INSTALLED)
	$(BIN)/lint-imports --no-logo

format: $(INSTALLED) ## Let ruff put imports and layout in order
	$(BIN)/ruff check --select I --fix .
	$(BIN)/ruff format .

bench: $(INSTALLED) ## What a heartbeat costs for 100, 1,000 and 5,000 virtual devices
	$(BIN)/python -m harness.bench

docs: $(INSTALLED) ## Write the generated reference pages again
	$(BIN)/python -m scripts.reference

constraints: ## Resolve constraints.txt anew (newest versions that fit pyproject.toml)
	PYTHON=$(PYTHON) scripts/constraints.sh

clean: ## Remove the environment and what tools left behind
	rm -rf $(VENV) .run .mypy_cache .ruff_cache .import_linter_cache .hypothesis

$(INSTALLED): pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) install --constraint constraints.txt hatchling
	$(PIP) install --constraint constraints.txt --no-build-isolation --editable '.[dev]'
	@touch $@

# Where Python comes without its own copy of pip (Debian without python3-venv), the machine's pip does it.
$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.11 ...")'
	@$(PYTHON) -m venv $(VENV) >/dev/null 2>&1 || { \
	  $(PYTHON) -m venv --clear --without-pip $(VENV) && $(PYTHON) -m pip --python $(BIN)/python install --quiet pip; }
