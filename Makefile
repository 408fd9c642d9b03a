# `make demo` and `make test` need only Python, a C++ compiler and make. The other targets are their parts.

PYTHON ?= python3
TORCH ?= torch==2.14.1 torchvision==0.29.1
# Other versions of torch: the wheel is built with TORCH and must run with each of these too. `make test` takes the
# newest that is small; before a release: make other-torch OTHER_TORCH="2.10.0 2.13.0 2.15.0"
OTHER_TORCH ?= 2.13.0
DEMO ?=
# Results with which `make bench-check` compares.
BENCH_CHECK ?= benchmarks/results/op-resnet50-fpn.json

VENV := .venv
OTHER_VENVS := $(addprefix .venv-other-,$(OTHER_TORCH))
BIN := $(VENV)/bin
# Build with the environment's own tools: an isolated build would fetch another torch.
INSTALL := PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m pip install --quiet --no-build-isolation
CXX_FILES := $(wildcard $(foreach suffix,cpp h inl,csrc/*/*.$(suffix) csrc/*/*/*.$(suffix) tests/cpp/*.$(suffix)))
# Two test processes; the one that has finished takes tests of the other.
TWO := -n 2 --dist worksteal
SOURCES := pyproject.toml setup.py $(filter csrc/%,$(CXX_FILES))

.PHONY: demo test lint types docs docs-serve images unit reference triton neon gpu-report other-torch fuzz bench bench-check format clean

demo: $(VENV)/demo.stamp
	$(BIN)/ddfnet demo $(DEMO)

test: lint types docs unit reference triton other-torch

lint: $(VENV)/dev.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check --quiet .
	$(BIN)/clang-format --dry-run --Werror $(CXX_FILES)

types: $(VENV)/dev.stamp
	$(BIN)/mypy

# Build the site into build/site. A warning, such as a broken link, is an error (but not with --quiet).
docs: $(VENV)/dev.stamp
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

docs-serve: $(VENV)/dev.stamp
	$(BIN)/mkdocs serve

# Draw the images of docs/ again: the operator's figure, and results of the committed weights on scikit-image's images.
images: $(VENV)/dev.stamp
	for script in docs/images/*.py; do PYTHONPATH=. $(BIN)/python $$script || exit 1; done

# One thread for each process; tests of threading set the number of threads themselves.
unit: $(VENV)/dev.stamp
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(TWO) --support-table=docs/support.md

# Run the tests that reach a kernel again, without the compiled kernel.
reference: $(VENV)/dev.stamp
	OMP_NUM_THREADS=1 DDFNET_BACKEND=reference $(BIN)/python -m pytest $(TWO) tests/ops tests/nn tests/test_compat.py

# Test the GPU kernels in Triton's interpreter on the CPU, and count the bytes that they touch.
triton: $(VENV)/dev.stamp
	TRITON_INTERPRET=1 OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(TWO) tests/ops tests/tools -k triton --support-table=docs/support.md

# Compile the GPU kernels for GPUs that are not present, and compute their shortest possible times.
gpu-report: $(VENV)/dev.stamp
	$(BIN)/python tools/gpu_report.py --write benchmarks/results

# The NEON kernels, cross-compiled and run under emulation.
neon: $(VENV)/dev.stamp
	@{ command -v aarch64-linux-gnu-g++ && { command -v qemu-aarch64-static || command -v qemu-aarch64; }; } >/dev/null || \
		{ echo "make neon needs: apt-get install g++-aarch64-linux-gnu qemu-user-static"; exit 1; }
	$(BIN)/python -m pytest tests/cpp -k neon

# Build one wheel with one torch, and test it with the others, away from the sources.
other-torch: $(addsuffix /stamp,$(OTHER_VENVS)) $(VENV)/dev.stamp
	rm -rf dist build/other-torch && mkdir -p build/other-torch && cp -r tests pyproject.toml build/other-torch
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m pip wheel --quiet --no-build-isolation --no-deps --wheel-dir dist .
	for venv in $(OTHER_VENVS); do \
		$$venv/bin/python -m pip install --quiet --no-deps --force-reinstall dist/ddfnet-*.whl && \
		(cd build/other-torch && OMP_NUM_THREADS=1 $(CURDIR)/$$venv/bin/python -m pytest $(TWO) tests/ops) || exit 1; \
	done

# Random operator calls and damaged files for SECONDS; `make unit` does it for two minutes.
SECONDS ?= 600
SEED ?= 0
fuzz: $(VENV)/dev.stamp
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(TWO) tests/fuzz --fuzz-seconds=$(SECONDS) --fuzz-seed=$(SEED)

bench: $(VENV)/demo.stamp
	$(BIN)/ddfnet bench op

# Compare ratios, never absolute times, with a committed file of the kernel that this machine runs.
bench-check: $(VENV)/demo.stamp
	$(BIN)/ddfnet bench check $(BENCH_CHECK)

format: $(VENV)/dev.stamp
	$(BIN)/ruff check --fix . && $(BIN)/ruff format . && $(BIN)/clang-format -i $(CXX_FILES)

clean:
	rm -rf build dist $(VENV) .venv-other-* *.egg-info ddfnet/ops/*.so

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

.venv-other-%/stamp:
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/python -m pip install --quiet --upgrade pip
	$(@D)/bin/python -m pip install --quiet torch==$* numpy pytest pytest-xdist hypothesis
	touch $@
