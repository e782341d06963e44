# MedFusionNet. `make app` and `make test` do all their own set-up; `make` alone prints this list.
#
#   make app              environment, dependencies, app in the browser
#   make app PORT=8600    the same on another port
#   make test             environment, dependencies, linters, all tests
#   make check            linters and types only
#   make bench            speed, as ratios in one run
#   make clean            remove the environment and caches
#
# Without an NVIDIA card, a far smaller PyTorch: make app TORCH_INDEX=https://download.pytorch.org/whl/cpu

PORT ?= 8501
TORCH_INDEX ?=
VENV := .venv
BIN := $(VENV)/bin
# A screen to open a browser on: always on macOS, else where a display is set.
HEADLESS := $(if $(filter Darwin,$(shell uname)),false,$(if $(DISPLAY)$(WAYLAND_DISPLAY),false,true))
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check

.PHONY: help app test check bench clean
.DEFAULT_GOAL := help

help:
	@sed -n 's/^#   //p' Makefile

app: $(VENV)/.app
	@echo "MedFusionNet: http://localhost:$(PORT)  (research use only; stop with Ctrl-C)"
	@$(BIN)/streamlit run app.py --server.port $(PORT) --server.headless $(HEADLESS)

test: $(VENV)/.test chromium check
	$(BIN)/python -m pytest

check: $(VENV)/.test
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(VENV)/.test
	$(BIN)/python -m tests.bench

clean:
	rm -rf $(VENV) .pytest_cache .ruff_cache .mypy_cache .import_linter_cache

$(BIN)/python:
	@python=$$(for name in python3.13 python3.12 python3.11 python3 python; do \
		$$name -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$name && break; done); \
	if [ -z "$$python" ]; then \
		echo "MedFusionNet needs Python 3.11 or newer with venv. Install it (Debian, Ubuntu: apt install python3-venv) and run make again."; exit 1; fi; \
	echo "Setting up in $(VENV) with $$python: a few minutes, once."; $$python -m venv $(VENV)

# A stamp is newer than what it was made from, so dependencies are installed again only when they change.
$(VENV)/.app: requirements.txt | $(BIN)/python
	@$(if $(TORCH_INDEX),$(INSTALL) --index-url $(TORCH_INDEX) torch torchvision,:)
	$(INSTALL) -r requirements.txt
	@touch $@

$(VENV)/.test: requirements-test.txt requirements-train.txt $(VENV)/.app
	$(INSTALL) -r requirements-test.txt
	@touch $@

# For the browser tests. Where it can be neither found nor installed they skip and say so.
.PHONY: chromium
chromium:
	@if ! command -v chromium chromium-browser google-chrome >/dev/null && command -v apt-get >/dev/null && [ "$$(id -u)" = 0 ]; then \
		echo "Installing Chromium for the browser tests"; \
		(apt-get update -qq && apt-get install -y -qq chromium) >/dev/null 2>&1 || echo "Chromium could not be installed: the browser tests will skip."; fi
