# Two commands matter to a newcomer: `make demo` and `make test`. Everything else is listed by `make help`.
SHELL := /bin/bash
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
PACKAGES := contracts $(wildcard libs/*) $(wildcard services/*)
INSTALLED := $(VENV)/.installed
NODE_INSTALLED := tests/node/node_modules/.installed

# What the suite drives and no package index has: program=Debian package.
PROGRAMS := nginx=nginx-light promtool=prometheus chromium=chromium

.DEFAULT_GOAL := help
.PHONY: help install programs lock generate demo up test soak bench screenshots check format clean

help:  ## list the commands
	@awk -F':.*## ' '/^[a-z]+:.*## /{printf "  make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(INSTALLED)  ## install everything into .venv

$(INSTALLED): requirements.lock pyproject.toml $(PACKAGES:%=%/pyproject.toml)
	@command -v $(PYTHON) >/dev/null || { echo "Python 3.11 is needed: $(PYTHON) was not found (set PYTHON=...)" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check "uv==0.13.9"
	$(BIN)/uv pip install --quiet --require-hashes -r requirements.lock
	$(BIN)/uv pip install --quiet --no-deps --no-build-isolation $(PACKAGES:%=-e %)
	@touch $@

# The suite's certified issuer and subscriber, and what checks the web page, come from npm; node itself is a Python wheel.
$(NODE_INSTALLED): tests/node/package.json tests/node/package-lock.json tests/node/.npmrc | $(INSTALLED)
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/npm ci --silent --prefix tests/node
	@touch $@

# RUNLEVEL=1: a server that is installed here is not started.
programs:
	@missing=; for each in $(PROGRAMS); do command -v $${each%=*} >/dev/null || [ -x /usr/sbin/$${each%=*} ] || missing="$$missing $${each#*=}"; done; \
	[ -z "$$missing" ] || { echo "installing$$missing"; [ $$(id -u) = 0 ] || sudo=sudo; \
	  { $$sudo apt-get -qq update && $$sudo env RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive apt-get -qq install --no-install-recommends $$missing >/dev/null; } \
	  || { echo "the suite needs these packages:$$missing" >&2; exit 1; }; }

lock: COMPILE := $(BIN)/uv pip compile --quiet $(if $(UPGRADE),--upgrade) --python-version 3.11 --generate-hashes --no-header --no-annotate
lock: OTHERS := $(foreach p,$(PACKAGES),--no-emit-package converter-$(notdir $(p)))
lock: | $(INSTALLED)  ## pin every dependency, with hashes; UPGRADE=1 takes the newest
	$(COMPILE) --universal pyproject.toml --group dev $(OTHERS) -o requirements.lock
	$(COMPILE) --python-platform linux $(wildcard services/*/pyproject.toml) libs/kneron/pyproject.toml -c requirements.lock $(OTHERS) -o deploy/requirements.lock
	for each in benchmarks/peers/*/requirements.in; do $(COMPILE) --universal $$each -o $${each%.in}.lock || exit 1; done

generate: $(INSTALLED)  ## write the files that derive from the code
	$(BIN)/python deploy/env_example.py > env.example
	$(BIN)/python -m converter.gateway.openapi.document public > docs/openapi.json
	$(BIN)/python -m converter.gateway.openapi.document internal > docs/openapi-internal.json
	$(BIN)/python deploy/troubleshooting.py
	$(BIN)/python tests/fault_matrix.py
	$(BIN)/python deploy/nginx_conf.py > deploy/nginx/converter.conf
	$(BIN)/python deploy/grafana_dashboard.py > deploy/grafana/dashboard.json
	$(BIN)/python deploy/schemas.py
	$(BIN)/python deploy/asyncapi.py

demo: $(INSTALLED)  ## convert a real model through the whole stack; MODEL=path.onnx IMAGES=dir FIELDS="name=value …" for your own
	@$(BIN)/python -m converter.devstack demo $(if $(MODEL),--model "$(MODEL)") $(if $(IMAGES),--images "$(IMAGES)") $(FIELDS:%=--field '%')

up: $(INSTALLED)  ## run the stack on loopback until Ctrl-C; addresses and credentials go to .dev/stack.env
	@$(BIN)/python -m converter.devstack up

test: $(INSTALLED) $(NODE_INSTALLED) programs  ## run the whole suite
	$(BIN)/pytest -q

# Full disks, power cuts and failing flushes take root: without it they are left out, and the matrix says so.
soak: SEEDS ?= 1,2,3,4,5
soak: JOBS ?= 100
soak: PROGRAMS += busybox=busybox strace=strace mkfs.ext4=e2fsprogs
soak: $(INSTALLED) $(NODE_INSTALLED) programs  ## every fault, storms and large counts for about an hour, and broken rules that tests must notice; SEEDS=1,2,3 JOBS=200
	$(BIN)/python tests/chaos/teeth.py
	CHAOS_SEEDS=$(SEEDS) CHAOS_JOBS=$(JOBS) CHAOS_MESSAGES=10000 CHAOS_FAULTS=350 CHAOS_ROUNDS=50 \
	  CHAOS_CROWD=1000 CHAOS_QUEUED=10000 CHAOS_NETWORK=560 CHAOS_KILLS=100 CHAOS_LEADERS=10 \
	  $(BIN)/pytest -n 0 -v -m "fault$(if $(filter-out 0,$(shell id -u)), and not root)"

# Peers' servers and a load generator; peers in Python and Node are installed by their rows.
bench: PROGRAMS := redis-server=redis-server /usr/lib/postgresql/15/bin/postgres=postgresql-15 wrk=wrk
bench: $(INSTALLED) programs  ## measure against peers and limits, and write docs/performance.md; ROWS="upload …" ROUNDS=5
	$(BIN)/python benchmarks/run.py $(ROWS) --rounds $(or $(ROUNDS),5)
	$(BIN)/python benchmarks/page.py

screenshots: $(INSTALLED) $(NODE_INSTALLED) programs  ## take the pictures of the web page for docs/
	SCREENSHOTS=$(CURDIR)/docs/images $(BIN)/pytest -q -n 0 tests/browser/test_views.py

check: $(INSTALLED)  ## formatting, lint, types, import layers, the image's recipe, known weaknesses of dependencies (AUDIT=required: or fail)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/hadolint deploy/Dockerfile
	AUDIT=$(AUDIT) $(BIN)/python deploy/audit.py

format: $(INSTALLED) $(NODE_INSTALLED)  ## format and fix what can be fixed
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
	PATH="$(CURDIR)/$(BIN):$$PATH" tests/node/node_modules/.bin/prettier --config tests/node/prettier.json --write --log-level warn "services/*/src/**/web/**/*.{js,css}"

# A stack holds its lock for as long as it runs.
clean:  ## remove the stack's data; not while it runs
	@for each in $(wildcard .dev/lock .dev/demo/*/lock); do \
	  flock --nonblock $$each true || { echo "a stack runs in $${each%/lock}: end it first" >&2; exit 1; }; done
	rm -rf .dev
