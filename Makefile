# `make` lists the targets. All paths are relative: the path of the checkout may contain spaces.
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

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /  make \1 \t/p' Makefile | expand -t 24

run: .venv/run.stamp ## install, start everything, print `ready: URL`; Ctrl-C stops it
	@exec $(PY) manage.py run

processor: .venv/run.stamp ## run a small processor for treatments at http://127.0.0.1:5080
	@exec $(PY) examples/processor/server.py $(ARGS)

# Tests that need Node, kill processes or drive a browser have their own targets.
# One worker runs all tests of a file, so the servers and rows of that file are set up once.
# conftest.py determines the order.
PYTEST := -m pytest -n auto --dist loadfile --no-loadscope-reorder --ignore=tests/clients \
	--ignore=tests/generators --ignore=tests/docs/test_transactions.py --ignore=tests/test_schemathesis.py

# These tests measure response times of the health endpoints, so they run alone; the other tests marked `faults` run two
# at a time.
CLOCKED := tests/health/test_matrix.py

test: .venv/dev.stamp ## run the test suite with its own PostgreSQL and Redis
	@exec $(PY) $(PYTEST) -m "not faults" $(ARGS)

test-faults: .venv/dev.stamp ## run the tests that kill or freeze processes, drive a browser or take long
	@$(PY) -m pytest $(CLOCKED) && exec $(PY) $(PYTEST) -n 2 -m faults $(CLOCKED:%=--ignore=%) $(ARGS)

test-openapi: .venv/dev.stamp ## send generated requests to every route of /openapi.json
	@exec $(PY) -m pytest tests/test_schemathesis.py

test-generators: .venv/dev.stamp $(GENERATORS)/.venv/.stamp $(GENERATORS)/node_modules/.stamp ## run linters and client generators on /openapi.json (most need Node, some Java)
	@exec $(PY) -m pytest $(GENERATORS) -n 2 $(ARGS)

soak: .venv/dev.stamp ## write while processes are killed and Redis is frozen; fail if anything is lost or late
	@exec $(PY) -m tests.soak $(ARGS)

check: .venv/dev.stamp ## run ruff, mypy, import contracts, naming rules, blueprint against routes
	$(PY) -m ruff check
	$(PY) -m ruff format --check
	$(PY) -m mypy
	.venv/bin/lint-imports
	$(PY) -m pytest --quiet tests/test_naming.py tests/docs/test_routes.py tests/docs/test_attributes.py

docs: $(NODE_MODULES)/.stamp ## render docs/api-blueprint to the page at /docs; commit it (needs Node)
	@$(or $(PYTHON),python3) docs/api-blueprint/render.py

test-docs: .venv/dev.stamp $(NODE_MODULES)/.stamp ## send every request of the blueprint to a running server (needs Node)
	@exec $(PY) -m pytest tests/docs $(ARGS)

test-clients: .venv/dev.stamp $(CLIENTS)/.venv/.stamp $(CLIENTS)/node_modules/.stamp ## run common JSON:API clients against a running server (most need Node)
	@exec $(PY) -m pytest $(CLIENTS) $(ARGS)

bench: .venv/dev.stamp ## compare with hand-written code and the stock library; ARGS=--quick: less than a minute
	@exec $(PY) -m benchmarks $(ARGS)

requirements: .venv/dev.stamp ## pin the packages of the requirements*.in files
	@for name in requirements requirements-embedded requirements-dev requirements-installer $(CLIENTS)/requirements \
		$(GENERATORS)/requirements; do \
		$(PY) -m uv pip compile --quiet --universal --generate-hashes --python-version 3.11 --no-emit-index-url \
			--custom-compile-command "make requirements" $(ARGS) $$name.in -o $$name.txt || exit 1; \
	done

clean: ## remove .venv and var, after asking
	@printf 'Remove .venv and var, with all data in it? [y/N] '; read answer; \
	if [ "$$answer" = y ]; then rm -rf .venv .venv.new .venv.old var; else echo 'Nothing removed.'; fi

# The script decides what to install: an environment may be outdated, incomplete, moved, or without its Python.
.venv/run.stamp: FORCE
	@sh scripts/install-packages $@ requirements.txt requirements-embedded.txt

.venv/dev.stamp: .venv/run.stamp FORCE
	@sh scripts/install-packages $@ requirements-dev.txt

FORCE:

$(NODE_MODULES)/.stamp: docs/api-blueprint/package.json
	@command -v npm >/dev/null || { echo 'Node is needed for the documentation: https://nodejs.org' >&2; exit 1; }
	@npm install --prefix docs/api-blueprint --no-package-lock --omit=optional --ignore-scripts --no-fund --no-audit \
		--loglevel=error && touch $@

# Separate environments: clients and generators must not influence the versions of the server's packages.
tests/%/.venv/.stamp: FORCE
	@sh scripts/install-packages $@ tests/$*/requirements.txt

tests/%/node_modules/.stamp: tests/%/package.json
	@command -v npm >/dev/null || { echo 'Node is not installed: tests that need it are skipped. https://nodejs.org'; exit 0; }; \
	npm install --prefix tests/$* --no-package-lock --ignore-scripts --no-fund --no-audit --loglevel=error && touch $@
