# make serve | make test | make bench | make help. Everything lives in .venv; what is already installed is not touched again.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.ONESHELL:
.DEFAULT_GOAL := help

# Variables a caller may set:
#   PYTHON=python3.12        interpreter for the virtual environment (>= 3.11)
#   TORCH_INDEX=URL          package index for PyTorch alone, e.g. its CPU-only one
#   ARGS="--port 9000"       arguments of the program that is started
#   SKIP_SYSTEM=1            do not look for Debian packages before the tests
VENV ?= .venv
PORT ?= 8080
ARGS ?=
BIN := $(VENV)/bin
SPECS := pyproject.toml constraints.txt
DEBIAN := chromium espeak-ng flite libegl1 libgl1 libgl1-mesa-dri libglib2.0-0

.PHONY: help serve test lint bench doctor clean

help:  ## what can be made here
	@echo "make serve   install what is missing and start the server on http://127.0.0.1:$(PORT) (ARGS=... go to 'livemimic serve')"
	echo "make test    install the test tools too, then ruff, mypy and pytest (ARGS=... go to pytest)"
	echo "make bench   measure this machine: the model alone, then the whole live path through Chromium"
	echo "make doctor  say what is missing on this machine, in plain words"
	echo "make clean   remove $(VENV) and the caches"

serve: $(VENV)/.installed-serve  ## the server opens the page on a desktop by itself
	@exec $(BIN)/livemimic serve --port $(PORT) $(ARGS)

test: $(VENV)/.installed-test system lint  ## everything that must be green
	@exec $(BIN)/python -m pytest $(ARGS)

lint: $(VENV)/.installed-test
	@$(BIN)/ruff check .
	$(BIN)/mypy

bench: $(VENV)/.installed-test system  ## committed results: tests/benchmarks/results
	@$(BIN)/livemimic bench --json tests/benchmarks/results/bench.json
	$(BIN)/python tests/benchmarks/live.py --json tests/benchmarks/results/live.json $(ARGS)

doctor: $(VENV)/.installed-serve
	@exec $(BIN)/livemimic doctor $(ARGS)

clean:
	@rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache build *.egg-info

# Debian packages of the tests: a browser, two speech synthesisers, software OpenGL.
.PHONY: system
system:
	@[ -z "$${SKIP_SYSTEM:-}" ] || exit 0
	if ! command -v dpkg-query >/dev/null; then
	    echo "Not a Debian system: the tests want the equivalents of: $(DEBIAN)"
	    exit 0
	fi
	missing=()
	for package in $(DEBIAN); do
	    dpkg-query -W -f '$${Status}' "$$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$$package")
	done
	[ "$${#missing[@]}" -gt 0 ] || exit 0
	if [ "$$(id -u)" -ne 0 ]; then
	    echo "The tests need Debian packages that are not installed. Run, then try again (or say SKIP_SYSTEM=1):"
	    echo "    sudo apt-get install -y --no-install-recommends $${missing[*]}"
	    exit 1
	fi
	echo "Installing Debian packages: $${missing[*]}"
	export DEBIAN_FRONTEND=noninteractive
	apt-get update -qq
	apt-get install -y -qq --no-install-recommends "$${missing[@]}" >/dev/null

# The first interpreter that is new enough and can make a virtual environment (Debian splits that off as python3-venv).
$(BIN)/python:
	@usable() { "$$1" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; }
	find() { for name in $(PYTHON) python3.11 python3.12 python3.13 python3 /usr/bin/python3; do
	    if usable "$$name"; then echo "$$name"; return; fi; done; }
	python="$$(find)"
	if [ -z "$$python" ] && [ "$$(id -u)" -eq 0 ] && command -v apt-get >/dev/null; then
	    echo "Installing Debian packages: python3 python3-venv"
	    apt-get update -qq
	    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends python3 python3-venv >/dev/null
	    python="$$(find)"
	fi
	if [ -z "$$python" ]; then
	    echo "Python 3.11 or newer with its venv module is needed. On Debian: sudo apt-get install python3 python3-venv"
	    exit 1
	fi
	"$$python" -m venv $(VENV)

# torch goes first and alone, at its pinned version: a bare range would bring the newest build and gigabytes of CUDA with it.
# A CUDA build pins its own triton, so our triton pin is dropped when torch asks for one.
define INSTALL
@echo "Installing into $(VENV) (the first time takes a few minutes)"
pip() { $(BIN)/python -m pip --disable-pip-version-check "$$@"; }
rm -f $(VENV)/.installed-*
torch="$$(grep '^torch==' constraints.txt)"
pip install -q -c constraints.txt setuptools
grep -v '^triton==' constraints.txt > $(VENV)/constraints.txt
pip install -q -c $(VENV)/constraints.txt "$$torch" $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX))
if ! $(BIN)/python -c 'import importlib.metadata as m; exit(not any(r.startswith("triton") for r in m.requires("torch")))'; then
    cp constraints.txt $(VENV)/constraints.txt
fi
pip install -q --no-build-isolation -c $(VENV)/constraints.txt -e '$(1)'
endef

$(VENV)/.installed-serve: $(SPECS) | $(BIN)/python
	$(call INSTALL,.)
	touch $@

$(VENV)/.installed-test: $(SPECS) | $(BIN)/python
	$(call INSTALL,.[dev$(comma)train])
	touch $(VENV)/.installed-serve $@

comma := ,
