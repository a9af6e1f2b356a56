# Verbs for people; `make` alone lists them.

SHELL := /bin/sh
TARGET := $(or $(CARGO_TARGET_DIR),target)

# cargo may be installed and yet not on the PATH of this shell.
export PATH := $(PATH):$(HOME)/.cargo/bin

# Under a new HOME rustup's cargo finds no toolchain, unless told where it was installed.
RUSTUP_BESIDE := $(shell cargo=$$(command -v cargo) && cd "$$(dirname "$$cargo")/../../.rustup" 2>/dev/null && pwd)
ifeq ($(RUSTUP_HOME)$(wildcard $(HOME)/.rustup/toolchains),)
ifneq ($(RUSTUP_BESIDE),)
export RUSTUP_HOME := $(RUSTUP_BESIDE)
endif
endif

.PHONY: help setup build run test chaos fuzz bench fmt lint deny doc clean
.DEFAULT_GOAL := help

help: ## This list
	@sed -n 's/^\([a-z]*\):[^#]*## \(.*\)/\1|\2/p' $(MAKEFILE_LIST) | awk -F'|' '{ printf "make %-7s %s\n", $$1, $$2 }'

setup: ## Find or fetch what building and testing need (PG=18: that Postgres)
	@tools/setup.sh $(PG)

build: setup ## The release binary, target/release/rowlock
	cargo build --release

run: setup ## The demo pipeline (ONCE=1: until it is done; INPUT=path)
	cargo build --release --bin rowlock --example pipeline
	@$(TARGET)/release/examples/pipeline $(if $(ONCE),--once) $(if $(INPUT),--input "$(INPUT)")

test: setup ## All tests, on a Postgres of their own (PG=18: on that one; T=name: some)
	cargo build --bins --examples
	@tools/with-postgres.sh $(TARGET)/debug/rowlock "$(PG)" -- tools/test.sh $(T)

chaos: setup ## The ledger checker (JOBS=1000000 FAULTS=1500 SEED=7; MUTANT=name; REPORT=file; PG=18)
	cargo build --release --bin rowlock
	@ROWLOCK_PG_BIN=$$(tools/postgres.sh $(PG)) cargo test --release --quiet --test chaos -- \
		$(if $(JOBS),--jobs $(JOBS)) $(if $(FAULTS),--faults $(FAULTS)) $(if $(SEED),--seed $(SEED)) \
		$(if $(MUTANT),--mutant $(MUTANT)) $(if $(REPORT),--report $(REPORT))

fuzz: setup ## Requests made from /openapi.json (N=examples a route, SEED=number)
	cargo build --bins
	@N="$(N)" SEED="$(SEED)" tools/with-postgres.sh $(TARGET)/debug/rowlock "$(PG)" -- tests/fuzz/run.sh $(TARGET)/debug/rowlock

bench: setup ## The benches, on a durable Postgres of their own (PG=18; ROW=name: one row)
	cargo build --release
	@ROW="$(ROW)" tools/with-postgres.sh $(TARGET)/release/rowlock "$(PG)" --durable -- cargo bench --bench bench

fmt: ## Format the source
	cargo fmt

lint: ## Format check and clippy, warnings denied
	cargo fmt --check
	cargo clippy --all-targets -- -D warnings
	cargo clippy --test chaos -- -D warnings

deny: ## Licences and sources of all crates, against deny.toml
	@tools/deny.sh

doc: ## Documentation of the library, in target/doc
	RUSTDOCFLAGS="-D warnings" cargo doc --no-deps

clean: ## Remove build results; clusters and caches stay
	cargo clean
