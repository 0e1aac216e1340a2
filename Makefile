# SPDX-License-Identifier: LGPL-2.1-or-later
PYTHON ?= python3
PYTEST_ARGS ?=
BENCH_ARGS ?=
# Installs the packages; PACKAGES=true leaves that to you.
PACKAGES ?= .ci/debian-packages
# Fetches the kernel's debug information; VMLINUX=true if it is in /usr/lib/debug/boot.
VMLINUX ?= .ci/debian-vmlinux
# A checkout of https://github.com/rhkdump/kdump-utils, for kdump-utils-test.
KDUMP_UTILS ?=
# Builds the kernel's simulated network device; MODULE=true leaves its test out.
MODULE ?= .ci/debian-netdevsim

VENV := .venv
INSTALLED := $(VENV)/installed
DEBUG := $(VENV)/debug/installed
NETDEVSIM := $(VENV)/netdevsim

# .ci/debian-packages installs what this Python lacks.
export PYTHON

# Two apt-get at the same time would fight for the lock.
.NOTPARALLEL:
.PHONY: help demo test test-fast test-all torture bench lint kdump-test kdump-utils-test man reader picture deb deb-test dist clean \
    check-python check-kdump-utils netdevsim packages-build packages-demo packages-fast packages-test packages-bench \
    packages-kdump packages-picture packages-deb

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 18

demo: check-python packages-demo $(INSTALLED) ## put three device dumps into a real vmcore, and show what crash reads
	$(VENV)/bin/python -m tests.demo

test: check-python packages-test $(INSTALLED) ## run every everyday test, linters included (PYTEST_ARGS=...)
	$(VENV)/bin/pytest $(PYTEST_ARGS)

test-fast: check-python packages-fast $(INSTALLED) ## run those without QEMU and packages, as on each Python (PYTHON=python3.15)
	$(VENV)/bin/pytest -m 'not qemu and not kdump_matrix and not debuginfo and not deb' $(PYTEST_ARGS)

lint: check-python $(INSTALLED) ## run only the linters
	$(VENV)/bin/pytest tests/test_lint.py $(PYTEST_ARGS)

kdump-test: check-python packages-deb packages-kdump $(INSTALLED) netdevsim ## run only the tests that boot machines in QEMU: half an hour
	$(VENV)/bin/pytest -m 'qemu or kdump_matrix' $(PYTEST_ARGS)

kdump-utils-test: check-python check-kdump-utils packages-deb packages-kdump $(INSTALLED) ## boot machines with kdump-utils, of KDUMP_UTILS=DIRECTORY: half an hour
	KDUMP_UTILS='$(abspath $(KDUMP_UTILS))' $(VENV)/bin/pytest -m kdump_utils tests/kdump/test_kdump_utils.py $(PYTEST_ARGS)

test-all: check-python packages-deb packages-kdump $(DEBUG) netdevsim ## run every test: kdump-test, too, and drgn with debug information
	$(VENV)/bin/pytest -m '' $(PYTEST_ARGS)

torture: check-python packages-test $(INSTALLED) ## run kills, failing system calls, hostile callers, a soak: 80 minutes
	$(VENV)/bin/python -m tests.torture

bench: check-python packages-bench $(INSTALLED) ## measure time and memory beside cp, makedumpfile and others, in build/bench.*
	$(VENV)/bin/python -m tests.bench --json build/bench.json --svg build/bench.svg $(BENCH_ARGS)

man: check-python $(INSTALLED) ## make manual pages and completion, in build/man and build/completion
	$(VENV)/bin/python -m docs.pages build/man
	$(VENV)/bin/python -m docs.completion build/completion

reader: check-python $(INSTALLED) ## make one file that reads vmcores on any machine with Python, build/vmcoredd
	.ci/build-reader build/vmcoredd

picture: check-python packages-picture $(INSTALLED) ## make the picture of a report in docs, with Chromium
	$(VENV)/bin/python -m tests.picture

deb: packages-deb ## build the Debian package, in build/deb
	.ci/debian-build build/deb

deb-test: check-python packages-deb packages-kdump $(INSTALLED) ## build, check, install, upgrade, purge and test the Debian package
	$(VENV)/bin/pytest -m deb $(PYTEST_ARGS)

dist: check-python $(INSTALLED) ## build and check wheel and source distribution, in dist
	$(VENV)/bin/pip install --quiet --use-pep517 --editable '.[dev,dist]'
	rm -rf dist
	$(VENV)/bin/python -m build
	$(VENV)/bin/twine check --strict dist/*
	$(VENV)/bin/check-wheel-contents dist/*.whl
	rm -rf build/sdist
	mkdir -p build/sdist
	tar --extract --directory build/sdist --strip-components 1 --file dist/*.tar.gz
	cd build/sdist && ../../$(VENV)/bin/python -m pytest -q tests/test_note.py tests/test_manifest.py tests/test_pages.py \
	    tests/config/test_config.py tests/vmcore/test_layout.py tests/cli/test_extract.py

clean: ## remove the virtual environment and everything else that was built
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

check-python:
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 16))' 2>/dev/null || \
	{ echo "vmcoredd needs Python 3.11 to 3.15, and PYTHON=$(PYTHON) is $$($(PYTHON) --version 2>/dev/null || echo missing)" >&2; exit 1; }

check-kdump-utils:
	@test -f '$(KDUMP_UTILS)/kdumpctl' || \
	{ echo "KDUMP_UTILS=$(KDUMP_UTILS) must name a checkout of https://github.com/rhkdump/kdump-utils" >&2; exit 1; }

packages-build packages-demo packages-fast packages-test packages-bench packages-kdump packages-picture packages-deb:
	@$(PACKAGES) $(@:packages-%=%)

$(INSTALLED): pyproject.toml | packages-build
	$(PYTHON) -m venv --clear $(VENV)
	$(VENV)/bin/pip install --quiet --use-pep517 --editable '.[dev]'
	@touch $@

netdevsim: $(INSTALLED) | packages-kdump
	$(MODULE) $(NETDEVSIM)

# The kernel's debug information takes 1.8 GB; 0.6 GB of it are kept.
$(DEBUG): $(INSTALLED) | packages-kdump
	$(VENV)/bin/pip install --quiet --use-pep517 --editable '.[dev,debug]'
	$(VMLINUX) $(@D)
	@mkdir -p $(@D) && touch $@
