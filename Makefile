# `make serve` and `make test` do all the set-up on a machine that has Python and make. Two environments, because
# AgentScope 1.x and 2.x cannot be installed together: .venv holds 2.x, .venv-as1 holds 1.x. A third, .venv-tools, holds
# what checks and builds the code, and no AgentScope.

# The first Python on the path that Greenroom runs on; any can be named: make PYTHON=python3.12 test
PYTHON ?= $(shell for python in python3 python3.13 python3.12 python3.11; do \
	$$python -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null \
	&& echo $$python && exit; done; echo python3)
HOST ?= 127.0.0.1
PORT ?= 8090
ARGS ?=
# How many processes the tests run in; 0: in pytest's own, which is quicker for a few. Each takes tests of its own part of
# the list, whose neighbours share what they start, and one that is done takes over half of what another has left.
WORKERS ?= 2
PYTEST := -m pytest -n $(WORKERS) --dist worksteal

READY := .venv/.ready
READY1 := .venv-as1/.ready
TOOLS := .venv-tools/.ready

.PHONY: help serve test test-as1 test-as2 node-clients system-packages official-box quick lint format types mypy pyright layers wheel bench clean clean-all
.NOTPARALLEL:

help: ## what can be made
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## /{printf "make %-10s %s\n", $$1, $$2}' Makefile

serve: $(READY1) ## serve the assistant Friday on http://127.0.0.1:8090 (HOST=, PORT= change that)
	@.venv-as1/bin/greenroom model install
	@.venv-as1/bin/greenroom serve examples/friday.py --host $(HOST) --port $(PORT)

test: test-as2 test-as1 ## run the tests with AgentScope 2.x and with 1.x (ARGS= goes to pytest)

test-as2: $(READY) node-clients system-packages official-box ## run the tests with AgentScope 2.x
	.venv/bin/python $(PYTEST) $(ARGS)

test-as1: $(READY1) node-clients system-packages official-box ## run the tests with AgentScope 1.x, but those that have nothing to do with it
	.venv-as1/bin/python $(PYTEST) --of-the-line $(ARGS)

node-clients: # what the tests try of npm's, in the user's cache; says what is missing where there is no Node
	@$(PYTHON) tests/kits/node_clients.py

system-packages: # what the tests of sandboxes run; says what is missing where they may not be installed
	@$(PYTHON) scripts/system_packages.py

official-box: # the official sandbox's application, in the user's cache: our client is tried with it
	@PYTHONPATH=tests $(PYTHON) -m kits.official_box

quick: $(READY) ## run the fast tests with AgentScope 2.x
	.venv/bin/python -m pytest -m "not slow" $(ARGS)

lint: $(TOOLS) ## ruff: rules and format
	.venv-tools/bin/ruff check
	.venv-tools/bin/ruff format --check

format: $(TOOLS) ## let ruff mend what it can
	.venv-tools/bin/ruff check --fix
	.venv-tools/bin/ruff format

types: mypy pyright ## mypy strict and pyright

mypy: $(TOOLS)
	.venv-tools/bin/mypy

pyright: $(TOOLS)
	.venv-tools/bin/pyright

layers: $(TOOLS) ## import-linter: the arrows between the rooms
	.venv-tools/bin/lint-imports

wheel: $(TOOLS) ## build dist/*.tar.gz and, from it, dist/*.whl
	rm -rf build dist *.egg-info
	.venv-tools/bin/python -m build --quiet --installer uv

bench: $(READY) ## measure against a bare aiohttp handler; prints ratios
	.venv/bin/python -m benchmarks $(ARGS)

clean: ## remove what builds and tools left
	rm -rf build dist *.egg-info .coverage* htmlcov .hypothesis .mypy_cache .pytest_cache .ruff_cache .import_linter_cache
	find . -name __pycache__ -type d -not -path './.venv*' -prune -exec rm -rf {} +

clean-all: clean ## remove the environments too
	rm -rf .venv .venv-as1 .venv-tools

$(READY): pyproject.toml scripts/environment.py
	@$(PYTHON) scripts/environment.py .venv -e '.[agentscope,local,sandbox,test]'
	@touch $@

$(READY1): pyproject.toml scripts/environment.py
	@$(PYTHON) scripts/environment.py .venv-as1 -e '.[agentscope1,local,sandbox,test]'
	@touch $@

$(TOOLS): pyproject.toml scripts/environment.py
	@$(PYTHON) scripts/environment.py .venv-tools -e '.[sandbox,test]' --group dev
	@touch $@
