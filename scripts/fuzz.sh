#!/usr/bin/env bash
# Fuzzes every target, or the one named, for so many seconds each. What is found lies in fuzz/artifacts.
#
#   scripts/fuzz.sh [SECONDS [TARGET...]]        default: 60 seconds, all targets
#
# Without sanitizers: the package forbids unsafe code, so that a finding is a panic, a hang or too much memory. So no nightly
# compiler is needed either.
set -euo pipefail
cd "$(dirname "$0")/.."
seconds=${1:-60}
shift || true
targets=("$@")
[ ${#targets[@]} -gt 0 ] || mapfile -t targets < <(cd fuzz/targets && ls | sed 's/\.rs$//')

command -v cargo-fuzz >/dev/null 2>&1 || cargo install --quiet --locked cargo-fuzz@0.13.2
command -v c++ >/dev/null 2>&1 || { apt-get update -q && apt-get install -qy g++; }

cargo fuzz build --sanitizer none --codegen-units 16
for target in "${targets[@]}"; do
    mkdir -p "fuzz/corpus/$target"
    printf '\n=== %s for %d s\n' "$target" "$seconds"
    cargo fuzz run --sanitizer none --codegen-units 16 "$target" "fuzz/corpus/$target" "fuzz/seeds/$target" -- \
        -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 -max_len=262144 -print_final_stats=1
done
