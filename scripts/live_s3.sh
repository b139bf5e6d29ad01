#!/usr/bin/env bash
# The promises of a blob store, held against moto (an S3 server in Python that is not ours): buckets that keep versions
# and buckets that do not. Needs python3; installs moto into target/ci/moto unless `moto_server` is there already.
set -euo pipefail
cd "$(dirname "$0")/.."

server=$(command -v moto_server || true)
if [ -z "$server" ] || ! "$server" --help >/dev/null 2>&1; then
    python3 -m pip install --quiet --target target/ci/moto 'moto[server]>=5.2,<6'
    export PYTHONPATH="$PWD/target/ci/moto${PYTHONPATH:+:$PYTHONPATH}"
    server="python3 -m moto.server"
fi

port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
export CALLVAULT_S3_ENDPOINT="http://127.0.0.1:$port"
log=$(mktemp)
$server -H 127.0.0.1 -p "$port" >"$log" 2>&1 &
moto=$!
trap 'kill "$moto" 2>/dev/null || true; rm -f "$log"' EXIT

for _ in $(seq 100); do
    python3 -c "import socket; socket.create_connection(('127.0.0.1', $port), 1)" 2>/dev/null && break
    kill -0 "$moto" 2>/dev/null || { cat "$log"; exit 1; }
    sleep 0.2
done

# Not all at once: the server is one process of Python, and timeouts are part of what is tested.
cargo test --lib blob::s3::tests::live -- --ignored --test-threads 4 "$@" || { tail -50 "$log"; exit 1; }
