# LoKr Bench. `make` lists what there is to do.
#
# Every target builds its own environment in .venv first, once.
#   STUDY=quickstart   the study to run, list or summarize (see `make list`)
#   DEVICE=auto        auto, cpu or cuda
#   LANES=             trials side by side on one base; empty: chosen for the device
#   DATA=              folder of GLUE parquet, <DATA>/<task>/*.parquet; empty: the hub
#   ARGS=              anything else for `python -m experiments run`, such as ARGS="--limit 8"
#   PYTHON=python3     the interpreter that makes .venv (3.11 or newer)
#   PIP_ARGS=          for pip; a CPU-only Linux machine saves gigabytes with PyTorch's CPU index:
#                      PIP_ARGS="--index-url CPU --extra-index-url PYPI", with the address of that
#                      index from PyTorch's installation guide, and of PyPI's simple index

STUDY ?= quickstart
DEVICE ?= auto
LANES ?=
DATA ?=
ARGS ?=
PYTHON ?= python3
PIP_ARGS ?=

BIN := .venv/bin
SETUP := .venv/.ready
TEST_SETUP := .venv/.ready-test
DASHBOARDS_SETUP := .venv/.ready-dashboards
RUN_FLAGS := --device $(DEVICE) $(if $(LANES),--lanes $(LANES)) $(if $(DATA),--data $(DATA)) $(ARGS)
PYTEST_WORKERS ?= 2

.DEFAULT_GOAL := help
NAMED := $(if $(filter command line environment,$(origin STUDY)),$(STUDY))
.PHONY: help setup sweep list status summary report figures tables paper dashboards cost bench \
	emoji-base test lint format clean

help:  ## this list
	@sed -n '/^#/!q; s/^# \{0,1\}//p' Makefile
	@grep -E '^[a-z-]+:.*##' Makefile | sed -E 's/:.*## /\t/' | awk -F'\t' '{printf "  make %-11s %s\n", $$1, $$2}'

setup: $(SETUP)  ## make the environment in .venv

sweep: $(SETUP)  ## run a study (STUDY=quickstart) and show its table and figure; again: only what is left
	$(BIN)/python -m experiments run $(STUDY) $(RUN_FLAGS)
	$(BIN)/python -m analysis summary $(STUDY)

list: $(SETUP)  ## the studies; with STUDY=name: its cells, trials and estimated work
	$(BIN)/python -m experiments list $(NAMED)

status: $(SETUP)  ## what is finished and what is left of STUDY
	$(BIN)/python -m experiments status $(STUDY)

summary: $(SETUP)  ## table and figure of STUDY's results
	$(BIN)/python -m analysis summary $(STUDY)

report: $(SETUP)  ## results/report.html: what to set and how sure that is, charts, every trial; opens offline (with STUDY=name: of that one)
	$(BIN)/python -m analysis report $(addprefix --study ,$(NAMED))

figures: $(SETUP)  ## every figure as PDF and PNG (with STUDY=name: of that one)
	$(BIN)/python -m analysis figures $(NAMED)

tables: $(SETUP)  ## every table as CSV, Markdown and LaTeX (with STUDY=name: of that one)
	$(BIN)/python -m analysis tables $(NAMED)

paper: $(SETUP)  ## paper/: figures, tables, macros of every number, and two pages where LaTeX is installed
	$(BIN)/python -m analysis paper

dashboards: $(DASHBOARDS_SETUP)  ## Weights & Biases: a workspace and a report as code (ARGS=--dry-run: only show them)
	$(BIN)/python -m experiments dashboards $(NAMED) $(ARGS)

bench: $(TEST_SETUP)  ## ours beside peft, LyCORIS and the frozen base: layer, step, sweep (on a CPU in small)
	$(BIN)/python -m experiments bench all --device $(DEVICE) $(if $(DATA),--data $(DATA))

cost: $(SETUP)  ## what one trial of each cell of STUDY costs when it trains alone, on a GPU that is idle
	$(BIN)/python -m experiments cost $(STUDY) --device $(DEVICE) $(if $(DATA),--data $(DATA)) $(ARGS)

emoji-base: $(SETUP)  ## train the base of the emoji tasks anew, on a GPU: about ten minutes
	$(BIN)/python -m experiments.tasks.emoji.pretrain --out experiments/tasks/emoji/base --device $(DEVICE) $(ARGS)

test: $(TEST_SETUP)  ## the tests, against the real peft and lycoris
	$(BIN)/python -m pytest -n $(PYTEST_WORKERS)

lint: $(TEST_SETUP)  ## ruff, and mypy --strict on lokr
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(TEST_SETUP)  ## let ruff rewrite what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:  ## remove the environment and caches; results stay
	rm -rf .venv build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis

# torch comes first and by itself, so that pip takes the pinned build and asks for no other.
$(SETUP): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt $(PIP_ARGS) torch
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt $(PIP_ARGS) -e ".[bench]"
	@touch $@

$(TEST_SETUP): $(SETUP)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt $(PIP_ARGS) -e ".[bench,test]"
	@touch $@

$(DASHBOARDS_SETUP): $(SETUP)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt $(PIP_ARGS) -e ".[bench,dashboards]"
	@touch $@
