#!/usr/bin/env bash
# From a clean clone to labels, a student and a picture: bash scripts/quickstart.sh
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/setup_env.sh

began=$SECONDS
install_autolabel
installed=$SECONDS

python=.venv/bin/python
out=runs/quickstart
rm -rf "$out"

say "1/4 Label the city's unlabelled scenes with the shipped teacher"
$python autolabel/run.py --split unlabeled --store $out/labels.zarr

say "2/4 Train a camera-only student on these labels and the labelled scenes"
$python scripts/train_student.py --labels $out/labels.zarr --labelled-split labeled \
    --steps 150 --out $out/student

say "3/4 Score the labels and the student against the city's ground truth"
$python scripts/evaluate.py --store $out/labels.zarr --out $out/labels.json
$python scripts/evaluate.py --weights $out/student/camera_tiny_student.safetensors \
    --split val --out $out/student.json

say "4/4 Draw one frame"
$python viz/inspect.py $out/labels.zarr --screenshot $out/labels.png
finished=$SECONDS

cat <<EOF

labels   $out/labels.zarr      (review: .venv/bin/python viz/inspect.py $out/labels.zarr)
picture  $out/labels.png
figures  $out/labels.json, $out/student.json
student  $out/student/camera_tiny_student.safetensors: trained for seconds, so weak by design
time     install $((installed - began)) s, main job $((finished - installed)) s
EOF
