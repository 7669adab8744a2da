"""Audit labels without ground truth: which scenes to doubt, and what is wrong with the log.

    python autolabel/audit.py STORE
    python autolabel/audit.py STORE --weights FILE --json audit.json --image audit.png
    python autolabel/audit.py --truth DIR --benchmark occ3d_nuscenes --source nuscenes --root DIR

LiDAR sweeps that the teacher did not read vote on the labels: returns that end in free voxels,
upright voxels that rays see through, dynamic ghosting, static voxels that flicker from frame to
frame (autolabel/auditing/lidar_votes.py). Scenes are ranked by these votes and by the store's own
confidence. Faults of poses, calibration and labeling are named by what would fit better
(autolabel/auditing/faults.py). --weights predicts a few frames of each scene from mirrored inputs
and compares. --truth audits the files of a benchmark, such as Occ3D's, instead of a store.

Exit codes: 0 nothing alarming, 1 faults named or scenes that could not be read, 2 cannot start.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from datasets.benchmarks import NAMES
from datasets.cli.options import CommandParser, add_log_of_store
from datasets.files.store_path import parse_store_path


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line. Raises ``SetupError`` for a bad one."""
    parser = CommandParser(__doc__)
    add = parser.add_argument
    add("store", type=parse_store_path, nargs="?", metavar="STORE", help="label store")
    add("--truth", type=Path, metavar="DIR", help="audit ground truth in this folder instead")
    add("--benchmark", choices=NAMES, help=f"of the ground truth's files (default: {NAMES[0]})")
    add_log_of_store(parser)
    add("--scenes", metavar="IDS", help="only these, separated by commas")
    add("--weights", type=Path, metavar="FILE", help="compare with this teacher's mirrored labels")
    add("--image", type=Path, metavar="PNG", help="draw the ranking")
    add("--json", type=Path, metavar="FILE", help="write the report here as well")
    parser.rename(picture="image")
    args = parser.parse_args(argv)
    if (args.store is None) == (args.truth is None):
        parser.error("name a STORE, or a folder with --truth")
    if args.benchmark and args.truth is None:
        parser.error("--benchmark needs --truth")
    return args
