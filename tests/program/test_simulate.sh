#!/usr/bin/env bash
# run: label nightly timeout 600
# The simulator of messages, against times in closed form, and on the messages of a plan. Skipped where
# its package is not installed.
set -euo pipefail
"$BCOP_SOURCE_DIR/bench/simulate.py" --check
cd -- "$(mktemp -d)"
for ranks in 2 5 8; do
    "$BCOP" plan "$BCOP_SOURCE_DIR/configs/dense-1024.yaml" --ranks "$ranks" --pattern steps
    "$BCOP_SOURCE_DIR/bench/simulate.py" steps | grep "^$ranks ranks"
done
rm -r -- "$PWD"
