# `make` lists what it can do. All paths are relative: the checkout may lie in a directory with spaces.
.DEFAULT_GOAL := help
.PHONY: help run processor test test-faults check docs test-docs test-clients test-openapi \
	test-generators bench soak requirements clean
MAKEFLAGS += --no-print-directory
# Tests start hundreds of processes: each would compile all modules again.
unexport PYTHONDONTWRITEBYTECODE

PY := .venv/bin/python
NODE_MODULES := docs/api-blueprint/node_modules
CLIENTS := tests/clients
GENERATORS := tests/generators

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /  make \1 \t/p' Makefile | expand -t 24

run: .venv/run.stamp ## install, start everything, print `ready: URL`; Ctrl-C stops it
	@exec $(PY) manage.py run

processor: .venv/run.stamp ## a small processor for treatments, at http://127.0.0.1:5080
	@exec $(PY) examples/processor/server.py $(ARGS)

# Tests that need Node, kill processes or drive a browser have targets of their own.
# One worker runs all tests of a file: no other one starts the servers or fills the tables of that file again.
# The order is that of conftest.py.
PYTEST := -m pytest -n auto --dist loadfile --no-loadscope-reorder --ignore=tests/clients \
	--ignore=tests/generators --ignore=tests/docs/test_transactions.py --ignore=tests/test_schemathesis.py

# How soon the health endpoints answer is measured: alone, not beside other tests. The other faults are measured beside
# one test at most.
CLOCKED := tests/health/test_matrix.py

test: .venv/dev.stamp ## the test suite on a PostgreSQL and a Redis of its own
	@exec $(PY) $(PYTEST) -m "not faults" $(ARGS)

test-faults: .venv/dev.stamp ## kills, freezes, supervisors, browsers, long runs
	@$(PY) -m pytest $(CLOCKED) && exec $(PY) $(PYTEST) -n 2 -m faults $(CLOCKED:%=--ignore=%) $(ARGS)

test-openapi: .venv/dev.stamp ## generated requests to every route of /openapi.json
	@exec $(PY) -m pytest tests/test_schemathesis.py

test-generators: .venv/dev.stamp $(GENERATORS)/.venv/.stamp $(GENERATORS)/node_modules/.stamp ## linters and client generators on /openapi.json (most need Node, some Java)
	@exec $(PY) -m pytest $(GENERATORS) -n 2 $(ARGS)

soak: .venv/dev.stamp ## write while every process dies and Redis freezes, and fail where anything was lost or late
	@exec $(PY) -m tests.soak $(ARGS)

check: .venv/dev.stamp ## ruff, mypy, import contracts, blueprint against routes
	$(PY) -m ruff check
	$(PY) -m ruff format --check
	$(PY) -m mypy
	.venv/bin/lint-imports
	$(PY) -m pytest --quiet tests/docs/test_routes.py tests/docs/test_attributes.py

docs: $(NODE_MODULES)/.stamp ## render docs/api-blueprint to the page that /docs shows; commit it (needs Node)
	@$(or $(PYTHON),python3) docs/api-blueprint/render.py

test-docs: .venv/dev.stamp $(NODE_MODULES)/.stamp ## every transaction of the blueprint against a live server (needs Node)
	@exec $(PY) -m pytest tests/docs $(ARGS)

test-clients: .venv/dev.stamp $(CLIENTS)/.venv/.stamp $(CLIENTS)/node_modules/.stamp ## the JSON:API clients people use against a live server (most need Node)
	@exec $(PY) -m pytest $(CLIENTS) $(ARGS)

bench: .venv/dev.stamp ## ours beside hand-written SQL and the stock library; ARGS=--quick: less than a minute
	@exec $(PY) -m benchmarks $(ARGS)

requirements: .venv/dev.stamp ## resolve the requirements*.in files again
	@for name in requirements requirements-embedded requirements-dev requirements-installer $(CLIENTS)/requirements \
		$(GENERATORS)/requirements; do \
		$(PY) -m uv pip compile --quiet --universal --generate-hashes --python-version 3.11 --no-emit-index-url \
			--custom-compile-command "make requirements" $(ARGS) $$name.in -o $$name.txt || exit 1; \
	done

clean: ## remove .venv and var, after asking
	@printf 'Remove .venv and var, with all data in it? [y/N] '; read answer; \
	if [ "$$answer" = y ]; then rm -rf .venv .venv.new .venv.old var; else echo 'Nothing removed.'; fi

# The script decides what is to be done: an environment may be out of date, interrupted, moved, or without its Python.
.venv/run.stamp: FORCE
	@sh scripts/install-packages $@ requirements.txt requirements-embedded.txt

.venv/dev.stamp: .venv/run.stamp FORCE
	@sh scripts/install-packages $@ requirements-dev.txt

FORCE:

$(NODE_MODULES)/.stamp: docs/api-blueprint/package.json
	@command -v npm >/dev/null || { echo 'Node is needed for the documentation: https://nodejs.org' >&2; exit 1; }
	@npm install --prefix docs/api-blueprint --no-package-lock --omit=optional --ignore-scripts --no-fund --no-audit \
		--loglevel=error && touch $@

# Environments of their own: clients and generators must not choose the server's versions.
tests/%/.venv/.stamp: FORCE
	@sh scripts/install-packages $@ tests/$*/requirements.txt

tests/%/node_modules/.stamp: tests/%/package.json
	@command -v npm >/dev/null || { echo 'There is no Node here: what needs it is skipped. https://nodejs.org'; exit 0; }; \
	npm install --prefix tests/$* --no-package-lock --ignore-scripts --no-fund --no-audit --loglevel=error && touch $@
