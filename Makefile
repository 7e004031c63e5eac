# Everything a developer or a visitor runs. `make help` lists it.
SHELL := /bin/sh
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
SITE ?= site

.DEFAULT_GOAL := help
.PHONY: help setup peers demo run test check bench bench-archive docs format clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "Python 3.11 or newer is needed: make PYTHON=python3.12 ..."; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || sh tests/install_peers.sh python3-venv
	@echo "Setting up $(VENV) (once, about a minute) ..."
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $(READY)

setup: $(READY) ## make the virtual environment with the tested versions

peers: ## install the real peers the tests talk to (Debian packages and one from npm); says what it cannot
	@sh tests/install_peers.sh dcmtk orthanc python3-gdcm libgdcm-tools slapd ldap-utils dnsmasq-base chrony
	@command -v npm >/dev/null 2>&1 || sh tests/install_peers.sh nodejs npm
	@sh tests/install_npm_peer.sh tests/interop/node

demo: $(READY) ## a department's day in about a minute, over real HL7, FHIR, DICOM and SQLite
	@$(BIN)/gateway demo

run: $(READY) ## lay out a site in ./site (once) and run the service on it
	@test -e $(SITE)/gateway.yaml || $(BIN)/gateway init $(SITE)
	@$(BIN)/gateway run --config $(SITE)/gateway.yaml

test: $(READY) peers check ## every check and every test, with the real peers
	$(BIN)/pytest -n 2 --dist loadfile

check: $(READY) ## formatting, lint, types, layers (no tests)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(READY) peers ## the benchmark table, side by side with the peers; writes docs/benchmarks.md
	$(BIN)/python -m tests.benchmarks

bench-archive: $(READY) ## the archive at a million messages, about half an hour; writes its part of docs/benchmarks.md
	$(BIN)/python -m tests.benchmarks --archive

docs: $(READY) ## rewrite what is generated: tables of FHIR, and pages from the code's tables and the test cases
	$(BIN)/python -m tests.fhir_tables
	$(BIN)/python -m gateway.schemas
	$(BIN)/python -m gateway.edges.ldap_schema
	$(BIN)/python -m gateway.reference docs/reference
	$(BIN)/python -m tests.cases.worklist --docs docs/worklist-conformance-suite.md

format: $(READY) ## format and fix what can be fixed
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean: ## remove the virtual environment and caches
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
