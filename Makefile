# make help lists the targets.
SHELL := /bin/bash
.SHELLFLAGS := -e -u -o pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help
# Targets share an environment; tests run in parallel by TEST_JOBS instead.
.NOTPARALLEL:

VENV ?= .venv
PYTHON ?=
TEST_JOBS ?= 2
PYTEST_ARGS ?=
DEMO_ARGS ?=
COVER ?=
PROCESSORS ?= old common

NEW_VENV ?= .venv312
NEW_PYTHON ?=
NEW_PROCESSOR ?=

PY := $(VENV)/bin/python
STAMP := $(VENV)/.setup-done
PYTEST_OPTS := -n $(TEST_JOBS) --dist loadfile --no-loadscope-reorder --durations 10
SHELL_FILES := $(shell find .ci tools egs2 -type f \( -name "*.sh" -o -path .ci/run \) 2>/dev/null)

.PHONY: always help setup demo test test-numerics test-new lint format docs clean clean-venv

help:  ## this list
	@grep -hE '^[a-z-]+:.*## ' Makefile | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 22
	@echo
	@echo "Options (make TARGET NAME=value):"
	@echo "  PYTHON       Python for $(VENV); default: the first of 3.11, 3.12, 3.13 that works"
	@echo "  VENV         the environment [$(VENV)]"
	@echo "  TEST_JOBS    processes for the tests [$(TEST_JOBS)]"
	@echo "  PYTEST_ARGS  more for pytest, for example PYTEST_ARGS='-k gate -x'"
	@echo "  COVER        with test: print the branch coverage of the package; fail below COVER %"
	@echo "  PROCESSORS   of test-numerics [$(PROCESSORS)]"
	@echo "  DEMO_ARGS    options of egs2/espeak/asr1/demo.sh, for example DEMO_ARGS='--size medium'"
	@echo "  NEW_PYTHON   Python 3.12 or 3.13 for test-new; default: the first that works"
	@echo "  NEW_PROCESSOR=common  test-new as on a common processor, as test-numerics does"

setup: $(STAMP)  ## build .venv: ESPnet, torch, this checkout and the test tools
	@echo "[setup] $(VENV) is ready. Next: 'make demo', 'make test', or README.md for the AN4 recipe"
	@echo "[setup] (to work in it: . $(VENV)/bin/activate)"

# The stamp is made last, so a failed install leaves none; a change of setup.py installs again.
$(STAMP): setup.py
	@python='$(PYTHON)'; \
	if [ -z "$${python}" ]; then \
	    python=$$(tools/find_python.sh 3.11 3.12 3.13) || { \
	        echo "[setup] error: no working Python 3.11, 3.12 or 3.13 was found." >&2; \
	        echo "[setup] Install one (Debian: apt install python3 python3-venv; uv: uv python install 3.11)" >&2; \
	        echo "[setup] or name it: make setup PYTHON=/path/to/python3.11" >&2; \
	        exit 1; }; \
	fi; \
	tools/make_venv.sh "$(VENV)" "$${python}"
	@$(PY) $(PY_VERSION) >$@

# Another PYTHON than the environment has builds it anew.
PY_VERSION := -c 'import sys; print("%d.%d" % sys.version_info[:2])'
ifneq ($(PYTHON),)
ifneq ($(shell $(PYTHON) $(PY_VERSION) 2>/dev/null),$(shell cat $(STAMP) 2>/dev/null))
$(STAMP): always
endif
endif

# Again: steps that are done are left alone.
demo: setup  ## 10 minutes: make a corpus, train ESPnet's Conformer, distil ours from it, compare, report
	@cd egs2/espeak/asr1 && ./demo.sh --python '$(abspath $(PY))' $(DEMO_ARGS)

# One thread a process, or the processes of the tests fight for the cores.
test: setup  ## run all tests (builds the environment first)
ifeq ($(COVER),)
	OMP_NUM_THREADS=1 $(PY) -m pytest $(PYTEST_OPTS) $(PYTEST_ARGS)
else
	@rm -rf build/coverage && mkdir -p build/coverage
	OMP_NUM_THREADS=1 PYTEST_PLUGINS=tests.support.measured $(PY) -m pytest $(PYTEST_OPTS) $(PYTEST_ARGS)
	@$(PY) -m coverage combine -q
	@$(PY) -m coverage report --sort=cover >build/coverage/report.txt
	@echo "[coverage] the least covered files (all: build/coverage/report.txt):"
	@sed -n '1,17p' build/coverage/report.txt
	@echo "[coverage] branch coverage of espnet_layerskip: $$($(PY) -m coverage report --format=total) %"
	@$(PY) -m coverage report --fail-under=$(COVER) --format=total >build/coverage/total.txt || \
	    { echo "[coverage] error: less than $(COVER) %" >&2; exit 1; }
endif

# Other kernels and threads add the same numbers in another order. MKL follows what PyTorch is
# told. PASSIVE: waiting threads sleep, or they slow the other process of the tests.
OLD := ATEN_CPU_CAPABILITY=default MKL_ENABLE_INSTRUCTIONS=SSE4_2 OMP_NUM_THREADS=2 OMP_WAIT_POLICY=PASSIVE
COMMON := ATEN_CPU_CAPABILITY=avx2 MKL_ENABLE_INSTRUCTIONS=AVX2 OMP_NUM_THREADS=1
test-numerics: setup  ## run the floating-point tests as other processors would
	@status=0; \
	files=$$(grep -rl --include='test_*.py' 'mark\.numerics' tests); \
	run() { \
	    echo "$$* pytest -m 'numerics and not slow'"; \
	    env "$$@" $(PY) -m pytest $(PYTEST_OPTS) -m 'numerics and not slow' $(PYTEST_ARGS) $${files} || status=1; \
	}; \
	for processor in $(PROCESSORS); do \
	    case $${processor} in \
	        old) run $(OLD) ;; \
	        common) run $(COMMON) ;; \
	        *) echo "PROCESSORS=$${processor}: old and common are known" >&2; status=1 ;; \
	    esac; \
	done; \
	exit $${status}

test-new:  ## run the unit tests against ESPnet 202611 too (Python 3.12 or 3.13, in .venv312)
	@python='$(NEW_PYTHON)'; \
	if [ -z "$${python}" ]; then \
	    python=$$(tools/find_python.sh 3.12 3.13) || { \
	        echo "error: no working Python 3.12 or 3.13 was found; name one: make test-new NEW_PYTHON=/path/to/python3.12" >&2; \
	        exit 1; }; \
	fi; \
	$(if $(NEW_PROCESSOR),env $(COMMON)) $(MAKE) --no-print-directory test VENV='$(NEW_VENV)' PYTHON="$${python}" \
	    PYTEST_ARGS='-m "not slow" $(PYTEST_ARGS)'

# All checkers run, whatever the first one finds.
lint: setup  ## ruff, mypy, shellcheck
	@status=0; \
	run() { echo "$$*" | cut -c -100; "$$@" || status=1; }; \
	run $(PY) -m ruff check .; \
	run $(PY) -m ruff format --check .; \
	run $(PY) -m mypy; \
	run $(VENV)/bin/shellcheck --severity=warning $(SHELL_FILES); \
	exit $${status}

format: setup  ## let ruff format and sort the imports
	$(PY) -m ruff check --fix-only .
	$(PY) -m ruff format .

docs: setup  ## build the documentation as a site: site/index.html
	$(PY) -m mkdocs build
	@echo "[docs] site/index.html"

clean:  ## remove caches and build outputs; environments and experiments stay
	rm -rf build dist site ./*.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -not -path './.venv*' -prune -exec rm -rf {} +

clean-venv:  ## remove .venv and .venv312
	rm -rf -- $(VENV) $(NEW_VENV)
