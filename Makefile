# `make` lists the targets. Everything runs in .venv; nothing else is changed.
#
#   make quickstart ARGS="--steps=20"     arguments of tools/quickstart.py
#   make test PYTEST_ARGS="-n 4 -k spans" arguments of pytest
#   make install PYTHON=/path/to/python3.11

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
# Two pips must not write to one environment.
.NOTPARALLEL:

PYTHON_VERSION := 3.11
PYTHON ?= $(shell python$(PYTHON_VERSION) -c "" 2>/dev/null \
	&& echo python$(PYTHON_VERSION) || echo python3)

ARGS ?=
PYTEST_ARGS ?=

VENV_PYTHON := .venv/bin/python
RUN_PIP := $(VENV_PYTHON) -m pip --disable-pip-version-check
PINS := setup.py pyproject.toml constraints.txt

# Fails with one line unless the interpreter $(1) is of the tested version.
define check_python
found="$$("$(1)" -c 'import platform; print(platform.python_version())' \
	2>/dev/null || true)"; \
case "$$found" in \
$(PYTHON_VERSION).*) ;; \
*) echo "error: found Python $${found:-(none)} as '$(1)'; official_lrm allows" \
	"$(PYTHON_VERSION) only: make PYTHON=/path/to/python$(PYTHON_VERSION)" >&2; \
	exit 1 ;; \
esac
endef

.PHONY: help
help: ## list the targets
	@sed -nE 's/^([a-z-]+):.*## (.*)/make \1\t\2/p' Makefile | expand -t 20

.PHONY: install
install: .venv/.installed ## create .venv and install the package with pins

.PHONY: install-test
install-test: .venv/.installed-test ## the same with what the tests need

.PHONY: quickstart
quickstart: install ## train, sample and export a small model (ARGS="...")
	@$(VENV_PYTHON) tools/quickstart.py $(ARGS)

.PHONY: test
test: install-test ## the default tests (PYTEST_ARGS="...")
	@$(VENV_PYTHON) -m pytest -m "not slow" $(PYTEST_ARGS)

.PHONY: test-slow
test-slow: install-test ## the slow tests (PYTEST_ARGS="...")
	@$(VENV_PYTHON) -m pytest -m slow $(PYTEST_ARGS)

.PHONY: chaos
chaos: install ## kill a training run 20 times and compare (ARGS="...")
	@$(VENV_PYTHON) tools/chaos.py $(ARGS)

.PHONY: lint
lint: install-test ## check format and lint, change nothing
	@$(VENV_PYTHON) -m ruff format --check .
	@$(VENV_PYTHON) -m ruff check .

.PHONY: format
format: install-test ## format, and fix what can be fixed
	@$(VENV_PYTHON) -m ruff check --fix-only .
	@$(VENV_PYTHON) -m ruff format .

.PHONY: constraints
constraints: ## pin anew, from the newest releases that setup.py allows
	@$(call check_python,$(PYTHON))
	@scratch="$$(mktemp -d)"; trap 'rm -rf "$$scratch"' EXIT; \
	echo "Resolving the newest tree in a temporary environment" \
		"(1.4 GB to download, 4.4 GB on disk, 2 to 4 minutes)."; \
	"$(PYTHON)" -m venv "$$scratch/venv"; \
	python="$$scratch/venv/bin/python"; \
	"$$python" -m pip --disable-pip-version-check install -e ".[test]"; \
	{ \
		echo "# The whole tested tree: official_lrm with its [test] extra," \
			"Python $(PYTHON_VERSION), Linux x86-64."; \
		echo "# Do not edit. Regenerate with: make constraints"; \
		"$$python" -m pip freeze --all --exclude-editable --exclude pip; \
	} > "$$scratch/constraints.txt"; \
	if grep -nE '^-e|://| @ ' "$$scratch/constraints.txt"; then \
		echo "error: these lines are no version pins;" \
			"constraints.txt is unchanged." >&2; exit 1; \
	fi; \
	cp "$$scratch/constraints.txt" constraints.txt; \
	echo "Wrote constraints.txt. Next: make install-test test test-slow."

.PHONY: clean
clean: ## remove caches and build products; keeps .venv and runs
	@rm -rf build dist .pytest_cache .ruff_cache *.egg-info
	@find . -name .venv -prune -o -name __pycache__ -prune \
		-exec rm -rf {} +

# An environment without a working pip is one whose creation was cut short.
.venv/.created:
	@if ! $(VENV_PYTHON) -m pip --version >/dev/null 2>&1; then \
		$(call check_python,$(PYTHON)); \
		echo "Creating .venv with $(PYTHON)."; \
		"$(PYTHON)" -m venv --clear .venv; \
	fi
	@$(call check_python,$(VENV_PYTHON))
	@touch $@

.venv/.installed: $(PINS) | .venv/.created
	@echo "Installing official_lrm: 1 GB to download, 3.3 GB on disk," \
		"2 to 4 minutes; the last step is silent for one of them."
	@$(RUN_PIP) install -c constraints.txt -e .
	@touch $@

.venv/.installed-test: $(PINS) | .venv/.created
	@echo "Installing official_lrm[test]: 1.4 GB to download, 4.4 GB on" \
		"disk, 2 to 4 minutes; the last step is silent for one of them."
	@$(RUN_PIP) install -c constraints.txt -e ".[test]"
	@touch .venv/.installed $@
