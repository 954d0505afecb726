# Every target makes `.venv` by itself; all it needs is Python 3.11 or newer and a package registry.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO_STAMP := $(VENV)/.installed-demo
TEST_STAMP := $(VENV)/.installed-test

# Only pip's errors are shown.
PIP_INSTALL := $(BIN)/python -m pip install -qq --disable-pip-version-check -c constraints.txt

# accelerate would set OMP_NUM_THREADS=1; --quiet leaves a recipe's one-line error as the last word.
LAUNCH = HF_HUB_OFFLINE=1 $(BIN)/accelerate launch --quiet --config_file accelerate_config.yaml \
	--num_cpu_threads_per_process "$$(nproc 2>/dev/null || getconf _NPROCESSORS_ONLN)"

.DEFAULT_GOAL := help
.PHONY: help demo test lint clean
.NOTPARALLEL: # two installs into one environment would trip over each other

help: ## List the targets.
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-6s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

demo: $(DEMO_STAMP) ## Train on the embedded corpus and show the result: no network, no accelerator, under 8 minutes on 2 cores.
	rm -rf runs/demo runs/demo-generator
	$(LAUNCH) recipes/train_extractor.py --config recipes/configs/extractor/demo.yaml
	$(LAUNCH) recipes/train_generator.py --config recipes/configs/generator/demo.yaml

test: lint ## Lint, check the types and run the whole test suite.
	$(BIN)/python -m mypy
	$(BIN)/python -m pytest -n 2

lint: $(TEST_STAMP) ## Check style and formatting.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

clean: ## Remove .venv, caches and build leftovers; keeps runs/.
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(DEMO_STAMP): EXTRAS := metrics,offline
$(TEST_STAMP): EXTRAS := fast,lora,metrics,offline,dev

# The stamp is written last, so an install that was cut off is taken up again.
$(DEMO_STAMP) $(TEST_STAMP): setup.cfg pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
		echo "error: pess_hf needs Python 3.11 or newer, and '$(PYTHON)' is not; try: make PYTHON=python3.11 ..." >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
		echo "error: '$(PYTHON)' cannot make virtual environments; install its venv package (Debian: apt install python3-venv)" >&2; exit 1; }
	@echo "installing into $(VENV) (first time: some minutes, about 2 GB)"
	@test -x $(BIN)/python && $(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV)
	@$(PIP_INSTALL) -e '.[$(EXTRAS)]'
	@touch $@
