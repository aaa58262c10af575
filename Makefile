.DEFAULT_GOAL := help
SHELL := /bin/bash
.SHELLFLAGS := -o pipefail -c
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
COMPILED := $(VENV)/compiled
WITH_COMPILED := PYTHONSAFEPATH=1 PYTHONPATH=$(CURDIR)/$(COMPILED):$(CURDIR)
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# Tests start hundreds of processes: bytecode is kept for them even where the environment wants none.
TEST := PYTHONDONTWRITEBYTECODE= $(BIN)/pytest

.PHONY: help setup local test test-slow test-tools test-engine test-vllm test-compiled compiled check format bench golden clean

help: ## Show this help
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

setup: $(STAMP) ## Install everything into .venv from pinned versions

$(STAMP): pyproject.toml components/pyproject.toml services/pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Penstock needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) --version 2>&1). Set PYTHON=/path/to/python3.11" >&2; exit 1; }
	@echo "Installing the pinned packages into $(VENV) (about a minute, once)"
	@$(PYTHON) -m venv $(VENV)
	@PIP_CONSTRAINT=constraints.txt $(BIN)/pip install --quiet -e ./components -e ./services -e '.[dev]'
	@touch $@

local: $(STAMP) ## Serve the environment `local` behind a real Envoy on this machine
	@$(BIN)/penstock local up $(ARGS)

test: $(STAMP) ## Run the default tests (under 5 minutes)
	@$(TEST) -n 2 --dist loadgroup -m 'not vllm and not engine and not slow' $(ARGS)

test-slow: $(STAMP) ## Run the tests with whole stacks, real stores, browsers and crashes
	@$(TEST) -n 2 --dist loadgroup -m slow $(ARGS)

test-tools: ## Install what some tests need of the system: a Redis server, Chromium, a C compiler (Debian or Ubuntu, as root)
	@command -v redis-server >/dev/null && command -v chromium >/dev/null && command -v cc >/dev/null || \
	  { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq redis-server chromium gcc libc6-dev >/dev/null; }

test-engine: $(STAMP) ## Run the tests with a real Pulumi engine and API server; builds them once, from Go modules
	@$(BIN)/python -m tests.support.engine.build || [ $$? -eq 3 ]  # 3: out of reach, which the tests tell as they skip
	@$(BIN)/pytest -n 2 --dist loadfile -m engine $(ARGS)

test-vllm: $(STAMP) ## Run the tests in front of a real vLLM (see tests/dataplane/test_vllm.py)
	@$(BIN)/pytest -m vllm $(ARGS)

test-compiled: compiled ## Run the tests of the modules that the image has compiled, compiled
	@$(WITH_COMPILED) PENSTOCK_COMPILED=1 $(BIN)/python -m pytest -p services -n 2 --dist loadgroup -m 'not slow' \
	  tests/unit/extproc tests/unit/apimgmt tests/contract/extproc tests/contract/apimgmt $(ARGS)

compiled: $(COMPILED)/.made

$(COMPILED)/.made: $(STAMP) $(shell find services -name '*.py')
	@echo "Compiling what every request passes, as the image does (about 90 seconds)"
	@rm -rf $(COMPILED)
	@PIP_CONSTRAINT=constraints.txt $(BIN)/pip install --quiet --no-deps --no-compile --target $(COMPILED) ./services
	@$(BIN)/python -m services.compile $(COMPILED) 2>&1 | { grep -v ' warning: ' || true; }
	@touch $@

check: $(STAMP) ## Lint, format and type checks, exactly what CI checks
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

format: $(STAMP) ## Format the code and fix what can be fixed
	@$(BIN)/ruff check --fix --quiet . || true
	@$(BIN)/ruff format .

golden: $(STAMP) ## Regenerate inventories, schemas and the settings' reference, then look at `git diff`
	@$(BIN)/python -m tests.support.golden
	@$(BIN)/python -m tests.support.component_schema
	@$(BIN)/python -m tests.support.picture
	@$(BIN)/python -m infra.settings.schema
	@$(BIN)/python -m infra.settings.document

bench: compiled ## Measure the data path, compiled as in the image; prints tables and ratios
	@$(WITH_COMPILED) $(BIN)/python -m benchmarks $(ARGS)

clean: ## Remove the virtual environment and local state
	rm -rf $(VENV) .penstock
