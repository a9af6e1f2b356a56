#!/bin/sh
# Runs a command with a cluster of its own: with-postgres.sh ROWLOCK MAJOR [--durable] -- COMMAND...
# MAJOR may be empty for whatever version tools/postgres.sh prefers.
set -eu
rowlock=$1
major=$2
shift 2

ROWLOCK_PG_BIN=$("$(dirname "$0")/postgres.sh" $major)
export ROWLOCK_PG_BIN
exec "$rowlock" postgres run "$@"
