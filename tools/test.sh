#!/bin/sh
# The test runner: nextest where it is installed, else cargo's own, which runs one binary at a time.
# Where no tests were named, the ledger checker follows, on a cluster of its own.
set -eu
named=${1:-}
failed=0
if ! "$(dirname "$0")/pgbouncer.sh" >/dev/null; then
    echo "test: the tests through a PgBouncer (tests/it/pooler.rs) are LEFT OUT" >&2
    set -- "$@" -- --skip pooler::
fi
if cargo nextest --version >/dev/null 2>&1; then
    cargo nextest run --no-fail-fast "$@" || failed=1
else
    cargo test --no-fail-fast "$@" || failed=1
fi
if [ -z "$named" ]; then
    cargo test --quiet --test chaos || failed=1
fi
exit "$failed"
