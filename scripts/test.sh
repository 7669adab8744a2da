#!/usr/bin/env bash
# Install with the extras under test and run the suite: bash scripts/test.sh [pytest options]
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/setup_env.sh

began=$SECONDS
need_debian_packages Xvfb=xvfb xdotool=xdotool  # the review window is driven by keys and clicks
install_autolabel test,swin,onnx,waymo,distributed
installed=$SECONDS
say "tests (install took $((installed - began)) s)"
.venv/bin/ruff check .
.venv/bin/ruff format --check .
.venv/bin/mypy
.venv/bin/python -m pytest "$@"
echo "time: install $((installed - began)) s, checks and tests $((SECONDS - installed)) s"
