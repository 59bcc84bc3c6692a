# `make demo` and `make test` need Python 3.11 to 3.13, make and a network; everything else is made here.
SHELL := /bin/bash
.DEFAULT_GOAL := help
# Not writing bytecode doubles the start of every process.
unexport PYTHONDONTWRITEBYTECODE
# The environment is the project's own, whatever else is active in the calling shell.
unexport VIRTUAL_ENV
unexport PYTHONPATH
unexport PYTHONHOME

PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3 python; do \
	"$$p" -c 'import sys; sys.exit(not ((3, 11) <= sys.version_info < (3, 14)))' 2>/dev/null && { echo "$$p"; break; }; done)
VENV ?= .venv
BIN := $(VENV)/bin
UV := $(BIN)/uv
INSTALL := UV_LINK_MODE=$${UV_LINK_MODE:-copy} $(UV) pip install --quiet --python $(BIN)/python --require-hashes --compile-bytecode

.PHONY: help
help: ## Show this list.
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/\1\t\2/' | expand -t 16

$(UV): requirements-bootstrap.lock
	@test -n "$(PYTHON)" || { echo "error: no Python 3.11, 3.12 or 3.13 on PATH; install one, or say which: make $(MAKECMDGOALS) PYTHON=/path/to/python3.12" >&2; exit 1; }
	@echo "Making the environment in $(VENV) with $(PYTHON) ..."
	@"$(PYTHON)" -m venv $(VENV) || { echo "error: '$(PYTHON) -m venv' failed; on Debian and Ubuntu install python3-venv" >&2; exit 1; }
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-bootstrap.lock
	@touch $(UV)

$(VENV)/.runtime: requirements.lock pyproject.toml $(UV)
	@echo "Installing the locked requirements ..."
	@$(INSTALL) -r requirements.lock
	@UV_LINK_MODE=$${UV_LINK_MODE:-copy} $(UV) pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/.dev: requirements-dev.lock pyproject.toml $(UV)
	@echo "Installing the locked requirements, with the tools for tests ..."
	@$(INSTALL) -r requirements-dev.lock
	@UV_LINK_MODE=$${UV_LINK_MODE:-copy} $(UV) pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	@touch $@ $(VENV)/.runtime


.PHONY: install
install: $(VENV)/.runtime ## Make the environment to run the project.

.PHONY: demo
demo: $(VENV)/.runtime ## Run the main job on the embedded stack, then serve the UI.
	@$(BIN)/stocks demo $(DEMO_ARGS)

.PHONY: up down status
up: $(VENV)/.runtime ## Start the stack and the UI.
	@$(BIN)/stocks up
down: $(VENV)/.runtime ## Stop everything the project started.
	@$(BIN)/stocks down
status: $(VENV)/.runtime ## Say what runs and where.
	@$(BIN)/stocks status

.PHONY: lint types unit integration test
lint: $(VENV)/.dev ## Check style and the import border.
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
types: $(VENV)/.dev ## Check types.
	@$(BIN)/mypy
unit: $(VENV)/.dev ## Run the tests that need no server.
	@$(BIN)/pytest tests/unit
integration: $(VENV)/.dev ## Run the tests on real servers.
	@$(BIN)/pytest -n 2 --dist loadfile tests/integration
test: lint types ## Everything that must pass: style, types, unit and integration tests.
	@$(BIN)/pytest -n 2 --dist loadfile

.PHONY: hooks audit dbt-docs image compose-test
hooks: $(VENV)/.dev ## Check each commit with the tools of `make lint types`, each push with the unit tests.
	@$(BIN)/pre-commit install
audit: $(VENV)/.dev ## Look what is locked up in the advisories on Python packages.
	@$(BIN)/pip-audit --strict --require-hashes --disable-pip --requirement requirements.lock
dbt-docs: $(VENV)/.dev ## Write the documentation of the dbt project as one page, dbt_project/target/docs/static_index.html.
	@rm -rf dbt_project/target/docs && mkdir -p dbt_project/target/docs
	@cp "$$($(BIN)/python -c 'from stocks_assets.adapters.dbt_project import ensure_manifest; print(ensure_manifest())')" dbt_project/target/docs/
	@cd dbt_project && ../$(BIN)/dbt docs generate --quiet --static --empty-catalog --no-compile --no-populate-cache \
		--profiles-dir . --target-path target/docs --log-path target/docs
image: ## Build the image for containers.
	docker build --file deploy/Dockerfile --tag stocks-assets .
compose-test: ## With Docker: bring a ticker from the source to gold in containers, on new volumes.
	@deploy/compose-test.sh

.PHONY: bench-shape bench-silver bench-gold bench-sensor bench-ticks bench-backfill bench-workers bench-report
bench-shape: $(VENV)/.dev ## Measure how fast payloads are shaped.
	@$(BIN)/python benchmarks/bench_shape.py $(ARGS)
bench-silver: $(VENV)/.dev ## Measure silver loads against COPY and INSERT .. ON CONFLICT.
	@$(BIN)/python benchmarks/bench_silver.py $(ARGS)
bench-gold: $(VENV)/.dev ## Measure gold: a full refresh of a big market, then the day after it.
	@$(BIN)/python benchmarks/bench_gold.py $(ARGS)
bench-sensor: $(VENV)/.dev ## Upload 10,000 objects while everything is killed at random; count what is loaded how often.
	@$(BIN)/python benchmarks/bench_sensor.py $(ARGS)
bench-ticks: $(VENV)/.dev ## Measure ticks of the catch-up, and the checks on the universe, with 32 million bars stored.
	@$(BIN)/python benchmarks/bench_ticks.py $(ARGS)
bench-workers: $(VENV)/.dev ## Measure a backfill on one Celery worker, then on two.
	@$(BIN)/python benchmarks/bench_workers.py $(ARGS)
bench-report: $(VENV)/.dev ## Measure the market report and the pictures in the UI.
	@$(BIN)/python benchmarks/bench_report.py $(ARGS)
bench-backfill: $(VENV)/.dev ## Measure a backfill over the UI's API and the day after, against a run a ticker.
	@$(BIN)/python benchmarks/bench_backfill.py $(ARGS)

.PHONY: lock
lock: $(UV) ## Lock the requirements anew.
	@for job in "requirements-bootstrap.in -o requirements-bootstrap.lock" "pyproject.toml --extra workers --group build -o requirements.lock" \
		"pyproject.toml --extra workers --group build --group dev -c requirements.lock -o requirements-dev.lock"; do \
		$(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
			--custom-compile-command "make lock" $$job || exit 1; done

.PHONY: clean
clean: ## Remove the environment and the caches, never the data in .stocks/.
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache dbt_project/target dbt_project/logs
