#!/usr/bin/env bash
# run: label nightly timeout 600
# The simulator of messages, against times in closed form. Skipped where its packages are not installed.
set -euo pipefail
exec "$BCOP_SOURCE_DIR/bench/simulate.py" --check
