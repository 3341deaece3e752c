# Everything lives in .venv; `make train` and `make test` need nothing else but Python 3.10-3.14 and a C++ compiler.
PYTHON ?= python3
# What CI tests; `make TORCH=torch` takes the newest release that pyproject.toml allows.
TORCH ?= torch==2.13.*
# CI adds what a study on several machines and the site of the documentation need: `make EXTRAS=dev,cluster,docs`.
EXTRAS ?= dev
# Another Python beside it: `make test PYTHON=python3.12 VENV=.venv-3.12 ARGS="-m 'not slow'"`.
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
SOURCES := setup.py pyproject.toml $(wildcard csrc/*)

.PHONY: train test lint bench clean

train: $(INSTALLED)
	$(BIN)/python -m iidm.train --amp $(ARGS)

# A process for each core, one thread each: nearly all tests compute with one. What a file's tests share stays in one process.
# The tests start the product about a hundred times: it is compiled once, also where the environment has Python write no .pyc.
test: $(INSTALLED)
	$(BIN)/python -m compileall -q iidm kernels benchmarks
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n logical --maxprocesses 8 --dist loadfile --no-loadscope-reorder $(ARGS)

bench: $(INSTALLED)
	$(BIN)/python -m pytest benchmarks $(ARGS)

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

$(BIN)/python:
	@$(PYTHON) -c 'import sys; v = sys.version_info; ok = (3, 10) <= v[:2] <= (3, 14); \
		sys.exit(None if ok else f"iidm needs Python 3.10 to 3.14, not {v[0]}.{v[1]}: make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); echo "On Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }

$(INSTALLED): $(SOURCES) | $(BIN)/python
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[$(EXTRAS)]' '$(TORCH)'
	touch $@

clean:
	rm -rf $(VENV) build *.egg-info kernels/*.so
