#!/bin/sh
# The test runner: nextest where it is installed, else cargo's own, which runs one binary at a time.
set -eu
if ! "$(dirname "$0")/pgbouncer.sh" >/dev/null; then
    echo "test: the tests through a PgBouncer (tests/it/pooler.rs) are LEFT OUT" >&2
    set -- "$@" -- --skip pooler::
fi
if cargo nextest --version >/dev/null 2>&1; then
    exec cargo nextest run --no-fail-fast "$@"
fi
exec cargo test --no-fail-fast "$@"
