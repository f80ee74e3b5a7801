# Works on a fresh machine with Python 3.11, pip and make. VENV=DIR keeps the environment elsewhere, JOBS=N is how many
# processes run tests (each takes up to 2 GB).
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
TESTS ?= tests
JOBS ?= 3

.PHONY: setup check test demo lock clean

setup: ## Build the environment from the lock file; quick when it is there already.
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@cmp -s requirements.lock $(VENV)/requirements.lock || { \
	  echo "Installing the locked environment into $(VENV) (8 GB; minutes, the first time) ..."; \
	  $(BIN)/pip install --quiet --no-deps --require-hashes -r requirements.lock && \
	  cp requirements.lock $(VENV)/requirements.lock; }
	@$(BIN)/pip install --quiet --no-deps --no-build-isolation --editable .

check: setup ## Format, lint, types.
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	@mkdir -p .types && ln -sfn .. .types/vidx
	MYPYPATH=.types $(BIN)/mypy -p vidx

test: check ## The whole gate.
	$(BIN)/python -m pytest --numprocesses $(JOBS) --dist loadfile --no-loadscope-reorder $(TESTS)

demo: setup ## Make, index and search a small archive; VIDEOS=/some/folder indexes that instead.
	$(BIN)/python docs/demo/run.py demo-output $(if $(VIDEOS),--videos "$(VIDEOS)")

lock: ## Pin everything anew, without naming any host.
	$(BIN)/pip install --quiet uv
	$(BIN)/uv pip compile pyproject.toml --all-extras --universal --python-version 3.11 --generate-hashes \
	  --no-annotate --no-header --upgrade --quiet --output-file requirements.lock

clean:
	rm -rf build dist .types demo-output *.egg-info
