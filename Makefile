# One command a job. `make run` and `make test` do all the set-up they need, in .venv.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

BIN := .venv/bin
HOST ?= 127.0.0.1
PORT ?= 8321
DATA ?= data
WORKERS ?= 2
# Client libraries that the default tests run, each in an environment of its own; the long tests run all.
CLIENTS := respan-api-0.1.49 respan-api-0.1.47 respan-tracing-2.24.0 otlp-http-1.45.2 otlp-grpc-1.45.2 \
	langsmith-0.15.0 langsmith-0.11.1 phoenix-client-3.5.0

.PHONY: help run test test-long pytest clients lint-and-types lint types format bench bench-peers lock clean setup-run setup-test

help: ## list the targets
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | sort | expand -t 16

run: setup-run ## start the server with a demo project on http://127.0.0.1:8321
	@CLEARSPAN_LOG_LEVEL=$${CLEARSPAN_LOG_LEVEL:-warning} exec $(BIN)/clearspan serve --host $(HOST) --port $(PORT) --data $(DATA) --demo

test: setup-test ## style, types and every default test
	@$(MAKE) --no-print-directory -j2 --output-sync lint-and-types clients
	@$(MAKE) --no-print-directory pytest

pytest: setup-test clients
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal --promises build/promises.json tests

lint-and-types: lint types

clients: setup-test # the environments of the client libraries, mostly waiting for downloads
	$(BIN)/python tests/clients/venvs.py $(CLIENTS)
	@tools/node.sh >/dev/null

test-long: setup-test ## the heavy variants as well; ends with the table of promises
	$(BIN)/python tests/clients/venvs.py
	@tools/node.sh >/dev/null
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal --promises build/promises.json -m "long or not long" tests

lint: setup-test ## ruff
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: setup-test ## mypy, strict
	$(BIN)/mypy

format: setup-test ## put the code into ruff's form
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: setup-test ## the budgets of docs/performance.md; ARGS="--quick" for a smaller run
	$(BIN)/python -m bench $(ARGS)

bench-peers: setup-test ## the same load against Arize Phoenix, side by side
	$(BIN)/python -m bench.peers $(ARGS)

lock: setup-test ## renew requirements/*.txt from pyproject.toml
	@tools/lock.sh

clean: ## remove the virtual environments and caches; the data directory stays
	rm -rf .venv .venvs .mypy_cache .ruff_cache .import_linter_cache .hypothesis build dist src/*.egg-info

setup-run:
	@tools/venv.sh runtime

setup-test:
	@tools/venv.sh test
