#!/usr/bin/env bash
# Install with the extras under test and run the suite: bash scripts/test.sh [pytest options]
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/setup_env.sh

began=$SECONDS
# the review window is driven by keys and clicks, pages are opened in a browser
need_debian_packages Xvfb=xvfb xdotool=xdotool chromium=chromium
install_autolabel test,browser,swin,onnx,waymo,distributed
installed=$SECONDS
say "tests (install took $((installed - began)) s)"
.venv/bin/ruff check .
.venv/bin/ruff format --check .
if [ $# -gt 0 ]; then
    .venv/bin/mypy
    .venv/bin/python -m pytest "$@"
else
    # two processes, since most tests keep one core busy; whatever starts Ray is in the first
    log=$(mktemp)
    .venv/bin/python -m pytest tests/autolabel tests/models >"$log" 2>&1 &
    half=$!
    trap 'kill "$half" 2>/dev/null || true; rm -f "$log"' EXIT
    failed=0
    .venv/bin/mypy || failed=1
    .venv/bin/python -m pytest --ignore=tests/autolabel --ignore=tests/models || failed=1
    wait "$half" || failed=1
    cat "$log"
    [ "$failed" = 0 ]
fi
echo "time: install $((installed - began)) s, checks and tests $((SECONDS - installed)) s"
