# Two commands: `make demo` runs the whole loop, `make test` the tests. Each sets up what it needs in .venv.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
# Extras that the tests install. `make test EXTRAS=dev,torch` adds PyTorch, whose tests are skipped without it.
EXTRAS ?= dev
JSON   ?=

.PHONY: demo test check bench soak clean

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "edgeloop needs Python 3.11 or newer; name one with: make PYTHON=/path/to/python3.11"; exit 2; }
	@$(PYTHON) -m venv $(VENV) || \
	  { echo "python cannot make virtual environments; on Debian: apt-get install python3-venv"; exit 2; }

# One stamp for each set of extras, so that nothing is installed twice.
$(VENV)/.installed-%: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[$*]'
	@touch $@

demo: $(VENV)/.installed-demo
	$(BIN)/python -m examples.digits $(if $(JSON),--json $(JSON))

test: $(VENV)/.installed-$(EXTRAS)
	$(BIN)/python -m pytest

check: $(VENV)/.installed-$(EXTRAS)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(VENV)/.installed-$(EXTRAS)
	$(BIN)/python -m benchmarks

# The long form of the tests that kill processes at random moments.
soak: $(VENV)/.installed-$(EXTRAS)
	EDGELOOP_SOAK=1 $(BIN)/python -m pytest tests/system tests/attacks

clean:
	rm -rf $(VENV) build *.egg-info .mypy_cache .ruff_cache .import_linter_cache demo-data
