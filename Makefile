# Splitsecond. `make demo` shows it, `make test` checks it, `make bench` measures it.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
CHECK_PYTHON := import sys; sys.exit(0 if sys.version_info >= (3, 11) else "Splitsecond needs Python 3.11 or newer; $(PYTHON) is %d.%d. Choose another: make demo PYTHON=python3.12" % sys.version_info[:2])

.PHONY: demo test lint types validate bench load format lock clean
.DEFAULT_GOAL := demo

$(VENV)/installed: requirements.txt
	@command -v $(PYTHON) >/dev/null || { echo "There is no $(PYTHON) here; install Python 3.11 or newer, or name one: make demo PYTHON=/path/to/python3" >&2; exit 1; }
	@$(PYTHON) -c '$(CHECK_PYTHON)'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || { echo "Python's venv module is missing; on Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }
	@echo "Installing the locked dependencies…"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.txt
	@$(BIN)/python manage.py assets
	@touch $@

$(VENV)/installed-dev: requirements-dev.txt $(VENV)/installed
	@echo "Installing what the tests need…"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.txt
	@touch $@

demo: $(VENV)/installed  ## simulator and web app on loopback; PORT, SIM_PORT and HOST override
	@exec $(BIN)/python manage.py demo

test: $(VENV)/installed-dev lint types  ## every check and test, those in a real Chromium included
	@$(BIN)/python -m tests.chromium
	@$(BIN)/python -m pytest -n 3 --dist loadfile

lint: $(VENV)/installed-dev
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

types: $(VENV)/installed-dev
	@$(BIN)/mypy webapp loadtests

validate: $(VENV)/installed  ## how far off the simulator is; ROWS=FILE.csv adds measured rows
	@$(BIN)/python manage.py validate --keep $(if $(ROWS),--rows $(ROWS))

bench: $(VENV)/installed-dev  ## speed, as ratios measured side by side in one run
	@$(BIN)/python -m tests.bench

load: $(VENV)/installed  ## one minute of synthetic users on two backends of the demo; results in var/loads/example
	@$(BIN)/python manage.py load --backend wse3-llama-70b --backend h100x2-llama-70b --users 8 --duration 60 --slo reading --out var/loads/example

format: $(VENV)/installed-dev
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

lock:  ## after a change of the dependencies in pyproject.toml; needs uv
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header pyproject.toml -o requirements.txt
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header pyproject.toml --group dev -c requirements.txt -o requirements-dev.txt

clean:
	rm -rf $(VENV) var .pytest_cache .mypy_cache .ruff_cache
