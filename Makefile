# The tasks of a contributor, and what .ci/run calls. `make help` lists them.
PYTHON ?= python
# Checks and tests read the working tree, and not what happens to be installed.
export PYTHONPATH := $(CURDIR):$(CURDIR)/flows

.PHONY: help install check lint types imports lock-check docs notebooks package test lowest browser safety environments clusters chaos fuzz slow large audit-dependencies lock

help:  ## list the tasks
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 22

install:  ## install the working tree with everything that its tests need
	$(PYTHON) -m pip install --editable ".[test]"

check: lint types imports lock-check  ## all static checks

lint:  ## style and format (ruff)
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .

types:  ## static types (mypy)
	$(PYTHON) -m mypy

imports:  ## imports go down only (import-linter)
	lint-imports

lock-check:  ## requirements.lock names no index
	@! grep -nE '://|--(extra-)?index-url|--find-links' requirements.lock || \
		{ echo "requirements.lock names an index" >&2; exit 1; }

docs:  ## the documentation site, into build/docs; every warning is an error (pip install ".[docs]")
	$(PYTHON) -m sphinx -W -n -q -b html docs build/docs

notebooks:  ## run the notebooks of the documentation; each prints and draws what it holds (pip install ".[hf,plot]" for all)
	$(PYTHON) -m pytest --slow tests/docs/test_notebooks.py

package:  ## wheel and source distribution, built into dist/ and checked (needs build, twine, check-wheel-contents)
	rm -rf dist
	$(PYTHON) -m build
	$(PYTHON) -m twine check --strict dist/*
	check-wheel-contents dist/*.whl

test:  ## the default tests, about twelve minutes on two cores
	$(PYTHON) -m pytest -n 2 --dist loadfile

lowest:  ## unit tests and the shipped zoo with the lowest versions that pyproject.toml allows (needs uv; 20 minutes)
	deploy/lowest

browser:  ## the report in headless Chromium
	$(PYTHON) -m pytest --browser -m browser -n 2 --dist loadfile

safety:  ## whole commands among hostile files and other users (Linux; some need root)
	$(PYTHON) -m pytest --safety -m safety

environments:  ## whole commands under proxies, settings, limits and locales that people have (Linux; some need root)
	$(PYTHON) -m pytest --environments -m environments -n 2 tests/robustness/environments

clusters:  ## SLURM, Gateway, TLS, S3, and what deploy/ holds
	$(PYTHON) -m pytest --cluster tests/robustness/clusters tests/packaging

chaos:  ## killed processes, full disks, damaged stores (Linux; some need root)
	$(PYTHON) -m pytest --chaos -m chaos tests/robustness/chaos

fuzz:  ## hostile files and catalogs
	$(PYTHON) -m pytest --fuzz -m fuzz tests/robustness/fuzz

slow:  ## tests that take minutes each
	$(PYTHON) -m pytest --slow -m slow

large:  ## tests that need much memory, disk or time
	$(PYTHON) -m pytest --large -m large

audit-dependencies:  ## known weaknesses of the locked packages; exit code 3: nothing could be looked up
	deploy/audit-dependencies

lock:  ## write requirements.lock and the list of licenses anew (needs uv)
	deploy/lock
	deploy/licenses
