# Two commands for a new user: `make demo` and `make test`. Each does all the set-up that it needs.
.DEFAULT_GOAL := help
.PHONY: help setup demo test slow drill check format lock clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: ## Python 3.12, uv, .venv from requirements.lock, Debian's SLURM
	@.ci/setup

demo: setup ## the whole job on real text; ends by printing where report.html is
	@.venv/bin/cpt demo

test: setup ## the tests; those with a real SLURM skip themselves without root
	@.venv/bin/pytest -n 2 --dist loadscope --no-loadscope-reorder -q

slow: setup ## the tests that take minutes each
	@.venv/bin/pytest -m slow -q

drill: setup ## every fault on a real SLURM, one after the other; leaves the times in docs/drill.md
	@DRILL_TABLE=docs/drill.md .venv/bin/pytest -q -s tests/slurm/test_faults.py
	@DRILL_TABLE=docs/drill.md .venv/bin/pytest -q -s -m slow tests/end_to_end/test_engine_faults.py

check: setup ## format, lint, types, import contracts, shell
	@.ci/check

format: setup ## rewrite the code as `make check` wants it
	@.venv/bin/ruff check --fix-only --quiet . && .venv/bin/ruff format --quiet .

LOCKED := data train evaluate tracking sweepers demo dev
UV := $(shell command -v uv || echo .uv/bin/uv)
lock: setup ## renew requirements.lock after a change to pyproject.toml (UPGRADE=--upgrade takes newer versions)
	@$(UV) pip compile pyproject.toml --python .venv/bin/python $(LOCKED:%=--extra %) --no-header --no-annotate $(UPGRADE) -o requirements.lock --quiet

clean: ## remove .venv and every cache; runs/ stays
	rm -rf .venv .uv .setup.log .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis build *.egg-info
