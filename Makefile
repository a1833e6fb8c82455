# Two commands on a bare machine with Python 3.11 and make:
#
#     make demo                     set up, then the story on the embedded toy model, in minutes on a CPU
#     make demo PHOTOS=folder       the same set-up, then protect your own photographs
#     make test                     set up, then all tests
#
# and, for development: make setup, dev, lint, types, docs, clean. `make docs` writes the site to build/site.
# `make browser` fetches what the tests of the page in a browser need: Chromium (by apt) and onnxruntime-web (by npm).
#
# Settings, given on the command line:
#
#     PYTHON       the interpreter that makes the environment (default: python3.11, else python3)
#     VENV         where the environment goes (default: .venv)
#     TORCH_INDEX  a package index to take torch from. On Linux pip's own torch is the CUDA build, some gigabytes.
#                  Without an NVIDIA GPU:  make demo TORCH_INDEX=https://download.pytorch.org/whl/cpu
#     PIP_ARGS     further arguments for every pip install (a proxy, a mirror, --no-index --find-links wheels)
#     DEMO_ARGS    further arguments for `unlikeness demo`
#     PYTEST_ARGS  further arguments for pytest (-m "not slow" leaves the real trainings out)
#     PROCESSES    processes that run the tests (default: one for each core; 0 for all tests in one)

PYTHON ?= $(shell command -v python3.11 || command -v python3 || echo python3.11)
VENV ?= .venv
TORCH_INDEX ?=
PIP_ARGS ?=
DEMO_ARGS ?=
PYTEST_ARGS ?=
PROCESSES ?= auto
PHOTOS ?=

BIN := $(VENV)/bin
PIP_INSTALL = $(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt $(PIP_ARGS)

.DEFAULT_GOAL := help
.PHONY: help setup dev demo test browser lint types docs clean

help:
	@sed -n '/^#/!q; s/^# \{0,1\}//p' Makefile

# The environment. torch goes first and by itself: what follows then finds it installed and fetches no other build.
$(VENV)/.ready: pyproject.toml constraints.txt
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "unlikeness needs Python 3.11 or newer: make $(MAKECMDGOALS) PYTHON=/path/to/python3.11" >&2; exit 1; }
	@test -x $(BIN)/python || "$(PYTHON)" -m venv $(VENV)
	@echo "setting up $(VENV): once, some minutes and a gigabyte or more" >&2
	$(PIP_INSTALL) $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) torch==2.13.0
	$(PIP_INSTALL) --quiet hatchling editables
	$(PIP_INSTALL) --quiet --no-build-isolation -e '.[models,heif]'
	@touch $@

$(VENV)/.ready-dev: $(VENV)/.ready
	$(PIP_INSTALL) --quiet --no-build-isolation -e '.[dev]'
	@touch $@

$(VENV)/.ready-docs: $(VENV)/.ready
	$(PIP_INSTALL) --quiet --no-build-isolation -e '.[models,heif,docs]'
	@touch $@

setup: $(VENV)/.ready

dev: $(VENV)/.ready-dev

demo: $(VENV)/.ready
	$(BIN)/unlikeness demo $(if $(PHOTOS),--photos "$(PHOTOS)") $(DEMO_ARGS)

test: $(VENV)/.ready-dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(PROCESSES) --dist worksteal $(PYTEST_ARGS)

browser: $(VENV)/.ready-dev
	command -v chromium chromium-browser google-chrome >/dev/null || \
		{ apt-get -qq update && apt-get -qq install --no-install-recommends chromium; }
	mkdir -p build
	cd build && npm pack --silent --ignore-scripts \
		"$$(../$(BIN)/python -c 'from unlikeness.page.build import RUNTIME; print(RUNTIME)')"

lint: $(VENV)/.ready-dev
	$(BIN)/ruff check

types: $(VENV)/.ready-dev
	$(BIN)/mypy

# NO_MKDOCS_2_WARNING: the theme's note that MkDocs 2 is another program.
docs: $(VENV)/.ready-docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --quiet --strict

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache
