# `make mini` and `make test` do everything on a machine that has python3.11 with venv, make and a
# C compiler.
PYTHON ?= python3.11
VENV := .venv
INSTALLED := $(VENV)/.installed
PIP = $(VENV)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
# Whatever environment is active, the recipe runs in this one.
RUN = PATH="$(CURDIR)/$(VENV)/bin:$$PATH" ./run.sh
# Threads that wait must sleep: spinning ones stop each other when a machine is shared.
export OMP_WAIT_POLICY ?= PASSIVE

.PHONY: mini mini-ablations test test-full comet-env test-comet lint install clean
.DEFAULT_GOAL := help

.PHONY: help
help:
	@echo "make mini            install, then all of SPIRE on one CPU, offline"
	@echo "make mini-ablations  the same, then the paper's three ablations"
	@echo "make test            install, then the tests"
	@echo "make test-full       the paper's recipe over every corpus in miniature, four models"
	@echo "make comet-env       COMET in an environment of its own, for CometKiwi"
	@echo "make test-comet      the same, then its tests"
	@echo "make lint            ruff, and shellcheck where it is installed"

install: $(INSTALLED)

$(INSTALLED): setup.py constraints.txt
	@command -v $(PYTHON) >/dev/null || { echo "error: $(PYTHON) is not installed; give another with PYTHON=…" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(PIP) pip setuptools wheel
	@# The same versions in the environments that packages without wheels are built in.
	PIP_BUILD_CONSTRAINT=$(CURDIR)/constraints.txt $(PIP) -e '.[mini,dev]'
	@touch $@

mini: $(INSTALLED)
	cd egs2/spire/mini && $(RUN)

mini-ablations: mini
	cd egs2/spire/mini && for variant in towerfull spirenoblocks spirenopseudo; do \
		$(RUN) --variant $$variant || exit 1; done

test: $(INSTALLED)
	$(VENV)/bin/python -m pytest -q tests

# A test of its own: it takes a quarter of an hour.
test-full: $(INSTALLED)
	$(VENV)/bin/python -m pytest -q tests/full/full_recipe.py

# COMET's pins are not ours, so it is called as a command in an environment of its own.
COMET_VENV := .venv-comet
COMET_INSTALLED := $(COMET_VENV)/.installed

comet-env: $(COMET_INSTALLED)

$(COMET_INSTALLED): constraints-comet.txt
	@command -v $(PYTHON) >/dev/null || { echo "error: $(PYTHON) is not installed; give another with PYTHON=…" >&2; exit 1; }
	$(PYTHON) -m venv $(COMET_VENV)
	$(COMET_VENV)/bin/python -m pip install --quiet --disable-pip-version-check \
		-c constraints-comet.txt unbabel-comet setuptools
	@touch $@

test-comet: $(INSTALLED) $(COMET_INSTALLED)
	$(VENV)/bin/python -m pytest -q tests/comet/real_comet.py tests/comet/real_quality.py

lint: $(INSTALLED)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	@if command -v shellcheck >/dev/null; then \
		shellcheck -x $$(git ls-files -s '*.sh' '*.sbatch' .ci/run | sed -n 's/^100.*\t//p'); \
	else \
		echo "shellcheck is not installed: shell scripts were not checked"; \
	fi

clean:
	rm -rf $(VENV) $(COMET_VENV) *.egg-info
