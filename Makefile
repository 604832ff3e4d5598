# Two commands matter to a newcomer: `make demo` and `make test`. Everything else is listed by `make help`.
SHELL := /bin/bash
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
PACKAGES := contracts $(wildcard libs/*) $(wildcard services/*)
INSTALLED := $(VENV)/.installed
NODE_INSTALLED := tests/node/node_modules/.installed

.DEFAULT_GOAL := help
.PHONY: help install lock generate demo up test check format clean

help:  ## list the commands
	@awk -F':.*## ' '/^[a-z]+:.*## /{printf "  make %-9s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(INSTALLED)  ## install everything into .venv

$(INSTALLED): requirements.lock pyproject.toml $(PACKAGES:%=%/pyproject.toml)
	@command -v $(PYTHON) >/dev/null || { echo "Python 3.11 is needed: $(PYTHON) was not found (set PYTHON=...)" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check "uv==0.13.9"
	$(BIN)/uv pip install --quiet --require-hashes -r requirements.lock
	$(BIN)/uv pip install --quiet --no-deps --no-build-isolation $(PACKAGES:%=-e %)
	@touch $@

# The suite's certified issuer comes from npm; node itself is a Python wheel.
$(NODE_INSTALLED): tests/node/package.json tests/node/package-lock.json tests/node/.npmrc | $(INSTALLED)
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/npm ci --silent --prefix tests/node
	@touch $@

lock:  ## pin every dependency, with hashes; UPGRADE=1 takes the newest
	$(BIN)/uv pip compile --quiet $(if $(UPGRADE),--upgrade) --universal --python-version 3.11 --generate-hashes --no-header --no-annotate \
	  pyproject.toml --group dev $(foreach p,$(PACKAGES),--no-emit-package converter-$(notdir $(p))) -o requirements.lock

generate: $(INSTALLED)  ## write the files that derive from the code
	$(BIN)/python deploy/env_example.py > env.example
	$(BIN)/python -m converter.gateway.openapi.document > docs/openapi.json
	$(BIN)/python deploy/troubleshooting.py

demo: $(INSTALLED)  ## convert a real model through the whole stack; MODEL=path.onnx IMAGES=dir FIELDS="name=value …" for your own
	@$(BIN)/python -m converter.devstack demo $(if $(MODEL),--model "$(MODEL)") $(if $(IMAGES),--images "$(IMAGES)") $(FIELDS:%=--field "%")

up: $(INSTALLED)  ## run the stack on loopback until Ctrl-C; addresses and credentials go to .dev/stack.env
	@$(BIN)/python -m converter.devstack up

test: $(INSTALLED) $(NODE_INSTALLED)  ## run the whole suite
	$(BIN)/pytest -q

check: $(INSTALLED)  ## formatting, lint, types, import layers
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(INSTALLED)  ## format and fix what can be fixed
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:  ## remove the stack's data
	rm -rf .dev
