#!/usr/bin/env bash
# run: label nightly timeout 600
# The baseline of the benchmarks: layers of the paper's procedure against their definition. Skipped where its packages are not installed.
set -euo pipefail
exec "$BCOP_SOURCE_DIR/bench/paper.py" --check
