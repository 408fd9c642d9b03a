# `make demo` and `make test` are complete on a machine with Python, a C++ compiler and make. The rest are their parts.

PYTHON ?= python3
TORCH ?= torch==2.14.1 torchvision==0.29.1
# The second torch: the wheel is built with TORCH and must run with this one too.
OTHER_TORCH ?= torch==2.13.0
DEMO ?=
# The results that the regression guard compares with.
BENCH_CHECK ?= benchmarks/results/op-resnet50-fpn.json

VENV := .venv
OTHER_VENV := .venv-other
BIN := $(VENV)/bin
# The build runs in the environment's own tools: an isolated one would fetch another torch.
INSTALL := PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m pip install --quiet --no-build-isolation
SOURCES := pyproject.toml setup.py $(wildcard csrc/*/*)
CXX_FILES := $(wildcard csrc/*/*) $(wildcard tests/cpp/*.cpp)

.PHONY: demo test lint types docs docs-serve pictures unit reference triton gpu-report other-torch bench bench-check format clean

demo: $(VENV)/demo.stamp
	$(BIN)/ddfnet demo $(DEMO)

test: lint types docs unit reference triton other-torch

lint: $(VENV)/dev.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check --quiet .
	$(BIN)/clang-format --dry-run --Werror $(CXX_FILES)

types: $(VENV)/dev.stamp
	$(BIN)/mypy

# The site, in build/site. A warning, such as a link that leads nowhere, is an error (not so with --quiet).
docs: $(VENV)/dev.stamp
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

docs-serve: $(VENV)/dev.stamp
	$(BIN)/mkdocs serve

# What docs/ shows, drawn anew: the drawing, and what the committed weights make of scikit-image's pictures.
pictures: $(VENV)/dev.stamp
	for picture in docs/pictures/*.py; do $(BIN)/python $$picture || exit 1; done

# One thread a test process, two processes: tests that are about threads set their number themselves.
unit: $(VENV)/dev.stamp
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --support-table=docs/support.md

# The suite without the compiled kernel. What never reaches a kernel is not run again.
reference: $(VENV)/dev.stamp
	OMP_NUM_THREADS=1 DDFNET_BACKEND=reference $(BIN)/python -m pytest -n 2 tests/ops tests/nn tests/test_compat.py

# The GPU kernels, interpreted on the CPU, and the bytes that they touch.
triton: $(VENV)/dev.stamp
	TRITON_INTERPRET=1 OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 tests/ops tests/tools -k triton --support-table=docs/support.md

# The GPU kernels, compiled for GPUs that are not there, and their least times.
gpu-report: $(VENV)/dev.stamp
	$(BIN)/python tools/gpu_report.py --write benchmarks/results

# One wheel for every torch from 2.10 on: built with one, tested with another, away from the sources.
other-torch: $(OTHER_VENV)/stamp $(VENV)/dev.stamp
	rm -rf dist build/other-torch && mkdir -p build/other-torch && cp -r tests pyproject.toml build/other-torch
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m pip wheel --quiet --no-build-isolation --no-deps --wheel-dir dist .
	$(OTHER_VENV)/bin/python -m pip install --quiet --no-deps --force-reinstall dist/ddfnet-*.whl
	cd build/other-torch && OMP_NUM_THREADS=1 $(CURDIR)/$(OTHER_VENV)/bin/python -m pytest -n 2 tests/ops

bench: $(VENV)/demo.stamp
	$(BIN)/ddfnet bench op

# Ratios, never absolute times, against a committed file of the kernel that this machine runs.
bench-check: $(VENV)/demo.stamp
	$(BIN)/ddfnet bench check $(BENCH_CHECK)

format: $(VENV)/dev.stamp
	$(BIN)/ruff check --fix . && $(BIN)/ruff format . && $(BIN)/clang-format -i $(CXX_FILES)

clean:
	rm -rf build dist $(VENV) $(OTHER_VENV) *.egg-info ddfnet/ops/_cpu*.so

$(VENV)/torch.stamp:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet $(TORCH) "setuptools>=77" wheel ninja numpy
	touch $@

$(VENV)/demo.stamp: $(VENV)/torch.stamp $(SOURCES)
	$(INSTALL) --editable ".[demo]"
	touch $@

$(VENV)/dev.stamp: $(VENV)/torch.stamp $(SOURCES)
	$(INSTALL) --editable ".[dev]"
	touch $@ $(VENV)/demo.stamp

$(OTHER_VENV)/stamp:
	$(PYTHON) -m venv $(OTHER_VENV)
	$(OTHER_VENV)/bin/python -m pip install --quiet --upgrade pip
	$(OTHER_VENV)/bin/python -m pip install --quiet $(OTHER_TORCH) numpy pytest pytest-xdist hypothesis
	touch $@
