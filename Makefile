# One-word habits. Everything happens in .venv, which needs Python 3.11 or newer and pip, nothing else.
PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
VENV := .venv
BIN := $(VENV)/bin
CONSTRAINTS := constraints/core.txt
PIP := $(BIN)/python -m pip --disable-pip-version-check install -q -c $(CONSTRAINTS)
# By itself and first: where a CPU build of this version is at hand, it is taken.
TORCH := $(shell grep '^torch==' $(CONSTRAINTS))
WORKERS := 2
BENCHES := core faults path overload fuzz fusion graphs routing savings

.DEFAULT_GOAL := help
.PHONY: help install run learn test clients check bench docs clean

help:
	@echo "make run      train small models, serve them, show what was decided and why"
	@echo "make learn    degrade one of them on purpose: traffic leaves it, and is back after its repair"
	@echo "make test     run the tests, in two processes (make test WORKERS=0 ARGS=tests/unit: in one, and only these)"
	@echo "make clients  install the clients that the tests try from environments of their own (make test does, too)"
	@echo "make check    lint, types, import rules, docs up to date"
	@echo "make bench    run the benchmarks (make bench BENCHES=core; BENCHES=serving takes 20 minutes)"
	@echo "make docs     write the command line and configuration reference"
	@echo "make install  make .venv with Semaforo alone"
	@echo "make clean    remove .venv and caches"

# Debian keeps ensurepip in a package of its own; where it is missing, the system's pip fills the new environment.
$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed: install it, or make PYTHON=/path/to/python" >&2; exit 1; }
	@echo "Making $(VENV) with $(PYTHON)"
	@$(PYTHON) -m venv $(VENV) >/dev/null 2>&1 || { rm -rf $(VENV); $(PYTHON) -m venv --without-pip $(VENV); }
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m pip --python $(BIN)/python install -q pip \
		|| { rm -rf $(VENV); echo "pip is needed: apt-get install python3-pip" >&2; exit 1; }

$(VENV)/.core: $(BIN)/python pyproject.toml $(CONSTRAINTS)
	@echo "Installing semaforo"
	@$(PIP) -e . && touch $@

$(VENV)/.quickstart: $(BIN)/python pyproject.toml $(CONSTRAINTS)
	@echo "Installing semaforo[quickstart]"
	@$(PIP) -e '.[quickstart]' && touch $(VENV)/.core $@

$(VENV)/.dev: $(BIN)/python pyproject.toml $(CONSTRAINTS)
	@echo "Installing semaforo[dev], PyTorch included"
	@$(PIP) $(TORCH)
	@$(PIP) -e '.[dev]' && touch $(VENV)/.core $(VENV)/.quickstart $@

install: $(VENV)/.core

run: $(VENV)/.quickstart
	@$(BIN)/python examples/quickstart $(ARGS)

learn: $(VENV)/.quickstart
	@$(BIN)/python examples/quickstart/learn.py $(ARGS)

# Tests start hundreds of processes: without compiled modules each of them compiles all that it imports.
# Several of them share the cores, and threads of OpenMP that wait for a core do so at full speed.
# Files with few tests are the long ones here: in the order of their folders, those come first.
# Where the clients cannot be installed, their tests say so.
test: $(VENV)/.dev
	@$(BIN)/python tests/clients/environments.py || true
	env -u PYTHONDONTWRITEBYTECODE OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder $(ARGS)

clients: $(BIN)/python
	@$(BIN)/python tests/clients/environments.py

check: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python docs/reference.py --check
	$(BIN)/python scripts/messages.py --check

bench: $(VENV)/.dev
	@for name in $(BENCHES); do $(BIN)/python -m benchmarks.$$name $(ARGS) || exit 1; done

docs: $(VENV)/.dev
	$(BIN)/python docs/reference.py

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .import_linter_cache .hypothesis examples/quickstart/fleet
