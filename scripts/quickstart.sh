#!/usr/bin/env bash
# From a clean clone to labels, a student and an image: bash scripts/quickstart.sh
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/setup_env.sh

began=$SECONDS
install_autolabel
installed=$SECONDS

rm -rf runs/quickstart
.venv/bin/python scripts/demo.py --out runs/quickstart
finished=$SECONDS

echo "time     install $((installed - began)) s, demo $((finished - installed)) s"
