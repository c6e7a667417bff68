# Every target is one plain command; `make help` lists them.
PYTHON ?= python3.11
VENV := .venv
RUN := $(VENV)/bin/python
DATA ?=
KEEP ?=

.DEFAULT_GOAL := help
.PHONY: help setup protos lock

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(VENV)/.installed  ## make .venv with the locked versions and generate the stubs

$(VENV)/.installed: requirements.lock pyproject.toml hatch_build.py $(wildcard protos/segue/v1/*.proto)
	@command -v $(PYTHON) >/dev/null || { echo "Segue needs Python 3.11: no '$(PYTHON)' on this machine. Install it or set PYTHON=<path>." >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' || { echo "Segue needs Python 3.11; '$(PYTHON)' is another version. Set PYTHON=<path to 3.11>." >&2; exit 1; }
	@test -x $(RUN) || $(PYTHON) -m venv $(VENV)
	@echo "Installing the locked versions into $(VENV) (some minutes the first time) ..."
	@$(RUN) -m pip install --quiet --disable-pip-version-check -r requirements.lock
	@$(RUN) -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

protos: setup  ## generate the gRPC stubs of protos/ into src/segue/v1
	$(RUN) hatch_build.py
