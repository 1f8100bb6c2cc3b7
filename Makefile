# Two commands on a fresh machine: `make demo` and `make test`. Each sets up all it needs.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: venv demo test check slow chaos house mutants vllm vllm-env tiny clean paper

venv: .venv/.complete

.venv/.complete: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[all,dev]'
	touch $@

demo: venv
	$(BIN)/insightv demo --run runs/demo

check: venv
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: check
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist worksteal -m "not slow and not chaos and not vllm"

slow: venv
	$(BIN)/pytest -m slow

chaos: venv
	$(BIN)/pytest -m chaos tests/chaos

house: venv
	$(BIN)/python tools/house.py

mutants: venv
	$(BIN)/python -m tests.chaos.mutants

vllm-env:
	$(PYTHON) benchmarks/vllm_env.py .venv-vllm

vllm: venv
	$(PYTHON) benchmarks/vllm_env.py .venv-vllm || echo "the tests of a real vLLM are skipped"
	$(BIN)/pytest -m vllm -rs tests/backends

tiny: venv
	$(BIN)/python -m tools.tiny.recipe shared teacher base --out build/tiny
	@echo "the models are in build/tiny/teacher and build/tiny/base; to ship them, copy them to insightv/tiny/weights"

paper: venv
	$(BIN)/python benchmarks/paper.py --out build/paper

clean:
	rm -rf .venv .venv-vllm .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
