#!/bin/sh
# Measures the service as a whole and prints the tables of docs/performance.md: CPU through S3 beside its parts, messages, memory,
# fairness. About ten minutes on a quiet machine, after building. Arguments choose: s3 messages memory fairness.
#
#   scripts/bench_service.sh                      all of it
#   CALLVAULT_BENCH_SHORT=1 scripts/bench_service.sh      a fifth as long, to see that it runs
#   CALLVAULT_BENCH_DIR=/mnt/disk scripts/bench_service.sh     index and spool on another disk
set -eu
cd "$(dirname "$0")/.."
cargo build --release --quiet --bench service

# 2,000 calls are as many streams, spool files and journals.
ulimit -n "$(ulimit -H -n)"

echo "Machine: $(nproc) x$(sed -n 's/^model name[^:]*://p' /proc/cpuinfo | head -n 1), $(awk '/^MemTotal/ {printf "%.0f GiB", $2 / 1048576}' /proc/meminfo), load before $(cut -d ' ' -f 1-3 /proc/loadavg), $(date -u +%Y-%m-%d), $(git rev-parse --short HEAD)"
echo
exec cargo bench --quiet --bench service -- "$@"
