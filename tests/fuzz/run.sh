#!/bin/sh
# Requests generated from the service's own description (schemathesis), against a service on the
# database of DATABASE_URL: run.sh ROWLOCK. N is how many a route, SEED which.
set -eu
cd "$(dirname "$0")/../.."
rowlock=$1
folder=target/fuzz
requirements=tests/fuzz/requirements.txt

if ! cmp -s "$requirements" "$folder/requirements.txt"; then
    tools/python.sh "$folder" "$requirements"
    cp "$requirements" "$folder/requirements.txt"
fi

ROWLOCK_TOKEN=fuzz "$rowlock" serve --listen 127.0.0.1:0 --pool-size 8 \
    >"$folder/service.out" 2>"$folder/service.log" &
service=$!
trap 'kill "$service" 2>/dev/null || true' EXIT
tries=0
until url=$(sed -n 's/^listening on //p' "$folder/service.out") && [ -n "$url" ]; do
    tries=$((tries + 1))
    if [ "$tries" -gt 600 ] || ! kill -0 "$service"; then
        cat "$folder/service.log" >&2
        exit 1
    fi
    sleep 0.1
done

SCHEMATHESIS_HOOKS=tests/fuzz/hooks.py "$folder/bin/schemathesis" \
    --config-file tests/fuzz/schemathesis.toml run "$url/openapi.json" \
    --header "Authorization: Bearer fuzz" --seed "${SEED:-1}" --max-examples "${N:-100}"

# A panic is answered, and an invariant may break behind good answers.
if grep -n "panicked" "$folder/service.log"; then exit 1; fi
"$rowlock" verify
