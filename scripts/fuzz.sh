#!/usr/bin/env bash
# Fuzzes every target, or the one named, for so many seconds each. What is found lies in fuzz/artifacts.
#
#   scripts/fuzz.sh [SECONDS [TARGET...]]        default: 60 seconds, all targets
#
# Without sanitizers: the package forbids unsafe code, so that a finding is a panic, a hang or too much memory.
set -euo pipefail
cd "$(dirname "$0")/.."
seconds=${1:-60}
shift || true
targets=("$@")
[ ${#targets[@]} -gt 0 ] || mapfile -t targets < <(cd fuzz/targets && ls | sed 's/\.rs$//')

command -v cargo-fuzz >/dev/null 2>&1 || cargo install --quiet --locked cargo-fuzz@0.13.2
rustup toolchain list | grep -q ^nightly || rustup toolchain install nightly --profile minimal

cargo +nightly fuzz build --sanitizer none
for target in "${targets[@]}"; do
    mkdir -p "fuzz/corpus/$target"
    printf '\n=== %s for %d s\n' "$target" "$seconds"
    cargo +nightly fuzz run --sanitizer none "$target" "fuzz/corpus/$target" "fuzz/seeds/$target" -- \
        -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 -max_len=262144 -print_final_stats=1
done
