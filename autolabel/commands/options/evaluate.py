"""Score a model or a label store against a benchmark's ground truth, masked and unmasked.

    python scripts/evaluate.py --store runs/labels.zarr
    python scripts/evaluate.py --weights runs/student/camera_tiny_student.safetensors --split val
    python scripts/evaluate.py --weights FLOW.safetensors --source nuscenes --root DIR \\
        --benchmark openocc_flow --out scores.json

    python scripts/evaluate.py --store DIR.zarr --lidar      # no ground truth needed

``mIoU[camera-visible]`` counts voxels in the ground truth's camera mask (the benchmark's figure),
``mIoU[all]`` every voxel; for a store also ``mIoU[trusted]``, the voxels that its mask keeps and a
sensor saw in the ground truth, and what its confidence is worth. A store is scored as the teacher
wrote it; with ``--reviewed`` as people left it: edits applied, rejected frames left out. ``--rays``
adds RayIoU, and with flow mAVE and OccScore.
Predictions of other voxels or classes are converted, where there is a table of the classes; what
that loses is printed. ``--lidar`` compares a store with the log's own key sweeps instead.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from datasets.cli.options import CommandParser, add_device, add_log_of_store, add_truth
from datasets.files.store_path import parse_store_path


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line. Raises ``SetupError`` for a bad one."""
    parser = CommandParser(__doc__)
    either = parser.add_mutually_exclusive_group(required=True)
    either.add_argument(
        "--store", type=parse_store_path, help="label store; every finished scene is scored"
    )
    either.add_argument("--weights", type=Path, help="teacher or student weights")
    add_log_of_store(parser)
    add_truth(parser)
    add = parser.add_argument
    add("--split", default="val", help="scenes to run the weights on")
    add("--rays", action="store_true", help="RayIoU too; openocc_flow always has it")
    add("--lidar", action="store_true", help="compare a store with the LiDAR")
    add("--reviewed", action="store_true", help="score a store with its reviews applied")
    add("--fast", action="store_true", help="run the weights in bfloat16")
    add("--flips", action="store_true", help="average over mirrored inputs")
    add("--out", type=Path, help="JSON file for the scores")
    add_device(parser)
    args = parser.parse_args(argv)
    if (args.fast or args.flips) and not args.weights:
        parser.error("--fast and --flips need --weights")
    if args.lidar and not args.store:
        parser.error("--lidar needs --store")
    if args.reviewed and (args.lidar or not args.store):
        parser.error("--reviewed needs --store, and does not go with --lidar")
    return args
