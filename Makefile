.PHONY: help setup demo test check bench
.DEFAULT_GOAL := help
PYTHON ?= python3
VENV := .venv
STAMP := $(VENV)/.torpor-installed

help: ## show the targets
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/'

setup: $(STAMP) ## make .venv and install everything into it

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "torpor needs Python 3.11 or newer: make PYTHON=python3.11 ..."; exit 1; }
	@test -x $(VENV)/bin/pip || $(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); echo "python's venv module is not complete: apt-get install python3-venv"; exit 1; }
	$(VENV)/bin/pip install --quiet --disable-pip-version-check -c constraints.txt "setuptools>=77" wheel
	$(VENV)/bin/pip install --disable-pip-version-check --progress-bar off -c constraints.txt -e '.[platform,export,s3,otel,dev]' | grep -v "already satisfied" || true
	@$(VENV)/bin/python -P -c 'import torpor, bentoml, onnxruntime, torch, pytest'
	@touch $@

demo: setup ## export a model, deploy it, call it at zero replicas, watch it sleep
	@$(VENV)/bin/python -P infra/demo.py

test: setup ## all tests
	$(VENV)/bin/python -m pytest

check: setup ## lint, format, types
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

bench: setup ## every bench, beside its peers
	$(VENV)/bin/python -m bench all
