#!/bin/sh
# Makes a fresh machine ready to build and test: looks for cargo, finds or fetches Postgres, and
# PgBouncer for the tests.
# Quick when everything is there, so that every make verb can begin with it.
set -eu
cd "$(dirname "$0")/.."

PATH=$PATH:$HOME/.cargo/bin
if ! command -v cargo >/dev/null; then
    echo "setup: no cargo; install Rust with rustup, then try again" >&2
    exit 1
fi
if ! cargo --version >/dev/null 2>&1; then
    echo "setup: cargo is there but does not run; its own words:" >&2
    cargo --version >&2 || true
    echo "setup: with rustup under another HOME, set RUSTUP_HOME; or run 'rustup default stable'" >&2
    exit 1
fi
if ! command -v cc >/dev/null; then
    echo "setup: no C compiler to link with; install gcc or clang (build-essential on Debian)" >&2
    exit 1
fi

bin_dir=$(tools/postgres.sh "$@")
tools/pgbouncer.sh >/dev/null || true
echo "setup: $(cargo --version | cut -d' ' -f1-2), $("$bin_dir/postgres" --version | cut -d' ' -f1-3) in $bin_dir"
