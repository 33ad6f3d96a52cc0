# `make demo` and `make test` do all of their own set-up: a virtual environment in .venv with pinned versions.
# FAM_PYTHON chooses the interpreter (3.10 to 3.12).

FAM_PYTHON ?= $(shell for p in python3.11 python3.12 python3.10 python3; do \
	$$p -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 12))' 2>/dev/null && echo $$p && break; done)
BIN := .venv/bin
READY := .venv/.ready
TEST_READY := .venv/.ready-for-tests
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
# one thread a process: two test workers share two cores
TESTS := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadgroup

.PHONY: demo test unit unit-times gpu upscalers fuzz mutants lint types format setup clean

demo: $(READY)
	@$(BIN)/fam-hires demo run --out out/demo

test: $(TEST_READY)
	$(TESTS)

unit: $(TEST_READY)
	$(TESTS) -m "not slow and not webui"

# the CPU seconds of each unit file on its own, slowest first
unit-times: $(TEST_READY)
	$(BIN)/python tests/unit_times.py

# on a CUDA card: pictures against the CPU's, memory and times, to out/gpu.json; says why it skips where there is none
gpu: $(TEST_READY)
	$(BIN)/python -m pytest -m gpu tests/gpu -rs

# super-resolution networks with a torchvision that fits its torch, in an environment of its own (two minutes, 5.5 GB)
upscalers: .venv-upscalers/.ready
	OMP_NUM_THREADS=1 .venv-upscalers/bin/python -m pytest tests/upscalers

# a hundred thousand odd inputs, drawn anew each time
fuzz: $(TEST_READY)
	FAM_FUZZ=100000 $(TESTS) tests/jobs/test_fuzz.py tests/jobs/test_fuzz_writers.py

# eighty small faults, one at a time: do the unit tests notice? (20 minutes; says which they do not)
mutants: $(TEST_READY)
	$(BIN)/python tools/mutants.py

lint: $(TEST_READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: $(TEST_READY)
	$(BIN)/pyright

format: $(TEST_READY)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

setup: $(TEST_READY)

$(READY): pyproject.toml constraints.txt
	@test -n "$(FAM_PYTHON)" || { echo "Python 3.10, 3.11 or 3.12 is needed and none was found; install one, or set FAM_PYTHON"; exit 1; }
	@test -x $(BIN)/python || $(FAM_PYTHON) -m venv .venv
	@echo "Setting up .venv (a few minutes the first time) ..."
	@$(PIP) --constraint constraints.txt --editable '.[standalone]'
	@touch $@

# what only the tests need: ldm's, k-diffusion's and spandrel's own code without what they ask for, A1111's gradio apart
$(TEST_READY): $(READY) tests/ui/requirements.txt
	@echo "Setting up what the tests need ..."
	@$(PIP) --constraint constraints.txt --editable '.[standalone,ray,test]'
	@$(PIP) --no-deps stable-diffusion-sdkit==2.1.5 k-diffusion==0.1.1.post1 spandrel==0.4.2
	@test -x .venv-webui/bin/python || $(FAM_PYTHON) -m venv .venv-webui
	@.venv-webui/bin/python -m pip install --quiet --disable-pip-version-check --requirement tests/ui/requirements.txt
	@touch $@

.venv-upscalers/.ready: tests/upscalers/requirements.txt
	@test -x .venv-upscalers/bin/python || $(FAM_PYTHON) -m venv .venv-upscalers
	@echo "Setting up .venv-upscalers (a few minutes the first time) ..."
	@.venv-upscalers/bin/python -m pip install --quiet --disable-pip-version-check --requirement $<
	@touch $@

clean:
	rm -rf .venv .venv-webui .venv-upscalers out .pytest_cache .ruff_cache
