# The front door. Each target sets up .venv by itself; only Python 3.11+, make and git are needed.

PYTHON ?= python3
# mkdocs-material prints a banner about its own future on every build
export NO_MKDOCS_2_WARNING := 1
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: help demo demo-tasks test test-kubelocal coverage check bench chaos sidecars docs pictures wheel test-cluster format clean

help:  ## Show this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

$(READY): pyproject.toml packages/kubelocal/pyproject.toml constraints.txt
	@$(PYTHON) tools/set_up.py $(VENV) packages/kubelocal '.[local,dev]'
	@touch $@

demo: $(READY)  ## Run a real DAG, every task in a pod of its own, with mesh sidecars, on this machine (ARGS="--executor stock")
	@$(BIN)/crosswind demo $(ARGS)

demo-tasks: $(READY)  ## The same with thirty task files, three lines of YAML each, in place of Python
	@$(BIN)/crosswind demo --tasks $(ARGS)

# Most tests wait for pods and processes, so two cores have time for three processes; each keeps to whole files, the
# longest first (conftest.py).
PARALLEL ?= --numprocesses 3 --dist loadfile --no-loadscope-reorder

# Without ARGS, kubelocal's tests run first, in the environment of test-kubelocal; the last line is pytest's own.
test: $(READY)  ## Run all tests (ARGS="tests/pods -k merge" for some)
ifdef ARGS
	@$(BIN)/python -m pytest $(ARGS)
else
	@failed=0; $(MAKE) --no-print-directory test-kubelocal || failed=1; \
	  $(BIN)/python -m pytest $(PARALLEL) tests || failed=1; exit $$failed
endif

# A third to a half more CPU than make test: containers of the local cluster apart, every process is measured. The table
# stands in the summary of the second run (conftest.py); the last command is the gate.
coverage: $(READY)  ## Run all tests and print which lines they reach
	@$(BIN)/coverage erase
	@failed=0; $(MAKE) --no-print-directory test-kubelocal \
	    KUBELOCAL_RUN='-m coverage run --data-file=$(CURDIR)/.coverage -m pytest' || failed=1; \
	  COVERAGE_REPORT=1 $(BIN)/coverage run -m pytest $(PARALLEL) tests || failed=1; exit $$failed
	@$(BIN)/coverage combine --quiet
	@$(BIN)/coverage report >/dev/null

KUBELOCAL_VENV := .venv-kubelocal
KUBELOCAL_RUN := -m pytest

$(KUBELOCAL_VENV)/.ready: packages/kubelocal/pyproject.toml constraints.txt
	@$(PYTHON) tools/set_up.py $(KUBELOCAL_VENV) 'packages/kubelocal[dev]'
	@touch $@

test-kubelocal: $(KUBELOCAL_VENV)/.ready  ## Run kubelocal's tests where neither crosswind nor Airflow is installed
	@cd packages/kubelocal && ../../$(KUBELOCAL_VENV)/bin/python -c "from importlib.util import find_spec; \
	  assert not any(map(find_spec, ('crosswind', 'airflow')))"
	@cd packages/kubelocal && ../../$(KUBELOCAL_VENV)/bin/python $(KUBELOCAL_RUN) $(if $(ARGS),$(ARGS),$(PARALLEL))

check: $(READY)  ## Formatting, lint, types, layers, style figures, words to avoid
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

docs: $(READY)  ## Build the documentation into site/; dead links and dead anchors fail
	@$(BIN)/mkdocs build --strict
	@echo 'site/index.html'

pictures: $(READY)  ## Render docs/pictures anew: diagrams, terminals, screens (ARGS="diagrams"); needs Chromium and npm
	@cd tools && ../$(BIN)/python -m pictures $(ARGS)

wheel: $(READY)  ## Build dist/crosswind-….whl and dist/kubelocal-….whl, to install elsewhere: pip install dist/*.whl
	@rm -f dist/crosswind-*.whl dist/kubelocal-*.whl
	@$(BIN)/python -m pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir dist . packages/kubelocal
	@ls dist/crosswind-*.whl dist/kubelocal-*.whl

test-cluster: $(READY)  ## Run every test that touches a cluster against CONTEXT=… [IMAGE=… PULL_POLICY=… AIRFLOW_IMAGE=… HOST=…]
	@test -n "$(CONTEXT)" || { echo "say which: make test-cluster CONTEXT=kind-crosswind [IMAGE=busybox PULL_POLICY=IfNotPresent AIRFLOW_IMAGE=…]" >&2; exit 2; }
	@$(BIN)/python -m pytest -m cluster --cluster-context '$(CONTEXT)' $(if $(IMAGE),--cluster-image '$(IMAGE)') \
	  $(if $(PULL_POLICY),--cluster-pull-policy '$(PULL_POLICY)') $(if $(AIRFLOW_IMAGE),--cluster-airflow-image '$(AIRFLOW_IMAGE)') \
	  $(if $(HOST),--cluster-host '$(HOST)') $(ARGS)

format: $(READY)  ## Format, and fix what ruff can
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

clean:  ## Remove what make has made
	rm -rf $(VENV) $(KUBELOCAL_VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache site dist
