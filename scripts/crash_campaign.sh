#!/usr/bin/env bash
# Kills the real server so many times under mixed load, and keeps what that showed in docs/campaigns/crash.md.
#
#   scripts/crash_campaign.sh [KILLS [SEED]]        default: 1000 kills, seed 1
set -euo pipefail
cd "$(dirname "$0")/.."
kills=${1:-1000}
seed=${2:-1}
said=$(CALLVAULT_KILLS=$kills CALLVAULT_SEED=$seed cargo test --release --test cli crash -- --nocapture | tee /dev/stderr | grep ' kills, seed ')
mkdir -p docs/campaigns
[ -f docs/campaigns/crash.md ] || printf '# Kills of the real server under load\n\n`scripts/crash_campaign.sh KILLS SEED`, a line a run.\n\n' > docs/campaigns/crash.md
printf -- '- %s, %s (%s, %s processors): %s\n' "$(date -u +%F)" "$(git rev-parse --short HEAD)" "$(uname -sm)" "$(nproc)" "$said" >> docs/campaigns/crash.md
