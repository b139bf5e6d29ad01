#!/usr/bin/env bash
# The protos may only grow: API and stored formats are compared with proto/baseline.binpb, which says what they were when they
# last grew. Not with a commit: what landed last is not to be told from a history with merges.
#
#   scripts/proto_baseline.sh           fails if something that was is gone or changed, or something new is not in the baseline
#   scripts/proto_baseline.sh --grow    takes up what is new; still refuses what is gone or changed
#
# BUF names the program; without it, target/ci's or the path's.
set -euo pipefail
cd "$(dirname "$0")/.."
baseline=proto/baseline.binpb
buf=${BUF:-target/ci/node_modules/.bin/buf}
command -v "$buf" >/dev/null 2>&1 || buf=buf

"$buf" breaking --against "$baseline"
if [ "${1:-}" = --grow ]; then
    "$buf" build --exclude-source-info -o "$baseline"
elif ! "$buf" breaking "$baseline" --against . >/dev/null; then
    echo "the protos have grown: run scripts/proto_baseline.sh --grow and commit $baseline" >&2
    exit 1
fi
