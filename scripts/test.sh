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
.venv/bin/mypy
.venv/bin/python -m pytest "$@"
echo "time: install $((installed - began)) s, checks and tests $((SECONDS - installed)) s"
