# Everything starts here; nothing else has to be installed first but Python 3.11+, Node 20+ and make.
SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help setup dev test coverage lint format bench clean

BIN := .venv/bin
# A file of tests stays in one process, in order. Each process has servers of its own, some 2 GB in all.
PARALLEL := -n logical --maxprocesses 4 --dist loadfile --no-loadscope-reorder
# The pinned Node comes before the machine's.
export PATH := $(CURDIR)/node_modules/.bin:$(PATH)

help: ## Say what can be made
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## Install what is missing into .venv and node_modules
	@tools/setup.sh

dev: setup ## Run everything on this machine: Redis, origin and edge (Ctrl-C stops)
	@$(BIN)/encore dev

test: setup lint ## Check everything; ARGS=tests/shared runs some tests only
	$(BIN)/pytest $(PARALLEL) $(ARGS)

coverage: setup ## Say which lines and branches no test takes; ARGS as above
	rm -rf .cache/coverage
	$(BIN)/coverage run -m pytest $(PARALLEL) $(ARGS)
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report $(if $(ARGS),--fail-under=0)

lint: setup ## Check format, style and types
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

format: setup ## Format, and fix what can be fixed
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

bench: setup ## Measure most of what is claimed, beside others, on one page; ARGS=--quick is rough
	@$(BIN)/python -m bench $(ARGS)

clean: ## Remove what setup, builds and tests made; data (.encore, .wrangler) stays
	rm -rf .venv node_modules python_modules *.egg-info .pytest_cache .hypothesis .mypy_cache .ruff_cache
	find origin shared worker tests tools bench -name __pycache__ -type d -prune -exec rm -rf {} +
