# Two commands do everything on a fresh machine: make demo, make test. Each sets up .venv itself.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test lint bench soak clean
.DEFAULT_GOAL := help

help:
	@echo 'make demo    run the main job on this machine (KEEP=1: keep it running until Ctrl-C)'
	@echo 'make test    lint, then all tests (under 6 minutes)'
	@echo 'make bench   measure'
	@echo 'make lint    ruff and mypy'
	@echo 'make clean   remove .venv, .demo and caches'

demo: $(VENV)/demo.stamp
	@$(BIN)/python demo/demo.py $(if $(KEEP),--keep)

test: lint
	$(BIN)/python -m pytest -m 'not soak'

soak: $(VENV)/dev.stamp
	$(BIN)/python -m pytest -m soak

lint: $(VENV)/dev.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(VENV)/dev.stamp
	$(BIN)/python bench/hello.py
	$(BIN)/python bench/launch.py
	$(BIN)/python bench/machine.py
	$(BIN)/python bench/coordinator.py
	$(BIN)/python bench/journal.py
	$(BIN)/python bench/restart.py

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/demo.stamp: $(BIN)/python setup.cfg pyproject.toml
	@echo 'Setting up $(VENV) (once)'
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[demo]'
	@touch $@

$(VENV)/dev.stamp: $(BIN)/python setup.cfg pyproject.toml
	@echo 'Setting up $(VENV) with the development tools (once)'
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	@touch $@ $(VENV)/demo.stamp

clean:
	rm -rf $(VENV) .demo build *.egg-info .mypy_cache .ruff_cache .pytest_cache
