#!/usr/bin/env bash
# examples/python against a real server whose connections are cut and which is killed: the recording must come back equal.
# Needs python3 (3.11 or later); installs what the example needs into target/ci/python.
set -euo pipefail
cd "$(dirname "$0")/.."

lib=target/ci/python/lib stubs=target/ci/python/stubs
export PYTHONPATH="$PWD/$lib${PYTHONPATH:+:$PYTHONPATH}"
python3 -c 'import grpc_tools, google_crc32c, google.rpc' 2>/dev/null \
    || python3 -m pip install --quiet --upgrade --target "$lib" -r examples/python/requirements.txt

mkdir -p "$stubs"
python3 -m grpc_tools.protoc -I proto --python_out="$stubs" --grpc_python_out="$stubs" proto/callvault/v1/*.proto
# The binary as `cargo test` has built it: `cargo build` would build all libraries once more, with other features.
cargo test --quiet --test cli --no-run
python3 scripts/python_example.py target/debug/callvault "$stubs"
