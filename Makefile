# `make demo` and `make test` do all of their own set-up: a virtual environment in .venv with pinned versions.
# FAM_PYTHON chooses the interpreter (3.10 to 3.12).

FAM_PYTHON ?= $(shell for p in python3.11 python3.12 python3.10 python3; do \
	$$p -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 12))' 2>/dev/null && echo $$p && break; done)
BIN := .venv/bin
READY := .venv/.ready
# one thread a process: two test workers share two cores
TESTS := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadgroup

.PHONY: demo test unit lint types format setup clean

demo: $(READY)
	@$(BIN)/fam-hires demo run --out out/demo

test: $(READY)
	$(TESTS)

unit: $(READY)
	$(TESTS) -m "not slow and not webui"

lint: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: $(READY)
	$(BIN)/pyright

format: $(READY)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

setup: $(READY)

$(READY): pyproject.toml constraints.txt
	@test -n "$(FAM_PYTHON)" || { echo "Python 3.10, 3.11 or 3.12 is needed and none was found; install one, or set FAM_PYTHON"; exit 1; }
	@test -x $(BIN)/python || $(FAM_PYTHON) -m venv .venv
	@echo "Setting up .venv (a few minutes the first time) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[standalone,ray,test]'
	@touch $@

clean:
	rm -rf .venv out .pytest_cache .ruff_cache
