# make demo               set up a virtual environment, run the main job on its own footage
# make demo VIDEOS=dir    the same job on your videos (MINUTES=30, RUN=runs/mine, ARGS=--resume)
# make test               the same set-up, then lint, types and tests
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
MINUTES ?= 30
RUN ?= runs/mine

.PHONY: demo test setup check clean
.DEFAULT_GOAL := help

help:
	@sed -n 's/^# //p' Makefile

setup: $(VENV)/.ready

$(VENV)/.ready: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "The tested versions (constraints.txt) need Python 3.11 or newer; name one: make PYTHON=python3.12 ..."; exit 1; }
	@echo "setting up $(VENV) (a few minutes, once)"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

demo: setup
ifdef VIDEOS
	$(BIN)/syncdisc run --videos '$(VIDEOS)' --out '$(RUN)' --minutes $(MINUTES) $(ARGS)
else
	$(BIN)/syncdisc demo $(ARGS)
endif

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# A process per core; nets of one thread each, or they would wait for each other.
test: check
	OMP_NUM_THREADS=1 $(BIN)/pytest -n auto --maxprocesses 8 --dist worksteal $(ARGS)

clean:
	rm -rf $(VENV) demo-out
