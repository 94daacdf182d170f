# Two commands matter: `make demo` and `make test`. Both install what they need into .venv first.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PYTHONUNBUFFERED := 1

.PHONY: help install demo test lint bench chaos screenshots

help:
	@echo "make demo     the whole system on a real log, in minutes"
	@echo "make test     every test"
	@echo "make lint     ruff and mypy"
	@echo "make bench    speed against floors measured in the same run"
	@echo "make chaos    Redis killed 200 times under load, 100,000 power losses, every crash point, 1,000 lives of a home against a model,"
	@echo "              120 faults by strace, which must be there, machines on one store killed; three quarters of an hour (docs/reliability.md)"
	@echo "make screenshots  every page of the console, in both themes, at a desk's and a phone's width, into screenshots/ (HOME_TO_SHOW=... or the demo's)"
	@echo "make install  only set up .venv (the others do it by themselves)"

install: $(STAMP)

# torch alone first: its CPU build, and then nothing that needs torch asks for another
$(STAMP): pyproject.toml constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@echo "installing into .venv (a few minutes the first time)"
	@$(BIN)/python -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed: make PYTHON=python3.11 $(MAKECMDGOALS)"; exit 1; }
	@$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	@$(BIN)/python -m pip install --quiet --constraint constraints.txt --config-settings editable_mode=compat --editable '.[dev]'
	@touch $(STAMP)

demo: install
	@$(BIN)/python -m recsys.cli demo

# a file's tests stay in one process: they share what they have set up; three on two cores, for much of a test is waiting for servers
test: install
	@$(BIN)/python -m pytest -n 3 --dist loadfile

lint: install
	@$(BIN)/python -m ruff check . && $(BIN)/python -m ruff format --check . && $(BIN)/python -m mypy

bench: install
	@$(BIN)/python -m benchmarks.run

chaos: install
	@POWER_LOSSES=100000 $(BIN)/python -m pytest -q tests/test_power_loss.py
	@STATE_MACHINE=1000 $(BIN)/python -m pytest -q tests/test_state_machine.py
	@CRASH_POINTS=all $(BIN)/python -m pytest -q tests/test_crash_points.py
	@$(BIN)/python tests/injections.py 120
	@$(BIN)/python tests/chaos.py 200
	@$(BIN)/python tests/chaos_store.py 120

screenshots: install
	@$(BIN)/python tests/screenshots.py $(HOME_TO_SHOW)
