# bot-bottle: every target sets up what it needs by itself; `make demo` and `make test` work from a fresh clone.
#
#   make demo     a scripted agent in a real bottle, scene by scene, with nothing but this machine
#   make test     all tests (T="path -k expr" narrows them)
#   make fuzz     fuzz what a bottle and its servers may send (FUZZ_SECONDS=600), where atheris can be installed
#   make lint     ruff (lint and format) and mypy --strict
#   make audit    ask whether what is pinned has known holes, where a database of them can be reached
#   make bench    the numbers beside their peers, written to docs/benchmarks.md
#   make clean    remove what the other targets made
#
# PYTHON=/path/to/python3 picks an interpreter; otherwise the newest Python >= 3.11 on the machine is taken.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory

VENV := .venv
PY := $(VENV)/bin/python
RUN_STAMP := $(VENV)/.stamp-run
DEV_STAMP := $(VENV)/.stamp-dev
T ?=
FUZZ_SECONDS ?= 600
export PYTHON

.PHONY: help demo test fuzz lint audit format bench setup clean

help:
	@sed -n 's/^#   //p' Makefile

demo: $(RUN_STAMP)
	@$(VENV)/bin/bot-bottle demo

# Each run has a temporary folder of its own: two accounts never meet in one, and nothing of it stays.
test: $(DEV_STAMP)
	@temp=$$(mktemp -d); trap 'rm -rf "$$temp"' EXIT; PYTEST_DEBUG_TEMPROOT=$$temp $(PY) -m pytest $(T)

fuzz: $(DEV_STAMP)
	@$(PY) -c 'import atheris' 2>/dev/null || \
	  $(PY) -m pip install --disable-pip-version-check -q --require-hashes -r requirements/fuzz.txt
	@$(PY) -m tests.fuzz --seconds $(FUZZ_SECONDS)

lint: $(DEV_STAMP)
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check .
	@$(PY) -m mypy

audit: $(DEV_STAMP)
	@$(PY) -m tests.tools.audit

format: $(DEV_STAMP)
	@$(PY) -m ruff check --fix .
	@$(PY) -m ruff format .

bench: $(DEV_STAMP)
	@$(PY) -m benchmarks

setup: $(DEV_STAMP)

$(RUN_STAMP): pyproject.toml requirements/run.txt .ci/venv
	@.ci/venv $(VENV) run

$(DEV_STAMP): pyproject.toml requirements/dev.txt .ci/venv
	@.ci/venv $(VENV) dev

clean:
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
