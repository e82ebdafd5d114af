# Targets for a checkout of mmpanet. `make` without a target lists them.

PYTHON ?= python3
# A variable of the shell with this name does not count: `make clean` removes the folder.
VENV = .venv
CONFIG ?= configs/shapes/mask-rcnn_r18_panet_shapes.py
PYTEST_ARGS ?=
WORKERS ?= auto
# Where `make stacks` keeps its environments (up to 6 GB for each) and the wheels of mmcv.
STACKS_DIR ?= .stacks
# More words for the runner of the stacks, such as --skip tests.
STACKS_ARGS ?=
# More words for .dev_scripts/gpu.py, such as --device cuda:1.
GPU_ARGS ?=

# The threads of GNU OpenMP wait for each other by spinning, which makes everything slow on a busy machine. They spin for
# a moment only, unless OMP_WAIT_POLICY says otherwise.
ifndef OMP_WAIT_POLICY
export OMP_WAIT_POLICY := PASSIVE
export GOMP_SPINCOUNT ?= 3000
endif

BIN := $(VENV)/bin
DATA := data/shapes
STAMPS := $(VENV)/.mmpanet
# What was installed is gone with the Python of the environment.
ifeq ($(wildcard $(BIN)/python),)
$(shell rm -rf $(STAMPS))
endif
# Each worker computes with one thread (tests/conftest.py); one that has run out of tests takes some of another's.
PYTEST := $(BIN)/python -m pytest -q -n $(WORKERS) --maxprocesses 8 --dist worksteal
WORK_DIR := work_dirs/$(basename $(notdir $(CONFIG)))
# Its name holds the path of the config, because two configs of one name have one WORK_DIR.
FINISHED := $(WORK_DIR)/finished_$(subst /,_,$(CONFIG))
IS_DEFAULT := $(filter file,$(origin CONFIG))
SOURCES := $(shell find mmpanet configs tools/train.py -name '*.py' -not -path '*/.mim/*')
# Python: the number of cores that a process may use, or 0 if trainings run on another device.
CPU_CORES := import os; from mmengine.device import get_device; \
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(); \
    print(cores if get_device() == "cpu" else 0)
DATA_SOURCES := tools/dataset_converters/make_shapes.py $(shell find mmpanet/datasets -name "*.py")

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.SUFFIXES:
.PHONY: help install train retrain report data test test-slow stacks stack gpu lint format types coverage docs wheel clean

help:  ## list the targets
	@echo 'make TARGET [VENV=.venv] [PYTHON=python3] [CONFIG=...] [WORKERS=auto]'
	@echo
	@sed -n 's/^\([a-z-]*\):.*##  *\(.*\)/  \1#\2/p' $(MAKEFILE_LIST) | awk -F'#' '{printf "%-12s %s\n", $$1, $$2}'

install: $(STAMPS)/package  ## set up $(VENV): pinned torch, mmcv with its operators, mmdet, mim, and this checkout

train: $(FINISHED)  ## train a small PANet on generated data, evaluate it, show where the results are
	@$(BIN)/python tools/analysis_tools/report_run.py $(WORK_DIR)

retrain:  ## train again, even if nothing has changed
	@rm -f $(FINISHED)
	@$(MAKE) --no-print-directory train

report: $(STAMPS)/package  ## show AP, checkpoint, logs and pictures of the last training
	@$(BIN)/python tools/analysis_tools/report_run.py $(WORK_DIR)

data: $(DATA)/.made  ## generate the `shapes` dataset

test: lint types  ## lint, check types, and run the quick tests
	$(PYTEST) -m 'not slow' $(PYTEST_ARGS)

test-slow: $(STAMPS)/tests $(STAMPS)/docs  ## run the slow tests
	$(PYTEST) -m slow $(PYTEST_ARGS)

stacks:  ## build and try every stack of requirements/stacks, and write the tables of docs/install.md
	@$(PYTHON) .dev_scripts/stacks/run.py --folder $(STACKS_DIR) $(STACKS_ARGS)

stack:  ## the same for one of them: make stack STACK=torch21
	@$(PYTHON) .dev_scripts/stacks/run.py --folder $(STACKS_DIR) $(STACKS_ARGS) $(or $(STACK),$(error say which: make stack STACK=torch21))

gpu: $(STAMPS)/tests  ## on a machine with a GPU: the tests for it, timings, and what the pooling should use there
	@$(BIN)/python .dev_scripts/gpu.py $(GPU_ARGS)

lint: $(STAMPS)/tests  ## check style (settings in pyproject.toml) and English
	$(BIN)/python -m ruff format --check .
	$(BIN)/python -m ruff check .
	$(BIN)/python .dev_scripts/check_english.py

format: $(STAMPS)/tests  ## format the code in that style
	$(BIN)/python -m ruff format .
	$(BIN)/python -m ruff check --fix .

types: $(STAMPS)/tests  ## check the package's annotations (settings in pyproject.toml)
	$(BIN)/python -m mypy

coverage: $(STAMPS)/tests  ## run the quick tests, and list the lines that none of them runs
	$(BIN)/python -m coverage run -m pytest -q -m 'not slow' $(PYTEST_ARGS)
	$(BIN)/python -m coverage report --show-missing

docs: $(STAMPS)/docs  ## build the documentation in docs/_build/html
	$(BIN)/python -m sphinx -q -W --keep-going docs docs/_build/html
	@echo 'docs/_build/html/index.html'

wheel: $(STAMPS)/tests  ## build dist/*.tar.gz, and from it dist/*.whl
	$(BIN)/python -m build --no-isolation

clean:  ## remove the environment and all build results; keep data/ and work_dirs/
	rm -rf $(VENV) build dist mmpanet.egg-info mmpanet/.mim .pytest_cache .ruff_cache .mypy_cache .coverage docs/_build docs/copied

# Setup. A stamp file is up to date if it is newer than the files that list what to install.

$(BIN)/python:
	@command -v $(PYTHON) > /dev/null || { echo 'make: no $(PYTHON) on the PATH; name one: make PYTHON=python3.11' >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info < (3, 13))' || { \
	    echo 'make: torch 2.13 and mmcv 2.1 need Python 3.10, 3.11 or 3.12, and $(PYTHON) is' "$$($(PYTHON) -V 2>&1);" \
	         'name another: make PYTHON=python3.11' >&2; exit 1; }
	@echo '== environment $(VENV)'
	@$(PYTHON) -m venv $(VENV) || { \
	    echo 'make: $(PYTHON) could not make an environment; on Debian and Ubuntu: apt-get install python3-venv' >&2; exit 1; }

$(STAMPS)/environment: requirements/environment.txt requirements/build.txt requirements/runtime.txt requirements/mim.txt \
                       tools/install/install_mmcv.py | $(BIN)/python
	@echo '== torch, mmengine, mmdet, mim (requirements/environment.txt)'
	@$(BIN)/python -m pip install --disable-pip-version-check -r requirements/environment.txt
	@echo '== mmcv'
	@$(BIN)/python tools/install/install_mmcv.py
	@mkdir -p $(STAMPS) && touch $@

$(STAMPS)/package: setup.py setup.cfg pyproject.toml mmpanet/version.py tools/install/editable.py \
                   $(STAMPS)/environment
	@echo '== mmpanet'
	@$(BIN)/python tools/install/editable.py
	@$(BIN)/python -m pip check
	@touch $@

$(STAMPS)/tests: requirements/tests.txt $(STAMPS)/package
	@echo '== packages for the tests (requirements/tests.txt)'
	@$(BIN)/python -m pip install --disable-pip-version-check -r requirements/tests.txt
	@touch $@

$(STAMPS)/docs: requirements/docs.txt $(STAMPS)/package
	@echo '== packages for the documentation (requirements/docs.txt)'
	@$(BIN)/python -m pip install --disable-pip-version-check -r requirements/docs.txt
	@touch $@

# Training. It runs again if the code, the config or the data have changed.

$(DATA)/.made: $(DATA_SOURCES) | $(STAMPS)/package
	@echo '== dataset $(DATA)'
	@$(BIN)/python tools/dataset_converters/make_shapes.py $(DATA)
	@touch $@

# On a CPU, two processes with half of the cores and of the batch each take 0.81 of the time of one (docs/speed.md).
# This suits the small model that CONFIG names by default, which has no BN; another CONFIG is trained as it stands.
$(FINISHED): $(SOURCES) $(wildcard $(CONFIG)) $(DATA)/.made | $(STAMPS)/package
	@echo '== training $(CONFIG)'
	@export PYTHONWARNINGS='ignore:pkg_resources is deprecated,ignore:The module torch.distributed.launch is deprecated'; \
	    cores=$$($(BIN)/python -c '$(CPU_CORES)'); \
	    if [ '$(IS_DEFAULT)' ] && [ "$$cores" -gt 1 ]; then \
	        export OMP_NUM_THREADS="$${OMP_NUM_THREADS:-$$((cores / 2))}"; \
	        export MKL_NUM_THREADS="$${MKL_NUM_THREADS:-$$OMP_NUM_THREADS}"; \
	        set -- --launcher pytorch --gpus 2 --cfg-options train_dataloader.batch_size=2; \
	    fi; \
	    $(BIN)/mim train mmpanet $(if $(IS_DEFAULT),$(notdir $(CONFIG)),$(CONFIG)) --work-dir $(WORK_DIR) "$$@"
	@rm -f $(WORK_DIR)/finished*
	@touch $@
