# MedFusionNet. `make app` and `make test` do all their own set-up; `make` alone prints this list.
#
#   make app              environment, dependencies, app in the browser
#   make app PORT=8600    the same on another port
#   make test             environment, dependencies, linters, all tests
#   make check            linters and types only
#   make test-cluster     the tests that need Ray, on a cluster of several nodes on this machine
#   make guide            the pictures of the user guide, made anew by the browser tests
#   make bench            speed, as ratios in one run; DATA=FOLDER adds training on its breast_ultrasound.zip
#   make load             20 browser sessions at once beside a training run: seconds to the answer, memory, mixed-up cases
#   make bench-models DATA=FOLDER   networks, starts and remedies for imbalance compared: hours
#   make clean            remove the environment and caches
#
# Without an NVIDIA card, a far smaller PyTorch: make app TORCH_INDEX=https://download.pytorch.org/whl/cpu

PORT ?= 8501
TORCH_INDEX ?=
VENV := .venv
PYTHON := $(VENV)/bin/python
INSTALL := $(PYTHON) -m pip install --quiet --disable-pip-version-check
# A screen to open a browser on: always on macOS, else where a display is set.
HEADLESS := $(if $(filter Darwin,$(shell uname)),false,$(if $(DISPLAY)$(WAYLAND_DISPLAY),false,true))
# A stamp's name holds its files' checksum: dependencies are installed again only when the files change.
checksum = $(shell cat $(1) | cksum | cut -d ' ' -f 1)
FOR_APP := $(VENV)/.app-$(call checksum,requirements.txt)
FOR_TESTS := $(VENV)/.test-$(call checksum,requirements.txt requirements-train.txt requirements-dev.txt)

.PHONY: help app test test-cluster check guide bench load bench-models clean system-packages
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

help:
	@sed -n 's/^#   //p' Makefile

app: $(FOR_APP)
	@echo "MedFusionNet: http://localhost:$(PORT)  (research use only; stop with Ctrl-C)"
	@exec $(PYTHON) -m streamlit run app.py --server.port $(PORT) --server.headless $(HEADLESS)

# Browser tests one by one, for they wait for pages; the others in a process a core, four at most, a file in one of them.
test: $(FOR_TESTS) system-packages check
	$(PYTHON) -m pytest tests/ui
	$(PYTHON) -m pytest --ignore tests/ui -n auto --maxprocesses 4 --dist loadfile --max-worker-restart 0

test-cluster: $(FOR_TESTS)
	@$(INSTALL) -r requirements-cluster.txt
	$(PYTHON) -m pytest tests/cluster

check: $(FOR_TESTS)
	$(PYTHON) -m ruff check
	$(PYTHON) -m ruff format --check
	$(PYTHON) -m mypy
	PYTHONPATH=. $(VENV)/bin/lint-imports

guide: $(FOR_TESTS) system-packages
	$(PYTHON) -m pytest --guide tests/ui/test_accessible.py tests/ui/test_fine_tune_journey.py

bench: $(FOR_TESTS)
	DATA=$(DATA) $(PYTHON) -m tests.bench

load: $(FOR_TESTS) system-packages
	$(PYTHON) -m tests.bench.load

# DATA: a folder with the zips of all sets. Takes hours; goes on where it was stopped.
bench-models: $(FOR_TESTS)
	$(PYTHON) -m tests.bench.models --data $(DATA)

clean:
	rm -rf $(VENV) .pytest_cache .ruff_cache .mypy_cache .import_linter_cache

$(PYTHON):
	@python=$$(for name in python3.13 python3.12 python3.11 python3 python; do \
		$$name -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$name && break; done); \
	if [ -z "$$python" ]; then \
		echo "MedFusionNet needs Python 3.11 or newer with venv. Install it (Debian, Ubuntu: apt install python3-venv) and run make again."; exit 1; fi; \
	echo "Creating $(VENV) with $$python"; $$python -m venv $(VENV)

$(FOR_APP): | $(PYTHON)
	@echo "Installing dependencies, PyTorch among them: several minutes, once"
	@$(if $(TORCH_INDEX),$(INSTALL) --index-url $(TORCH_INDEX) "$$(grep -o '^torch[^ ]*' requirements.txt)" torchvision,:)
	@$(INSTALL) -r requirements.txt
	@touch $@

$(FOR_TESTS): $(FOR_APP)
	@echo "Installing what the tests need"
	@$(INSTALL) -r requirements-dev.txt
	@touch $@

# For the browser tests, the readers of reports, the records' tests on PostgreSQL, and the archives' on Orthanc. Where one
# can be neither found nor installed, its tests skip and say so. RUNLEVEL=1 keeps a package from starting a server.
system-packages:
	@missing=$$( \
		for name in chromium chromium-browser google-chrome; do command -v $$name >/dev/null && found=1; done; [ -n "$$found" ] || echo chromium; \
		command -v dciodvfy >/dev/null || echo dicom3tools; \
		command -v pdftotext >/dev/null || echo poppler-utils; \
		command -v initdb >/dev/null || ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || echo postgresql; \
		command -v Orthanc >/dev/null && ls /usr/share/orthanc/plugins/libOrthancDicomWeb.so >/dev/null 2>&1 || echo orthanc orthanc-dicomweb); \
	if [ -n "$$missing" ] && command -v apt-get >/dev/null && [ "$$(id -u)" = 0 ]; then \
		echo "Installing for the tests:" $$missing; apt-get update -qq >/dev/null 2>&1; \
		for name in $$missing; do \
			RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$name >/dev/null 2>&1 \
				|| echo "$$name could not be installed: its tests will skip."; \
		done; fi
