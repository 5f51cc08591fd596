# `make demo` and `make test` are all that a fresh machine needs. Each sets up .venv itself.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# The pure core: the unit tests cover all of its branches.
CORE := mu/wire.py,mu/messages.py,mu/events.py,mu/machine.py,mu/states/*,mu/outbox.py,mu/session.py,mu/session_effects.py,mu/relay/switchboard.py
RUFF = $(BIN)/ruff check . && $(BIN)/ruff format --check .
TESTS = $(BIN)/python -m pytest -q -n 3 --dist loadfile --no-loadscope-reorder

PYTHONUNBUFFERED := 1
export PYTHONUNBUFFERED
# Tests start hundreds of processes, which start in two thirds of the time from compiled files.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help demo check test soak lint coverage bench clean
.DEFAULT_GOAL := help

help:
	@echo 'make demo      run the main job on this machine (KEEP=1: keep it running until Ctrl-C)'
	@echo 'make check     lint, then the tests that start no processes (under a minute)'
	@echo 'make test      lint, then all tests but the long ones (minutes on two cores)'
	@echo 'make soak      the tests that take longer: many more seeds and jobs'
	@echo 'make coverage  branch coverage of the unit tests'
	@echo 'make lint      ruff and mypy'
	@echo 'make bench     measure, and compare with peers in the same run (five minutes)'
	@echo 'make clean     remove .venv, .demo and caches'

demo: $(VENV)/demo.stamp
	@$(BIN)/python demo/demo.py $(if $(KEEP),--keep)

check: lint
	$(BIN)/python -m pytest -q tests/unit plugins

# One process more than a machine with two cores has, since the tests of real processes often wait.
# mypy takes half a minute of one core in a new clone, and runs meanwhile; what it found is shown last.
test: $(VENV)/dev.stamp
	$(RUFF)
	@told=$$(mktemp); $(BIN)/mypy >$$told 2>&1 & mypy=$$!; trap "kill $$mypy" INT TERM; \
	echo '$(TESTS)'; $(TESTS); tests=$$?; \
	wait $$mypy; types=$$?; echo '$(BIN)/mypy'; cat $$told; rm $$told; \
	[ $$tests = 0 ] && [ $$types = 0 ]

soak: $(VENV)/dev.stamp
	$(BIN)/python -m pytest -m soak
	$(BIN)/python -m pytest -q --hypothesis-profile=soak tests/unit

lint: $(VENV)/dev.stamp
	$(RUFF)
	$(BIN)/mypy

coverage: $(VENV)/dev.stamp
	$(BIN)/coverage run -m pytest -q tests/unit
	$(BIN)/coverage report
	$(BIN)/coverage report --include='$(CORE)' --show-missing --fail-under=100

bench: $(VENV)/dev.stamp
	@$(BIN)/python bench/table.py

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/demo.stamp: $(BIN)/python setup.cfg pyproject.toml
	@echo 'Setting up $(VENV) (once)'
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[demo]'
	@touch $@

$(VENV)/dev.stamp: $(BIN)/python setup.cfg pyproject.toml plugins/mu-slurm/pyproject.toml
	@echo 'Setting up $(VENV) with the development tools (once)'
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]' -e plugins/mu-slurm
	@touch $@ $(VENV)/demo.stamp

clean:
	rm -rf $(VENV) .demo build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage
