#!/usr/bin/env bash
# The promises of a blob store, held against moto (an S3 server in Python that is not ours): buckets that keep versions
# and buckets that do not; then a vault whose credentials may do what the policy of docs/operations.md says, and no more. The promises
# of a root in AWS KMS, which moto speaks as well.
# Needs python3; installs moto into target/ci/moto unless `moto_server` is there already.
#
#   scripts/live_s3.sh              the tests
#   scripts/live_s3.sh COMMAND...   runs a command with `moto_server` on its path instead
set -euo pipefail
cd "$(dirname "$0")/.."

if ! moto_server --help >/dev/null 2>&1; then
    python3 -m pip install --quiet --target target/ci/moto 'moto[server]>=5.2,<6'
    export PYTHONPATH="$PWD/target/ci/moto${PYTHONPATH:+:$PYTHONPATH}" PATH="$PWD/target/ci/bin:$PATH"
    mkdir -p target/ci/bin
    printf '#!/bin/sh\nexec python3 -m moto.server "$@"\n' >target/ci/bin/moto_server
    chmod +x target/ci/bin/moto_server
fi
if [ $# -gt 0 ]; then
    exec "$@"
fi

place=$(mktemp -d)
servers=()
trap 'kill "${servers[@]}" 2>/dev/null || true; rm -rf "$place"' EXIT

serve() { # name, command before the port: a server whose address is in `endpoint`
    local name=$1 port
    shift
    port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
    "$@" "$port" >"$place/$name.log" 2>&1 &
    servers+=($!)
    for _ in $(seq 100); do
        python3 -c "import socket; socket.create_connection(('127.0.0.1', $port), 1)" 2>/dev/null && break
        kill -0 "$!" 2>/dev/null || { cat "$place/$name.log"; exit 1; }
        sleep 0.2
    done
    endpoint="http://127.0.0.1:$port"
}

serve open moto_server -H 127.0.0.1 -p
export CALLVAULT_S3_ENDPOINT=$endpoint CALLVAULT_KMS_ENDPOINT=$endpoint
serve guarded python3 scripts/guarded_s3.py serve
export CALLVAULT_S3_GUARDED=$endpoint CALLVAULT_S3_GUARDED_DIR=$place
python3 scripts/guarded_s3.py prepare "$endpoint" "$place"

# Not all at once: the server is one process of Python, and timeouts are part of what is tested.
cargo test --lib "${LIVE:-tests::live}" -- --ignored --test-threads 4 || { cat "$place"/*.log | tail -n 100; exit 1; }
