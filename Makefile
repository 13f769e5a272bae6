# En Garde content storage. `make` alone lists the targets.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
.DEFAULT_GOAL := help
.PHONY: help up demo test soak bench lint format clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

up: $(VENV)/.installed ## run the whole platform on http://127.0.0.1:8000, or on another port with PORT=8001
	@exec $(BIN)/python -m engarde.embedded up

demo: $(VENV)/.installed ## the main job end to end: write, generate, back up, lose the document store, restore, verify
	@exec $(BIN)/python -m engarde.embedded.demo

test: $(VENV)/.installed-dev ## run the test suite at small size
	@exec $(BIN)/python -m tests

soak: $(VENV)/.installed-dev ## run the fault, race and scale tests at full size too
	@exec $(BIN)/python -m tests -m "soak or not soak" --timeout 1800

bench: $(VENV)/.installed-dev ## print the benchmark table: each figure beside its baseline of the same run
	@exec $(BIN)/python -m tests.bench

lint: $(VENV)/.installed-dev ## formatters, linters, types, import contracts, migration and deployment checks, OpenAPI, links
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy manage.py engarde quotas content generation dr tests
	$(BIN)/lint-imports
	$(BIN)/python -W ignore::RuntimeWarning manage.py makemigrations --check --dry-run
	ENGARDE_ENV=production SECRET_KEY=$$($(BIN)/python -c 'import secrets; print(secrets.token_urlsafe(64))') \
	  DATABASE_URL=postgres://engarde@127.0.0.1/engarde REDIS_URL=redis://127.0.0.1 ALLOWED_HOSTS=example.com \
	  ENCRYPTION_KEYS=$$($(BIN)/python -c 'from cryptography.fernet import Fernet; print(Fernet.generate_key().decode())') \
	  METRICS_TOKEN=only-for-this-check PUBLIC_URL=https://example.com \
	  $(BIN)/python manage.py check --deploy --fail-level WARNING
	$(BIN)/python manage.py spectacular --validate --fail-on-warn --file /dev/null
	$(BIN)/python manage.py check --database default
	LOG_LEVEL=WARNING $(BIN)/python -W ignore -m tests.deployment.migration_rules
	$(BIN)/python -m engarde.variables --check
	$(BIN)/python -m tests.docs.links

format: $(VENV)/.installed-dev ## format the code and mend what linters can mend
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean: ## remove the environment and the data
	rm -rf $(VENV) .data

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: $(VENV)/bin/python requirements.txt requirements-lock.txt engarde/embedded/bigquery/requirements.txt \
		engarde/embedded/llm/requirements.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --requirement requirements.txt
	$(BIN)/python -m engarde.embedded install
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed requirements-dev.txt requirements-observability.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --requirement requirements-dev.txt
	@touch $@
