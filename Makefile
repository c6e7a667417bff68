# Every target is one plain command; `make help` lists them.
PYTHON ?= python3.11
VENV := .venv
RUN := $(VENV)/bin/python
DATA ?=
KEEP ?=
PROPENSITY ?= purchase_7d
SEQUENCE ?= shop
REPLAY ?=
SINCE ?=

export BENTOML_DO_NOT_TRACK := True
export FEAST_USAGE := False

.DEFAULT_GOAL := help
.PHONY: help setup protos demo events store features plan train evaluate serve collector updater maintain dead-letters \
	replay verify ui test test-slow lint format bench lock clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(VENV)/.installed  ## make .venv with the locked versions, generate the gRPC stubs

$(VENV)/.installed: requirements.lock pyproject.toml hatch_build.py $(wildcard protos/segue/v1/*.proto)
	@command -v $(PYTHON) >/dev/null || { echo "Segue needs Python 3.11: no '$(PYTHON)' on this machine. Install it, or set PYTHON=<path>." >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' || { echo "Segue needs Python 3.11; '$(PYTHON)' is another version. Set PYTHON=<path to 3.11>." >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || { echo "'$(PYTHON)' lacks ensurepip: install the venv package of your distribution (python3.11-venv)." >&2; exit 1; }
	@test -x $(RUN) || $(PYTHON) -m venv $(VENV)
	@echo "Installing the locked versions into $(VENV): some minutes the first time ..."
	@$(RUN) -m pip install --quiet --disable-pip-version-check -r requirements.lock
	@$(RUN) -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

protos: setup  ## generate the gRPC stubs of protos/ into src/segue/v1
	$(RUN) hatch_build.py

demo: setup  ## the whole path: events in, models trained, gRPC answers out (DATA=<path>, KEEP=1)
	@$(RUN) -m demo $(if $(DATA),--data $(DATA)) $(if $(KEEP),--keep)

events: setup  ## write a simulated shop, or DATA=<path>, to the event lake
	$(RUN) -m segue events $(if $(DATA),--data $(DATA))

store: setup  ## run the embedded online store until interrupted
	$(RUN) -m segue store

features: setup  ## snapshots, Feast registry, serving plans, online store (needs a store: make store)
	$(RUN) -m segue features

plan: setup  ## compile the feature services into serving plans
	$(RUN) -m segue plan

train: setup  ## train both models (PROPENSITY=<config>, SEQUENCE=<config>)
	$(RUN) -m models.propensity train --config models/propensity/configs/$(PROPENSITY).toml
	$(RUN) -m models.sequence train --config models/sequence/configs/$(SEQUENCE).toml

evaluate: setup  ## judge both stored models on the held-out future; writes reports with plots
	$(RUN) -m models.propensity evaluate --bundle $(PROPENSITY)
	$(RUN) -m models.sequence evaluate

serve: setup  ## serve what lies in .segue until interrupted
	$(RUN) -m demo.serve --outcome $(PROPENSITY)

collector: setup  ## run the collector (settings: python -m services.collector --help)
	$(RUN) -m services.collector

updater: setup  ## run the updater (settings: python -m services.updater --help)
	$(RUN) -m services.updater

maintain: setup  ## run the jobs beside the stream until interrupted: erasures, item statistics, compaction
	$(RUN) -m segue maintain --every-seconds 5

dead-letters: setup  ## list what the updater could not take, or REPLAY=1 to put it back into the log
	@$(RUN) -m segue dead-letters $(if $(REPLAY),replay,list)

replay: setup  ## rebuild the online store from the lake (SINCE=<time or duration>)
	$(RUN) -m segue replay $(if $(SINCE),--since $(SINCE))

verify: setup  ## compare the online store with the lake for a sample of customers
	$(RUN) -m segue verify

ui: setup  ## Feast's own console
	cd feature_repo && ../$(VENV)/bin/feast ui

test: setup  ## the tests CI runs first
	$(RUN) -m pytest -m "not slow"

test-slow: setup  ## the slower proofs
	$(RUN) -m pytest -m slow

lint: setup  ## format, style, types, layers, protos
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports
	PATH=$(CURDIR)/$(VENV)/bin:$$PATH protos/check

format: setup  ## put the code into format
	$(VENV)/bin/ruff format .
	$(VENV)/bin/ruff check --fix .

bench: setup  ## the benchmarks' table
	$(RUN) -m benchmarks

lock: setup  ## write requirements.lock from what is installed
	$(RUN) -m pip freeze --exclude-editable | sed 's/+cpu$$//' > requirements.lock

clean:  ## remove .venv, .segue, stubs and caches
	rm -rf $(VENV) .segue src/segue/v1 .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache dist
	find . -name __pycache__ -prune -exec rm -rf {} +
