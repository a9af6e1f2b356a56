#!/bin/sh
# The test runner: nextest where it is installed, else cargo's own, which runs one binary at a time.
set -eu
if cargo nextest --version >/dev/null 2>&1; then
    exec cargo nextest run --no-fail-fast "$@"
fi
exec cargo test --no-fail-fast "$@"
