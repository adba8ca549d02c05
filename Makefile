# The verbs of this repository. Each sets up what it needs: a virtual environment in .venv and, in it, the extension
# module built from crates/. Nothing outside this folder is changed.
#
#   PYTHON=python3.12 make test    another interpreter (delete .venv first)
#   make demo ARGS="--help"        arguments for the program behind the verb

.DEFAULT_GOAL := help
.PHONY: help demo test pythons lint bench sim wheel fuzz chaos
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory

# rustup installs here; a shell opened before that does not know it yet.
export PATH := $(PATH):$(HOME)/.cargo/bin
# One interpreter for every build, so that cargo and maturin share what they compiled for it.
export PYO3_PYTHON := $(CURDIR)/.venv/bin/python
export VIRTUAL_ENV := $(CURDIR)/.venv
export PIP_DISABLE_PIP_VERSION_CHECK := 1

BIN := .venv/bin
# With a terminal cargo draws its progress; without one only warnings and errors are worth a log's lines.
QUIET := $$([ -t 2 ] || printf %s --quiet)
# In CI the lock file must already be right; elsewhere cargo brings it up to date.
LOCKED := $(if $(CI),--locked)
RUST := $(shell find Cargo.toml Cargo.lock crates migrations -not -path '*/target/*' 2>/dev/null)
SAY = @printf '== %s\n'

help: ## This list
	@printf 'make demo    process 500 orders while workers are killed and stopped; shows that nothing was lost\n'
	@printf 'make test    the Rust and the Python tests\n'
	@printf 'make pythons a fast part of the Python tests on each other Python of this machine\n'
	@printf 'make lint    formatting, clippy, ruff, pyright, the stubs and the rules of the architecture\n'
	@printf 'make fuzz    the fuzz targets with fresh cases for MINUTES (10)\n'
	@printf 'make bench   the workloads and the limits of this machine; BENCH_OUT=file keeps the figures\n'
	@printf 'make sim     the simulator: SEEDS=100000 START=1, one in full with SEED=123; DISK=1: over SQLite\n'
	@printf 'make chaos   8 workers on a Postgres server: kills, stops, crashes, cut connections; RUNS=20000 MINUTES=5 SEED=1\n'
	@printf 'make wheel   the wheel in dist/, tried in a clean environment of each Python found\n'

demo: .venv/.extension
	@$(BIN)/duramen demo $(ARGS)

test: .venv/.extension .venv/.tools .venv/.pgbouncer
	$(SAY) "cargo test"
	@$(BIN)/python tools/with_postgres.py cargo test --workspace $(LOCKED) $(QUIET)
	$(SAY) "pytest"
	@$(BIN)/python tools/python_tests.py $(ARGS)

pythons: .venv/.extension
	@$(BIN)/python tools/other_pythons.py $(ARGS)

# All of them run, so that one log shows everything there is to repair.
lint: .venv/.extension .venv/.tools
	@failed=; \
	check() { name=$$1; shift; printf '== %s\n' "$$name"; "$$@" || failed="$$failed, $$name"; }; \
	check "cargo fmt" cargo fmt --all --check; \
	check "cargo clippy" cargo clippy --workspace --all-targets $(LOCKED) $(QUIET) -- -D warnings; \
	check "ruff format" $(BIN)/ruff format --check .; \
	check "ruff check" $(BIN)/ruff check .; \
	check "pyright" $(BIN)/pyright; \
	check "stubtest" $(BIN)/python -m mypy.stubtest duramen._native; \
	check "architecture" $(BIN)/python -m pytest --quiet tests/architecture; \
	[ -z "$$failed" ] || { printf 'lint failed: %s\n' "$${failed#, }"; exit 1; }

# The tests run the same targets, briefly and with the same cases each time.
fuzz: .venv/.extension .venv/.tools
	@$(BIN)/python tools/fuzz.py --minutes $(or $(MINUTES),10)

chaos: .venv/.extension .venv/.tools
	@$(BIN)/python tools/chaos.py --runs $(or $(RUNS),20000) --minutes $(or $(MINUTES),5) $(if $(SEED),--seed $(SEED)) $(ARGS)

bench: .venv/.extension .venv/.tools
	@$(BIN)/python benches/run.py $(ARGS)

sim:
	@cargo run --release -p duramen-sim $(LOCKED) $(QUIET) -- $(if $(SEED),--seed $(SEED),--seeds $(or $(SEEDS),10000) --start $(or $(START),1)) $(if $(DISK),--disk $(DISK)) $(ARGS)

wheel: .venv/.python
	@rm -rf dist
	$(SAY) "maturin build"
	@$(BIN)/maturin build --release $(LOCKED) --out dist $(QUIET)
	@$(BIN)/python tools/try_wheel.py dist

# Files the verbs depend on; each is a stamp with the time of the work it stands for.

.venv/.python: pyproject.toml
	@sh tools/preflight.sh
	$(SAY) "Python environment in .venv"
	@[ -x $(BIN)/python ] || "$$(sh tools/preflight.sh python)" -m venv .venv
	@$(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1'
	@$(BIN)/python -m pip install --quiet --group build
	@touch $@

.venv/.extension: .venv/.python $(RUST)
	$(SAY) "Building the extension module (a few minutes the first time)"
	@PIP_QUIET=1 $(BIN)/maturin develop --release --group build $(LOCKED) $(QUIET)
	@touch $@

# For the tests through a pooler; where it cannot be had they are skipped and say why.
.venv/.pgbouncer: .venv/.python tools/pgbouncer.sh
	@sh tools/pgbouncer.sh .venv/pgbouncer
	@touch $@

.venv/.tools: .venv/.python
	$(SAY) "Tools for tests and checks"
	@$(BIN)/python -m pip install --quiet --group dev
	@touch $@
