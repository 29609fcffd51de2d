# Two commands: `make demo` runs the whole loop, `make test` the tests. Each sets up what it needs in .venv.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
# Extras that the tests install. `make test EXTRAS=dev,torch` adds PyTorch, whose tests are skipped without it.
EXTRAS ?= dev
# Processes that share the tests, a file each at a time. Tests wait a quarter of their time for other processes, so there
# is one more than two cores have room for.
WORKERS ?= 3
JSON   ?=
# Which example `make demo` shows: digits, the whole loop; or cascade, the cloud's teacher.
SCENARIO ?= digits
# Benchmarks that `make bench` runs, and --quick; by default all. `make bench BENCH="cascade trainers"`.
BENCH  ?=

# Packages that `make lock` may move to newer versions: names, or all.
UPGRADE ?=
comma  := ,
# Byte code is made when a module is first imported: most of what is installed never is.
PIP    := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile
SELDOM := /(tests?|testing|torch|transformers|ray|sympy|networkx|pip|setuptools)/
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test check bench soak lock protos clean

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "edgeloop needs Python 3.11 or newer; name one with: make PYTHON=/path/to/python3.11"; exit 2; }
	@$(PYTHON) -m venv $(VENV) || \
	  { echo "python cannot make virtual environments; on Debian: apt-get install python3-venv"; exit 2; }

# One stamp for each set of extras, so that nothing is installed twice. Every file that is installed has a hash in
# requirements/, the tools that build the project as well; PyTorch alone has none, and its file says why. The files
# are whole but for what lock.py leaves out, which pip would miss.
$(VENV)/.installed-%: pyproject.toml $(wildcard requirements/*.txt) | $(BIN)/python
	$(PIP) --no-deps --require-hashes $(foreach extra,$(subst $(comma), ,$*),-r requirements/$(extra).txt)
	$(if $(findstring torch,$*),$(PIP) -r requirements/torch-itself.txt)
	$(PIP) --no-deps --no-build-isolation -e .
	@# But for the demo, whose seconds count; without what is large and hardly imported, which is three quarters of it.
	@# A file of other Pythons' syntax, such as a template, is passed over.
	$(if $(filter demo,$*),@$(BIN)/python -m compileall -q -j 0 -x '$(SELDOM)' $(VENV)/lib >/dev/null || true)
	@touch $@

demo: $(VENV)/.installed-demo
	$(BIN)/python -m examples.$(SCENARIO) $(if $(JSON),--json $(JSON))

test: $(VENV)/.installed-$(EXTRAS)
	@# In the order of folders, which ends with many short files: else the longest test of all would come last, alone.
	EDGELOOP_FRESH=1 $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder

check: $(VENV)/.installed-$(EXTRAS)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(VENV)/.installed-$(EXTRAS)
	$(BIN)/python -m benchmarks $(BENCH)

# The long form of the tests that kill processes at random moments.
soak: $(VENV)/.installed-$(EXTRAS)
	EDGELOOP_SOAK=1 $(BIN)/python -m pytest tests/system tests/attacks

# Resolve what pyproject.toml needs, and write requirements/ with the hashes. uv's environment is its own.
lock: | $(BIN)/python
	$(PYTHON) -m venv $(VENV)/lock
	$(VENV)/lock/bin/python -m pip install --quiet --disable-pip-version-check 'uv==0.13.9'
	UPGRADE='$(UPGRADE)' $(VENV)/lock/bin/python requirements/lock.py

# Write the gRPC door's messages anew. The generator's version decides which protobuf can read them: 6.31 and later.
protos: $(BIN)/python
	$(PYTHON) -m venv $(VENV)/protos
	$(VENV)/protos/bin/python -m pip install --quiet --disable-pip-version-check 'grpcio-tools==1.76.0'
	$(VENV)/protos/bin/python -m grpc_tools.protoc -I . --python_out=. edge_agent/serving/grpc/inference.proto
	@# In a pool of their own: a process that also has another client's messages of these names keeps both.
	sed -i.old 's/_descriptor_pool\.Default()/_descriptor_pool.DescriptorPool()/' edge_agent/serving/grpc/inference_pb2.py
	rm edge_agent/serving/grpc/inference_pb2.py.old

clean:
	rm -rf $(VENV) build *.egg-info .mypy_cache .ruff_cache .import_linter_cache demo-data
