SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help
MAKEFLAGS += --warn-undefined-variables --no-builtin-rules --no-print-directory

# Further arguments of a command: make up ARGS='--events kafka', make test ARGS='-k outbox'.
ARGS ?=
# The commit that `make lint` compares the protos with: where this branch left the main one; on the main one, HEAD.
AGAINST ?= $(shell git merge-base HEAD origin/HEAD 2>/dev/null || echo HEAD)
PYTHON ?= python3
BIN := .venv/bin
CODE := chassis edge_gateway mesh $(wildcard svc_*)

.PHONY: help
help: ## List the targets
	@sed -nE 's/^([a-z]+):.*## (.*)/  \1|\2/p' $(MAKEFILE_LIST) | column -t -s '|'

.PHONY: setup
setup: .venv/ready ## Create the environment with the locked dependencies; quick when it is there
	@:

.PHONY: up
up: setup ## Start everything and print the addresses; Ctrl-C stops it
	@$(BIN)/shopmesh up $(ARGS)

.PHONY: down
down: setup ## Stop a stack that was started with ARGS=--detach, or left behind
	@$(BIN)/shopmesh down $(ARGS)

.PHONY: test
test: setup ## Run every test
	@$(BIN)/python -m pytest -n auto --dist loadscope $(ARGS)

.PHONY: quick
quick: setup ## Run the unit and contract tests, and the integration tests of the services that you changed
	@$(BIN)/python -m pytest -n auto --dist loadscope tests/unit tests/contract $$($(BIN)/python -m tests.touched) $(ARGS)

.PHONY: lint
lint: setup ## Check style, types, layers and protos, and that no proto breaks its callers
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy $(CODE)
	$(BIN)/lint-imports --no-cache
	$(BIN)/python -m mesh.codegen --deps
	$(BIN)/buf lint
	$(BIN)/buf format --diff --exit-code protos
	@git rev-parse --verify --quiet HEAD >/dev/null || { echo "not a git clone: skipping the check for breaking changes"; exit; }; \
	$(BIN)/python -m mesh.codegen --breaking $(AGAINST)

.PHONY: fmt
fmt: setup ## Format everything
	$(BIN)/ruff check --fix
	$(BIN)/ruff format
	$(BIN)/buf format --write protos

.PHONY: gen
gen: setup ## Regenerate gen/, the reference docs and istio/ from protos/
	$(BIN)/python -m mesh.codegen
	$(BIN)/shopmesh mesh render

.PHONY: lock
lock: setup ## Update requirements.lock after a change of pyproject.toml
	@$(BIN)/uv pip compile --quiet --system-certs --universal --generate-hashes --no-emit-index-url --no-header \
		pyproject.toml --group dev --group test --output-file requirements.lock $(ARGS)

.PHONY: check
check: lint ## Run all that CI runs: lint, the check of gen/, and every test
	$(BIN)/python -m mesh.codegen --check
	@$(MAKE) test

.PHONY: bench
bench: setup ## Run the benchmarks
	@$(BIN)/python -m bench $(ARGS)

# Any Python from 3.11 on. uv is faster, but it ignores pip's own settings: where uv fails, pip may succeed.
.venv/ready: requirements.lock pyproject.toml
	@for python in $(PYTHON) python3.14 python3.13 python3.12 python3.11; do \
		$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && break; \
		python=none; \
	done; \
	if [ $$python = none ]; then \
		echo "Shopmesh needs Python 3.11 or newer, which was not found: install it, or give its path: make PYTHON=..." >&2; \
		exit 1; \
	fi; \
	echo "setting up .venv with $$($$python --version), once"; \
	$$python -m venv .venv || { echo "Python cannot make a venv; on Debian, install python3-venv" >&2; exit 1; }
	@awk '/^uv==/ { found = 1 } found { print } found && !/\\$$/ { exit }' requirements.lock > .venv/uv.txt
	@$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r .venv/uv.txt
	@$(BIN)/uv pip install --quiet --system-certs --python $(BIN)/python --require-hashes -r requirements.lock \
		|| $(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	@$(BIN)/uv pip install --quiet --system-certs --python $(BIN)/python --no-deps --no-build-isolation --editable . \
		|| $(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@
