# The front door. Each target sets up .venv by itself; only Python 3.11+, make and git are needed.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: help demo demo-tasks test check bench chaos sidecars docs wheel test-cluster format clean

help:  ## Show this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) tools/set_up.py $(VENV)
	@touch $@

demo: $(READY)  ## Run a real DAG, every task in a pod of its own, with mesh sidecars, on this machine (ARGS="--executor stock")
	@$(BIN)/crosswind demo $(ARGS)

demo-tasks: $(READY)  ## The same with thirty task files, three lines of YAML each, in place of Python
	@$(BIN)/crosswind demo --tasks $(ARGS)

# Most tests wait for pods and processes, so two processes take half the time; each keeps to whole files.
PARALLEL ?= --numprocesses 2 --dist loadfile

test: $(READY)  ## Run all tests (ARGS="tests/pods -k merge" for some)
	@$(BIN)/python -m pytest $(if $(ARGS),$(ARGS),$(PARALLEL))

check: $(READY)  ## Formatting, lint, types, layers, style figures
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/python tools/check_style.py

sidecars: $(READY)  ## Every known sidecar with the pod operator, ours and stock side by side
	@$(BIN)/python -m benchmarks.sidecars $(ARGS)

bench: $(READY)  ## Measure ours against stock, and the local API (ARGS="--tasks 1000")
	@$(BIN)/python -m benchmarks $(ARGS)

chaos: $(READY)  ## Faults of every kind, and what was lost (ARGS="api --short"; a quarter of an hour in full)
	@$(BIN)/python -m benchmarks.chaos $(ARGS)

docs: $(READY)  ## Build the documentation into site/, broken links refused
	@$(BIN)/mkdocs build --strict --quiet
	@echo 'site/index.html'

wheel: $(READY)  ## Build dist/crosswind-….whl, to install elsewhere: pip install dist/crosswind-*.whl
	@rm -f dist/crosswind-*.whl
	@$(BIN)/python -m pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir dist .
	@ls dist/crosswind-*.whl

test-cluster: $(READY)  ## Run every test that touches a cluster against CONTEXT=… [IMAGE=… PULL_POLICY=… AIRFLOW_IMAGE=… HOST=…]
	@test -n "$(CONTEXT)" || { echo "say which: make test-cluster CONTEXT=kind-crosswind [IMAGE=busybox PULL_POLICY=IfNotPresent AIRFLOW_IMAGE=…]" >&2; exit 2; }
	@$(BIN)/python -m pytest -m cluster --cluster-context '$(CONTEXT)' $(if $(IMAGE),--cluster-image '$(IMAGE)') \
	  $(if $(PULL_POLICY),--cluster-pull-policy '$(PULL_POLICY)') $(if $(AIRFLOW_IMAGE),--cluster-airflow-image '$(AIRFLOW_IMAGE)') \
	  $(if $(HOST),--cluster-host '$(HOST)') $(ARGS)

format: $(READY)  ## Format and mend what ruff can
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

clean:  ## Remove what make has made
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache site dist
